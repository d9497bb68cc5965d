"""From out-of-fold predictions to metrics.json and the curves of the report.

Three figures, and what each says:

primary   mean over folds of the within-fold figure, with an interval that knows that folds share training patients:
          how good is this way of making models.
pooled    all out-of-fold predictions together, test patients resampled: how good were these fitted models. Figures
          that rank (auroc, auprc, c_index) compare patients of one fold, since models of different folds have different
          scales. Null where a patient is tested in several folds, since then rows are not independent.
baseline  a linear model on mean and spread of the features, on the same folds; versus_baseline pairs the folds.

What the figures are is the kind of task's: `coverslip.eval.kinds` has one table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from coverslip.base.errors import TableError
from coverslip.base.files import finite
from coverslip.eval.bootstrap import across_folds
from coverslip.eval.caveats import about_the_data, caveats
from coverslip.eval.folds import FoldResult, FoldSize, difference, fold_results, mean_sd, over_folds, pooled_units
from coverslip.eval.interval import Interval, percentiles
from coverslip.eval.kinds import KINDS
from coverslip.eval.learnt import corrected_table
from coverslip.eval.paired import paired_differences
from coverslip.eval.reduce import Rows, Task, UnitLevel, Units, overlapping, read_rows, reduce
from coverslip.eval.sites import site_table

FORMAT = "coverslip.metrics/1"
CURVES_FORMAT = "coverslip.evaluation/1"


@dataclass(frozen=True)
class Evaluation:
    """`metrics` is metrics.json, `curves` is evaluation.json; both plain values without NaN."""

    metrics: dict[str, Any]
    curves: dict[str, Any]


def evaluate(
    predictions: pd.DataFrame,
    baseline: pd.DataFrame | None,
    *,
    task: Mapping[str, Any],
    level: UnitLevel,
    split: Iterable[FoldSize],
    resamples: int = 2000,
    seed: int = 0,
    alpha: float = 0.05,
    sites: pd.Series | None = None,
    warnings: Sequence[str] = (),
) -> Evaluation:
    """Metrics and curves of a run.

    `predictions` and `baseline` are tables like predictions.csv: slide, patient, fold, set, the target's columns and
    those of the kind of task (`coverslip.eval.truth`); repeat where folds were drawn more than once. Rows of the set
    "test" are out-of-fold predictions; rows of the set "external" get figures of their own, from the mean over the
    folds' models, and the curves where they are alone. `task` has kind, column and classes, and columns and grid where
    the kind has them. Where `predictions` have columns calibrated_<class>, what is acted on is judged by them.
    Prediction sets may miss a share `alpha`. `sites` names the site of a slide, by slide id.
    `warnings` are the caller's (leaks, missing features); they stand first.

    Raises:
        TableError: a column is missing, a label is no class, a prediction is NaN, a patient has two outcomes.
        SettingsError: a task kind that cannot be evaluated.
    """
    what = Task.of(task)
    kind = KINDS[what.kind]
    rows, external, unlabelled = _read(predictions, what, where="Predictions")
    baseline_rows, baseline_external, _ = (
        _read(baseline, what, where="Baseline predictions")
        if baseline is not None
        else (rows.only(np.zeros(len(rows), bool)), None, 0)
    )
    sizes = {(size.repeat, size.fold): size for size in split}
    unknown = [key for key in rows.folds() if key not in sizes]
    if unknown:
        raise TableError(f"Predictions: (repeat, fold) {unknown[0]} is not in the split.")
    folds = fold_results(rows, sizes, level, what)
    baseline_folds = fold_results(baseline_rows, sizes, level, what)
    units = pooled_units(rows, sizes, level)
    repeated = overlapping(rows)

    primary = over_folds(folds, what)
    baseline_figures = over_folds(baseline_folds, what)
    versus_baseline = difference(folds, baseline_folds, what)
    pooled = None if repeated else _resampled(units, what, resamples, seed, models="these fitted models")
    metrics: dict[str, Any] = {
        "format": FORMAT,
        "task": what.to_json(),
        "level": level,
        "headline": kind.headline,
        "shown": list(kind.shown),
        "counts": _counts(rows, units, what),
        "primary": _json(primary),
        "baseline": {
            "name": kind.baseline,
            **_json(baseline_figures),
            "folds": [{"fold": f.size.fold, "repeat": f.size.repeat, **f.figures} for f in baseline_folds],
        },
        "versus_baseline": _json(versus_baseline),
        "pooled": None if pooled is None else _json(pooled),
        "folds": [_fold_json(fold, level, what) for fold in folds],
        "fold_summary": {name: mean_sd([fold.figures[name] for fold in folds]) for name in kind.names(what)},
    }
    if repeated and what.kind == "classification":
        # Pooled rows are not independent; patients drawn once for all folds are.
        found = across_folds(kind.headline, [fold.units for fold in folds], resamples=resamples, seed=seed)
        metrics["across_folds"] = {kind.headline: found.to_json()}
    if external is not None:
        metrics["external"] = _external(external, baseline_external, what, level, resamples, seed)
    if len(rows):
        doubts = caveats(
            folds=folds,
            units=units,
            task=what,
            level=level,
            primary=primary,
            baseline=baseline_figures,
            versus_baseline=versus_baseline,
            repeated=repeated,
            unlabelled=unlabelled,
        )
    elif external is not None:
        # Another cohort alone: its figures are under "external", and the curves are its.
        rows, units = external, reduce(external, level)
        repeated = overlapping(external)
        doubts = about_the_data(units, what, level, [], unlabelled)
    else:
        doubts = ["There is no prediction to evaluate: every figure is null."]
    metrics["warnings"] = [*warnings, *doubts]
    curves = _curves(units, folds, what, level, repeated=bool(repeated))
    curves["set"] = "external" if rows is external else "test"
    corrected = _corrected(predictions, what, level, external=rows is external)
    curves["trust"] = kind.trust(
        units, what, out_of_fold=rows is not external, corrected=corrected, alpha=alpha, seed=seed
    )
    curves["sites"] = _sites(
        rows, units, sites, what, level, resamples, seed, apart=bool(repeated) and rows is not external
    )
    return Evaluation(finite(metrics), finite(curves))


def _read(frame: pd.DataFrame, task: Task, *, where: str) -> tuple[Rows, Rows | None, int]:
    """Out-of-fold rows, external rows where there are any, and how many rows had no label."""
    if "set" not in frame.columns:
        raise TableError(f"{where}: no column 'set'; it says test or external.")
    is_external = frame["set"].astype(str) == "external"
    rows, unlabelled = read_rows(frame[~is_external], task, where=where)
    external, also_unlabelled = read_rows(frame[is_external], task, where=where)
    return rows, external if len(external) else None, unlabelled + also_unlabelled


def _corrected(predictions: pd.DataFrame, task: Task, level: UnitLevel, *, external: bool) -> Units | None:
    """The units with recalibrated probabilities, where the table has them."""
    table = corrected_table(predictions, task)
    if table is None:
        return None
    rows, other, _ = _read(table, task, where="Recalibrated predictions")
    held = other if external else rows
    return None if held is None else reduce(held, level)


def _resampled(units: Units, task: Task, resamples: int, seed: int, *, models: str) -> dict[str, Interval]:
    how = f"{models}, test patients resampled, {resamples}, 95%"
    kind = KINDS[task.kind]
    figures = kind.fixed(units, task, resamples, seed)
    if figures is not None:
        return {name: replace(figure, how=f"{models}, {figure.how}") for name, figure in figures.items()}
    groups = kind.groups(units, task)
    found = {}
    for name in kind.names(task):
        figure = partial(_figure, name, units, task)
        if why := kind.without_interval.get(name):
            found[name] = Interval(kind.figures(units, task)[name], None, None, models, reason=why)
        else:
            found[name] = percentiles(figure, name, units.patient, groups, resamples, seed, how=how)
    return found


def _figure(name: str, units: Units, task: Task, weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
    return KINDS[task.kind].figure(name, units, weights, task)


def _curves(
    units: Units, folds: Sequence[FoldResult], task: Task, level: UnitLevel, *, repeated: bool
) -> dict[str, Any]:
    kind = KINDS[task.kind]
    return {
        "format": CURVES_FORMAT,
        "task": task.to_json(),
        "level": level,
        "note": f"a {level} tested in several folds counts once, with its mean prediction" if repeated else None,
        "folds": [
            {"fold": fold.size.fold, "repeat": fold.size.repeat, **kind.fold_curves(fold.units, task)} for fold in folds
        ],
        **kind.curves(units, task),
    }


def _external(
    rows: Rows, baseline: Rows | None, task: Task, level: UnitLevel, resamples: int, seed: int
) -> dict[str, Any]:
    """Figures on patients of another cohort: every fold's model predicts each, and their mean counts."""
    models = f"mean of {len(rows.folds())} fitted models"
    units = reduce(rows, level)
    figures = _fixed(units, task, resamples, seed, models=models)
    result = {"counts": _counts(rows, units, task), **_json(figures)}
    if baseline is not None:
        theirs = reduce(baseline, level)
        beside = _fixed(theirs, task, resamples, seed, models=models)
        result["baseline"] = {"name": KINDS[task.kind].baseline, **_json(beside)}
        one, other = replace(units, stratum=None), replace(theirs, stratum=None)
        result["versus_baseline"] = paired_differences(one, other, task, figures=(figures, beside))
    return result


