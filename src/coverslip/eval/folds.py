"""What each fold found, and what the folds say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from coverslip.eval.interval import LEAST_FOLDS, Interval, nadeau_bengio
from coverslip.eval.kind import Kind
from coverslip.eval.kinds import KINDS
from coverslip.eval.reduce import Rows, UnitLevel, Units, reduce
from coverslip.eval.sampling import sampling_half_width
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
    """Each metric over the folds in which it could be computed.

    No interval is narrower than the sampling of the test patients by itself, and under `LEAST_FOLDS` folds there is
    none; where a part is None, `reason` says why.
    """
    kind = KINDS[task.kind]
    return {name: _over_folds(name, folds, kind, task) for name in kind.names(task)}


def _over_folds(name: str, folds: Sequence[FoldResult], kind: Kind, task: Task) -> Interval:
    known = [(fold, value) for fold in folds if (value := fold.figures[name]) is not None]
    values, sizes = [value for _, value in known], [fold.size for fold, _ in known]
    at_least: float | None = 0.0
    why = kind.without_interval.get(name, "") if known else _why_not(folds, name, kind, task)
    if not why and len(known) < min(LEAST_FOLDS, len(folds)):
        why = _why_not(folds, name, kind, task)
    if not why and len(known) >= LEAST_FOLDS:
        units = [fold.units for fold, _ in known]
        at_least = sampling_half_width(partial(_figure, kind, name, task), units, _groups(units, kind, task))
        if at_least is None:
            why = "without one patient no fold has this figure: what other patients would change is not known"
    if why:
        return Interval(float(np.mean(values)) if values else None, None, None, "mean of folds", reason=why)
    return nadeau_bengio(
        values,
        [size.train for size in sizes],
        [size.test for size in sizes],
        bounds=kind.bounds(name, task),
        at_least=at_least or 0.0,
    )


def difference(folds: Sequence[FoldResult], others: Sequence[FoldResult], task: Task) -> dict[str, Interval]:
    """Model minus baseline, fold by fold, over folds in which both were tested on the same units."""
    other_of = {(fold.size.repeat, fold.size.fold): fold for fold in others}
    kind, figures = KINDS[task.kind], {}
    pairs = [
        (fold, other)
        for fold in folds
        if (other := other_of.get((fold.size.repeat, fold.size.fold))) is not None
        and np.array_equal(fold.units.ids, other.units.ids)
    ]
    how = "mean of folds, model minus baseline, Nadeau-Bengio, 95%"
    for name in kind.names(task):
        known = [
            (ours - theirs, fold.size)
            for fold, other in pairs
            if (ours := fold.figures[name]) is not None and (theirs := other.figures[name]) is not None
        ]
        low, high = kind.bounds(name, task)
        found = nadeau_bengio(
            [value for value, _ in known],
            [size.train for _, size in known],
            [size.test for _, size in known],
            bounds=(low - high, high - low),
            how=how,
        )
        if not pairs:
            found = replace(found, reason="no fold in which both were tested on the same units")
        elif len(known) < min(LEAST_FOLDS, len(pairs)):
            found = replace(found, reason=_why_not([fold for fold, _ in pairs], name, kind, task))
        elif why := kind.without_interval.get(name):
            found = replace(found, low=None, high=None, reason=why)
        figures[name] = found
    return figures


def _figure(kind: Kind, name: str, task: Task, units: Units, weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
    return kind.figure(name, units, weights, task)


def _groups(folds: Sequence[Units], kind: Kind, task: Task) -> Int[ndarray, n]:
    """What patients are drawn within, of the units of all folds one after another."""
    ids, patient, y, p = (
        np.concatenate([getattr(units, part) for units in folds]) for part in ("ids", "patient", "y", "p")
    )
    return kind.groups(Units(ids, patient, y, p), task)


def _why_not(folds: Sequence[FoldResult], name: str, kind: Kind, task: Task) -> str:
    """Which folds lack the figure, and what they have fewest of."""
    if not folds:
        return "no fold was tested"
    lacking = [fold for fold in folds if fold.figures[name] is None]
    wanting: dict[str, list[str]] = {}
    for fold in lacking:
        number, what = kind.scarcest(fold.units, task)
        title = f"{fold.size.fold}" + (f" of repeat {fold.size.repeat}" if fold.size.repeat else "")
        wanting.setdefault(f"{number or 'none'} {what}", []).append(title)
    told = "; ".join(f"{have} in {'fold' if len(of) == 1 else 'folds'} {', '.join(of)}" for have, of in wanting.items())
    left = len(folds) - len(lacking)
    if not left:
        return f"no fold has this figure: {told}"
    return f"{left} {'fold has' if left == 1 else 'folds have'} this figure, {LEAST_FOLDS} are needed: {told}"


def mean_sd(values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
    }
