"""What each fold found, and what the folds say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from coverslip.eval.interval import Interval, nadeau_bengio
from coverslip.eval.kinds import KINDS
from coverslip.eval.reduce import Rows, UnitLevel, Units, reduce
from coverslip.eval.truth import Task


@dataclass(frozen=True)
class FoldSize:
    """How many patients (or slides, where that is the level) a fold's model was trained on and tested on.

    `train` counts those that moved the weights; tuning patients only stopped the training and are left out, which
    makes the interval rather wider than too narrow. For survival `training` is time and event of each of them, and
    `cut` the median risk that the fold's model gives them.
    """

    fold: int
    train: int
    test: int
    repeat: int = 0
    training: Float[ndarray, "t 2"] | None = field(default=None, repr=False, compare=False)
    cut: float | None = None


@dataclass(frozen=True)
class FoldResult:
    """One fold: its size, its tested units, and its figures by metric."""

    size: FoldSize
    units: Units
    figures: dict[str, float | None]


def fold_results(
    rows: Rows, sizes: Mapping[tuple[int, int], FoldSize], level: UnitLevel, task: Task
) -> list[FoldResult]:
    """Each fold's figures, in the order of `rows.folds()`."""
    results = []
    for repeat, fold in rows.folds():
        size = sizes[repeat, fold]
        units = reduce(rows.only((rows.repeat == repeat) & (rows.fold == fold)), level)
        units = replace(units, training={} if size.training is None else {0: size.training})
        results.append(FoldResult(size, units, KINDS[task.kind].figures(units, task)))
    return results


def pooled_units(rows: Rows, sizes: Mapping[tuple[int, int], FoldSize], level: UnitLevel) -> Units:
    """The units of all folds, each once, with what the sizes say of the training units of each stratum."""
    units = reduce(rows, level)
    training = {place: known for place, key in enumerate(rows.folds()) if (known := sizes[key].training) is not None}
    cut = np.array([sizes[key].cut for key in zip(rows.repeat.tolist(), rows.fold.tolist())], dtype=np.float64)
    if not len(rows) or np.isnan(cut).any():
        return replace(units, training=training)
    # Models have scales of their own: a risk is first set against its own model's, then averaged.
    over_cut = reduce(replace(rows, p=rows.p[:, :1] - cut[:, None]), level).p[:, 0]
    return replace(units, training=training, over_cut=over_cut)


def over_folds(folds: Sequence[FoldResult], task: Task) -> dict[str, Interval]:
    """Each metric over the folds in which it could be computed."""
    kind, figures = KINDS[task.kind], {}
    for name in kind.names(task):
        known = [(value, fold.size) for fold in folds if (value := fold.figures[name]) is not None]
        figures[name] = nadeau_bengio(
            [value for value, _ in known],
            [size.train for _, size in known],
            [size.test for _, size in known],
            bounds=kind.bounds(name, task),
        )
    return figures


def difference(folds: Sequence[FoldResult], others: Sequence[FoldResult], task: Task) -> dict[str, Interval]:
    """Model minus baseline, fold by fold, over folds in which both were tested on the same units."""
    other_of = {(fold.size.repeat, fold.size.fold): fold for fold in others}
    kind, figures = KINDS[task.kind], {}
    for name in kind.names(task):
        known = []
        for fold in folds:
            other = other_of.get((fold.size.repeat, fold.size.fold))
            if other is None or not np.array_equal(fold.units.ids, other.units.ids):
                continue
            ours, theirs = fold.figures[name], other.figures[name]
            if ours is not None and theirs is not None:
                known.append((ours - theirs, fold.size))
        low, high = kind.bounds(name, task)
        figures[name] = nadeau_bengio(
            [value for value, _ in known],
            [size.train for _, size in known],
            [size.test for _, size in known],
            bounds=(low - high, high - low),
            how="mean of folds, model minus baseline, Nadeau-Bengio, 95%",
        )
    return figures


def mean_sd(values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
    }
