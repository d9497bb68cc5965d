"""What a sceptical reader should be told before the numbers, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from coverslip.eval.folds import FoldResult
from coverslip.eval.interval import Interval
from coverslip.eval.metrics import METRICS, decisions
from coverslip.eval.reduce import UnitLevel, Units

# Below this many in the smaller class an interval of AUROC is wider than most differences people look for.
FEW = 20
# Pooled this far under the folds' mean: the folds' models do not share a scale of probabilities.
_SCALE_GAP = 0.05
_NAMED = 5


def caveats(
    *,
    folds: Sequence[FoldResult],
    units: Units,
    classes: Sequence[str],
    level: UnitLevel,
    primary: Mapping[str, Interval],
    pooled: Mapping[str, Interval] | None,
    baseline: Mapping[str, Interval],
    versus_baseline: Mapping[str, Interval],
    repeated: Sequence[str],
    unlabelled: int,
) -> list[str]:
    """Warnings, the gravest first; empty where there is nothing to warn of."""
    return [
        *about_the_data(units, classes, level, repeated, unlabelled),
        *_about_the_folds(folds, classes, level),
        *_about_the_model(folds, units, classes, level, primary, pooled),
        *_about_the_baseline(baseline, versus_baseline),
    ]


def about_the_data(
    units: Units, classes: Sequence[str], level: UnitLevel, repeated: Sequence[str], unlabelled: int
) -> list[str]:
    """Warnings about who was tested; `repeated` are patients of several folds, `unlabelled` counts dropped rows."""
    found = []
    counts = units.counts(classes)
    scarce = min(counts, key=lambda name: counts[name])
    if counts[scarce] == 0:
        found.append(f"No tested {level} of class {scarce}: metrics that need every class are null.")
    elif counts[scarce] < FEW:
        found.append(
            f"Only {_count(counts[scarce], level)} of class {scarce}, the smallest class: intervals are wide, and "
            "small differences between models mean nothing."
        )
    if repeated:
        found.append(
            f"{_count(len(repeated), 'patient')} tested in more than one fold ({_names(repeated)}): pooled figures "
            "are null, since their rows are not independent."
        )
    if unlabelled:
        found.append(f"{_count(unlabelled, 'prediction')} without a label, left out of every figure.")
    return found


def _about_the_folds(folds: Sequence[FoldResult], classes: Sequence[str], level: UnitLevel) -> list[str]:
    found = []
    for fold in folds:
        counts = fold.units.counts(classes)
        absent = [name for name, n in counts.items() if n == 0]
        missing = [name for name in METRICS if fold.figures[name] is None]
        if missing:
            found.append(
                f"{_fold(fold)} tests no {level} of class {', '.join(absent)}: {', '.join(missing)} "
                "cannot be computed there and the means leave it out."
            )
        if len(fold.units) < fold.size.test:
            found.append(
                f"{_fold(fold)}: {len(fold.units)} of {fold.size.test} test {level}s have a prediction and a label."
            )
    if len(folds) == 1:
        found.append("One fold only: there is no interval over folds.")
    values = [fold.figures["auroc"] for fold in folds if fold.figures["auroc"] is not None]
    if len(values) > 1 and np.ptp(values) == 0:
        found.append(f"Every fold has the same auroc ({values[0]:.3f}): their spread gives no interval.")
    return found


def _about_the_model(
    folds: Sequence[FoldResult],
    units: Units,
    classes: Sequence[str],
    level: UnitLevel,
    primary: Mapping[str, Interval],
    pooled: Mapping[str, Interval] | None,
) -> list[str]:
    found = []
    auroc = primary["auroc"]
    if auroc.low is not None and auroc.high is not None and auroc.low <= 0.5 <= auroc.high:
        found.append(f"The interval of auroc ({auroc.low:.2f} to {auroc.high:.2f}) holds 0.5: chance is not excluded.")
    constant = [fold for fold in folds if len(fold.units) > 1 and np.ptp(fold.units.p, axis=0).max() == 0]
    if constant:
        names = ", ".join(_fold(fold) for fold in constant)
        found.append(f"{names}: the model gives every {level} the same probabilities; it has learnt nothing.")
    elif len(units):
        never = [name for k, name in enumerate(classes) if not (decisions(units.p) == k).any()]
        if never:
            found.append(
                f"No {level} is ever decided to be of class {', '.join(never)}: read auroc, not accuracy or f1."
            )
    together = None if pooled is None else pooled["auroc"].value
    if together is not None and auroc.value is not None and together < auroc.value - _SCALE_GAP:
        found.append(
            f"Pooled auroc ({together:.2f}) is well under the mean of the folds ({auroc.value:.2f}): the folds' "
            "models do not share a scale, so one threshold does not fit them all."
        )
    return found


def _about_the_baseline(baseline: Mapping[str, Interval], versus_baseline: Mapping[str, Interval]) -> list[str]:
    difference, theirs = versus_baseline["auroc"], baseline["auroc"].value
    if theirs is None or difference.value is None:
        return ["The model could not be compared with the baseline by auroc on the same test units."]
    if difference.value <= 0:
        return [
            f"The mean+sd logistic baseline does as well or better (auroc {theirs:.2f}; model minus baseline "
            f"{difference.value:+.3f}): the model adds nothing to the mean of the features."
        ]
    if difference.low is not None and difference.low <= 0:
        return [
            f"The gain over the mean+sd logistic baseline ({difference.value:+.3f} auroc) is not certain: its "
            f"interval is {difference.low:+.3f} to {difference.high:+.3f}."
        ]
    return []


def _fold(fold: FoldResult) -> str:
    return f"Fold {fold.size.fold}" + (f" of repeat {fold.size.repeat}" if fold.size.repeat else "")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