def _fixed(units: Units, task: Task, resamples: int, seed: int, *, models: str) -> dict[str, Interval]:
    """Figures of finished models on other patients: one prediction a unit, so closed forms hold where they exist."""
    return _resampled(replace(units, stratum=None), task, resamples, seed, models=models)


def _sites(
    rows: Rows,
    units: Units,
    sites: pd.Series | None,
    task: Task,
    level: UnitLevel,
    resamples: int,
    seed: int,
    *,
    apart: bool,
) -> list[dict[str, Any]]:
    if sites is None:
        return []
    site_of_slide = {str(slide): str(site) for slide, site in sites.dropna().items()}
    named: dict[str, set[str]] = {}
    for slide, patient in zip(rows.slide, rows.patient):
        if slide in site_of_slide:
            named.setdefault(patient if level == "patient" else slide, set()).add(site_of_slide[slide])
    joined = {unit: " + ".join(sorted(names)) for unit, names in named.items()}
    held = rows if apart else None
    return site_table(units, joined, task, level=level, resamples=resamples, seed=seed, rows=held)


def _counts(rows: Rows, units: Units, task: Task) -> dict[str, Any]:
    counts = KINDS[task.kind].counts(units, task)
    return {"patients": len(set(rows.patient)), "slides": len(set(rows.slide)), **counts}


def _fold_json(fold: FoldResult, level: UnitLevel, task: Task) -> dict[str, Any]:
    return {
        "fold": fold.size.fold,
        "repeat": fold.size.repeat,
        "patients": len(set(fold.units.patient)),
        f"train_{level}s": fold.size.train,
        **KINDS[task.kind].counts(fold.units, task),
        **fold.figures,
    }


def _json(figures: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: interval.to_json() for name, interval in figures.items()}
