"""Folds inside a fold: what settings are chosen on, so that the outer test patients are read once, at the end."""

from __future__ import annotations

from coverslip.base.errors import SplitError
from coverslip.base.random import stream
from coverslip.cohort.folds import deal, draw_tune, patient_strata, slides_of_patients
from coverslip.cohort.split import Fold
from coverslip.cohort.targets import Targets


def inner_folds(fold: Fold, targets: Targets, *, folds: int = 3, seed: int = 0, tune: float = 0.2) -> tuple[Fold, ...]:
    """Patient folds of the outer training and tuning patients alone: each tests a share of them, and trains and tunes
    on the others. The outer test patients are in no set of any of them.

    Folds are dealt class by class like outer ones. Where a class has fewer patients than `folds`, there are as many
    folds as it has patients, two at least.

    Raises:
        SplitError: fewer than two patients of a class to learn from.
    """
    whose = targets.patient_of
    # Where a leak was allowed, patients who are tested too are not chosen by.
    barred = {whose[slide] for slide in fold.test}
    patients = {whose[slide] for slide in (*fold.train, *fold.tune)} - barred
    stratum = {patient: c for patient, c in patient_strata(targets).items() if patient in patients}
    slides = set(fold.train) | set(fold.tune)
    slides_of = {
        patient: [slide for slide in held if slide in slides]
        for patient, held in slides_of_patients(targets).items()
        if patient in patients
    }
    counts = [sum(c == kind for c in stratum.values()) for kind in set(stratum.values())]
    fewest = min(counts, default=0) if targets.strict else len(stratum)
    if fewest < 2 or len(stratum) < 4:
        raise SplitError(
            f"{fold.title}: {len(stratum)} training patients, {fewest} of the rarest class, are too few to choose "
            "settings on.",
            fix="Leave out [tune], or set split.folds lower.",
            code="too_few_patients",
        )
    dealt = deal(stratum, slides_of, min(folds, fewest), stream(seed, "inner", fold.repeat, fold.index))
    made = []
    for index, test in enumerate(dealt):
        rest = sorted(set(stratum) - set(test))
        chance = stream(seed, "inner", fold.repeat, fold.index, "tune", index)
        tuned = draw_tune({p: stratum[p] for p in rest}, tune, chance)
        sets = (sorted(set(rest) - set(tuned)), tuned, test)
        train_, tune_, test_ = (tuple(sorted(s for p in names for s in slides_of[p])) for names in sets)
        made.append(Fold(index, fold.repeat, train_, tune_, test_, label=f"{fold.name}, inner {index}"))
    return tuple(made)
