"""Folds made here: patients dealt like cards, class by class, so that every fold gets its share of each.

The deal is our own, so that a seed gives the same folds with every version of every library: the patients of a class
are shuffled and dealt in rounds, one to each fold. Each fold's count of a class is then within one of the ideal, and so
is its count of patients, because the last, incomplete round of a class goes to the folds that are behind.

A class here is a stratum: the class of a patient, or, where the target has none, what its kind of task balances folds
by (event or not, a label, a quantile).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from coverslip.base.errors import SplitError
from coverslip.base.random import stream
from coverslip.base.study import SplitSettings
from coverslip.cohort.split import Fold, Split
from coverslip.cohort.targets import Targets

T = TypeVar("T")
_MORE_CLASSES = (
    "Every fold must train on two classes or more. All of a class at one site, before or after one cut, or in one test "
    "set, leaves none to train on: set split.design = 'patients', move split.cuts, deal that class over the folds of "
    "split.file, or join it with another in cohort.classes."
)


@dataclass(frozen=True)
class Hand:
    """Who is tested in one fold, who may be learnt from, and what the fold is called where it has a name of its own
    (a site, a span of time)."""

    index: int
    repeat: int
    test: Sequence[str]
    rest: Sequence[str]
    label: str = ""


def make_split(targets: Targets, settings: SplitSettings, *, strata: Mapping[str, int] | None = None) -> Split:
    """Repeated patient-level folds: in each repeat every patient is tested once, and none is on two sides of a fold.

    The same seed, patients and targets give the same folds, whatever the order of the table. Where slides of a patient
    may differ (level = slide), a patient counts for the rarest class among their slides. `tune` is drawn from the
    training patients, class by class; a class with a single training patient stays out of it, with a warning.
    `strata` is what each patient counts for where that is not to be read from the targets.

    Raises:
        SplitError: fewer patients, or fewer of one class, than folds.
    """
    slides_of = slides_of_patients(targets)
    stratum = patient_strata(targets) if strata is None else dict(strata)
    _enough(targets, settings.folds)
    hands = []
    for repeat in range(settings.repeats):
        dealt = deal(stratum, slides_of, settings.folds, stream(settings.seed, "split", repeat))
        hands += [Hand(i, repeat, test, sorted(set(stratum) - set(test))) for i, test in enumerate(dealt)]
    source = f"{settings.folds} folds by patient, seed {settings.seed}"
    if settings.repeats > 1:
        source = f"{settings.repeats} x {source}"
    return split_of(hands, targets, settings, source, strata=stratum)


def split_of(
    hands: Iterable[Hand],
    targets: Targets,
    settings: SplitSettings,
    source: str,
    *,
    strata: Mapping[str, int] | None = None,
    warnings: Sequence[str] = (),
) -> Split:
    """The split of these hands: a tuning set is drawn from each hand's rest, and every fold is checked for classes.

    Raises:
        SplitError: a fold trains on one class alone.
    """
    slides_of = slides_of_patients(targets)
    stratum = patient_strata(targets) if strata is None else strata
    folds: list[Fold] = []
    told = list(warnings)
    for hand in hands:
        chance = stream(settings.seed, "split", hand.repeat, "tune", hand.index)
        tune = draw_tune({p: stratum[p] for p in hand.rest}, settings.tune, chance)
        train = sorted(set(hand.rest) - set(tune))
        train_slides, tune_slides, test_slides = (_all_slides(slides_of, names) for names in (train, tune, hand.test))
        folds.append(Fold(hand.index, hand.repeat, train_slides, tune_slides, test_slides, hand.label))
        told += _without_tune(targets, stratum, train, tune, folds[-1])
    told += check_classes(folds, targets, source="these folds")
    return Split(tuple(folds), targets.patient_of, source, warnings=tuple(told))


def draw_tune(stratum: Mapping[str, int], fraction: float, chance: np.random.Generator) -> list[str]:
    """About `fraction` of the patients, of each class its share: at least one of a class that has two or more, and
    never all of a class. `stratum` is the class of each patient that may be drawn."""
    patients: dict[int, list[str]] = {}
    for patient in sorted(stratum):
        patients.setdefault(stratum[patient], []).append(patient)
    ideal = {c: fraction * len(members) for c, members in patients.items()}
    counts = {c: int(share) for c, share in ideal.items()}
    # Largest remainders first, so that the whole tune set has the size that was asked for.
    left = round(fraction * len(stratum)) - sum(counts.values())
    for c in sorted(ideal, key=lambda c: (counts[c] - ideal[c], c))[: max(left, 0)]:
        counts[c] += 1
    drawn: list[str] = []
    for c, members in sorted(patients.items()):
        wanted = min(max(counts[c], 1), len(members) - 1)
        drawn += shuffled(members, chance)[:wanted]
    return sorted(drawn)


def check_classes(folds: Sequence[Fold], targets: Targets, *, source: str) -> list[str]:
    """Warnings about folds whose test set lacks a class, so that some numbers cannot be computed there.

    Raises:
        SplitError: a fold trains on one class alone, from which nothing can be learnt.
    """
    if not targets.strict:
        return []
    y_of = targets.y_of
    warnings = []
    for fold in folds:
        trained = {y_of[slide] for slide in fold.train}
        if len(trained) < 2:
            only = ", ".join(repr(targets.strata[c]) for c in trained)
            raise SplitError(
                f"{source}, {fold.title}: the training set holds class {only} alone.",
                fix=_MORE_CLASSES,
                code="one_class",
            )
        tested = {y_of[slide] for slide in fold.test}
        lacking = ", ".join(repr(name) for c, name in enumerate(targets.strata) if c not in tested)
        if lacking:
            warnings.append(f"{fold.title}: the test set has no slide of class {lacking}.")
    return warnings


def patient_strata(targets: Targets) -> dict[str, int]:
    """The class that each patient counts for when patients are drawn: the rarest among their slides."""
    column = "stratum" if "stratum" in targets.frame else "y"
    classes_of: dict[str, set[int]] = {}
    for patient, y in zip(targets.frame["patient"], targets.frame[column]):
        classes_of.setdefault(patient, set()).add(int(y))
    having = Counter(c for classes in classes_of.values() for c in classes)
    return {patient: min(classes_of[patient], key=lambda c: (having[c], c)) for patient in sorted(classes_of)}


def deal(
    stratum: Mapping[str, int], slides_of: Mapping[str, Sequence[str]], folds: int, chance: np.random.Generator
) -> list[list[str]]:
    """The test patients of each fold."""
    hands: list[list[str]] = [[] for _ in range(folds)]
    num_slides = [0] * folds
    order = shuffled(range(folds), chance)  # which fold is served first where nothing else decides
    for c in sorted(set(stratum.values())):
        cards_of_class = shuffled([patient for patient in sorted(stratum) if stratum[patient] == c], chance)
        for start in range(0, len(cards_of_class), folds):
            # A round: one patient to a fold, the one with most slides to the fold with fewest. Folds with fewer
            # patients come first, which matters in the last round of a class alone.
            served = sorted(range(folds), key=lambda f: (len(hands[f]), num_slides[f], order[f]))
            cards = cards_of_class[start : start + folds]
            served = sorted(served[: len(cards)], key=lambda f: (num_slides[f], order[f]))
            for fold, patient in zip(served, sorted(cards, key=lambda p: -len(slides_of[p]))):
                hands[fold].append(patient)
                num_slides[fold] += len(slides_of[patient])
    return [sorted(hand) for hand in hands]


def shuffled(items: Sequence[T], chance: np.random.Generator) -> list[T]:
    """The items in an order of chance that no version of numpy changes."""
    # Raw bits are the one part of numpy's chance that never changes between its versions; a permutation may.
    keys = chance.bit_generator.random_raw(len(items)).tolist()
    return [item for _, item in sorted(zip(keys, items), key=lambda pair: pair[0])]


def slides_of_patients(targets: Targets) -> dict[str, list[str]]:
    """The slides of each patient, both sorted."""
    slides: dict[str, list[str]] = {}
    for slide, patient in sorted(targets.patient_of.items()):
        slides.setdefault(patient, []).append(slide)
    return slides


def _enough(targets: Targets, folds: int) -> None:
    num_patients = targets.frame["patient"].nunique()
    if num_patients < folds:
        raise SplitError(
            f"{num_patients} patients cannot fill {folds} folds.",
            fix=_fewer(num_patients),
            code="too_few_patients",
        )
    if not targets.strict:
        return
    having = targets.frame.groupby("y")["patient"].nunique()
    short = {targets.strata[int(c)]: n for c, n in zip(having.index.tolist(), having.tolist()) if n < folds}
    if short:
        told = ", ".join(f"{name!r} has {n}" for name, n in short.items())
        raise SplitError(
            f"{folds} folds need {folds} patients of each class of {targets.column!r}: {told}.",
            fix=_fewer(min(short.values())),
            code="too_few_patients",
        )


def _fewer(most: int) -> str:
    if most >= 2:
        return f"Set split.folds = {most} or less."
    return "Leave that class out with cohort.filter, join it with another in cohort.classes, or add patients."


def _without_tune(
    targets: Targets, stratum: Mapping[str, int], train: list[str], tune: list[str], fold: Fold
) -> list[str]:
    if not targets.strict:
        return []
    there = {stratum[patient] for patient in tune}
    missing = sorted({stratum[patient] for patient in train} - there)
    return [f"{fold.title}: no patient of class {targets.strata[c]!r} to tune on, too few." for c in missing]


def _all_slides(slides_of: Mapping[str, Sequence[str]], patients: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(slide for patient in patients for slide in slides_of[patient]))
