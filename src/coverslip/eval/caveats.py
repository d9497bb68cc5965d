"""What a sceptical reader should be told before the numbers, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from coverslip.eval.folds import FoldResult
from coverslip.eval.interval import LEAST_FOLDS, Interval
from coverslip.eval.kind import Kind
from coverslip.eval.kinds import KINDS
from coverslip.eval.reduce import UnitLevel, Units
from coverslip.eval.truth import Task

# Below this many in the smaller class an interval of AUROC is wider than most differences people look for.
FEW = 20
_NAMED = 5


def caveats(
    *,
    folds: Sequence[FoldResult],
    units: Units,
    task: Task,
    level: UnitLevel,
    primary: Mapping[str, Interval],
    baseline: Mapping[str, Interval],
    versus_baseline: Mapping[str, Interval],
    repeated: Sequence[str],
    unlabelled: int,
) -> list[str]:
    """Warnings, the gravest first; empty where there is nothing to warn of."""
    kind = KINDS[task.kind]
    return [
        *about_the_data(units, task, level, repeated, unlabelled),
        *_about_the_folds(folds, task, level, primary),
        *_about_the_model(folds, units, task, level, primary),
        *_about_the_baseline(kind, baseline, versus_baseline),
    ]


def about_the_data(units: Units, task: Task, level: UnitLevel, repeated: Sequence[str], unlabelled: int) -> list[str]:
    """Warnings about who was tested; `repeated` are patients of several folds, `unlabelled` counts dropped rows."""
    found = []
    number, what = KINDS[task.kind].scarcest(units, task)
    if number == 0:
        found.append(f"No tested {level} {what}: metrics that need one are null.")
    elif number < FEW:
        found.append(
            f"Only {_count(number, level)} {what}, the scarcest: intervals are wide, and small differences between "
            "models mean nothing."
        )
    if repeated:
        found.append(
            f"{_count(len(repeated), 'patient')} tested in more than one fold ({_names(repeated)}): pooled figures "
            "are null, since their rows are not independent."
        )
    if unlabelled:
        found.append(f"{_count(unlabelled, 'prediction')} without a label, left out of every figure.")
    return found


def _about_the_folds(
    folds: Sequence[FoldResult], task: Task, level: UnitLevel, primary: Mapping[str, Interval]
) -> list[str]:
    found = []
    kind = KINDS[task.kind]
    for fold in folds:
        missing = [name for name in kind.names(task) if fold.figures[name] is None]
        if missing:
            found.append(
                f"{_fold(fold)} tests {_lacking(kind, fold.units, task, level)}: {', '.join(missing)} "
                "cannot be computed there and the means leave it out."
            )
        if len(fold.units) < fold.size.test:
            found.append(
                f"{_fold(fold)}: {len(fold.units)} of {fold.size.test} test {level}s have a prediction and a label."
            )
    if len(folds) == 1:
        found.append("One fold only: there is no interval over folds.")
    elif len(folds) < LEAST_FOLDS:
        found.append(
            f"Two folds only: there is no interval over folds, since a spread of two figures is luck; {LEAST_FOLDS} or "
            "more have one."
        )
    values = [value for fold in folds if (value := fold.figures[kind.headline]) is not None]
    if len(values) >= LEAST_FOLDS and np.ptp(values) == 0 and primary[kind.headline].low is None:
        found.append(f"Every fold has the same {kind.headline} ({values[0]:.3f}): their spread gives no interval.")
    return found


def _lacking(kind: Kind, units: Units, task: Task, level: UnitLevel) -> str:
    """What the figures of a fold want for: "no patient of class b", "2 patients with a value"."""
    counts = units.counts(task.classes) if task.kind == "classification" else {}
    absent = [name for name, n in counts.items() if n == 0]
    if absent:
        return f"no {level} of class {', '.join(absent)}"
    number, what = kind.scarcest(units, task)
    return f"no {level} {what}" if number == 0 else f"{_count(number, level)} {what}"


def _about_the_model(
    folds: Sequence[FoldResult],
    units: Units,
    task: Task,
    level: UnitLevel,
    primary: Mapping[str, Interval],
) -> list[str]:
    found = []
    kind = KINDS[task.kind]
    figure = primary[kind.headline]
    if figure.low is not None and figure.high is not None and figure.low <= kind.chance <= figure.high:
        found.append(
            f"The interval of {kind.headline} ({figure.low:.2f} to {figure.high:.2f}) holds {kind.chance:g}: "
            "chance is not excluded."
        )
    constant = [fold for fold in folds if len(fold.units) > 1 and np.ptp(fold.units.p, axis=0).max() == 0]
    if constant:
        names = ", ".join(_fold(fold) for fold in constant)
        found.append(f"{names}: the model says the same of every {level}; it has learnt nothing.")
    else:
        found += kind.doubts(units, task, level)
    return found


def _about_the_baseline(
    kind: Kind, baseline: Mapping[str, Interval], versus_baseline: Mapping[str, Interval]
) -> list[str]:
    name = kind.headline
    difference, theirs = versus_baseline[name], baseline[name].value
    if theirs is None or difference.value is None:
        return [f"The model could not be compared with the baseline by {name} on the same test units."]
    if difference.value <= 0:
        return [
            f"The {kind.baseline} baseline does as well or better ({name} {theirs:.2f}; model minus baseline "
            f"{difference.value:+.3f}): the model adds nothing to the mean of the features."
        ]
    if difference.low is not None and difference.low <= 0:
        return [
            f"The gain over the {kind.baseline} baseline ({difference.value:+.3f} {name}) is not certain: its "
            f"interval is {difference.low:+.3f} to {difference.high:+.3f}."
        ]
    return []


def _fold(fold: FoldResult) -> str:
    return f"Fold {fold.size.fold}" + (f" of repeat {fold.size.repeat}" if fold.size.repeat else "")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
