"""From out-of-fold predictions to metrics.json and the curves of the report.

Three figures, and what each says:

primary   mean over folds of the within-fold figure, with an interval that knows that folds share training patients:
          how good is this way of making models.
pooled    all out-of-fold predictions together, test patients resampled: how good were these fitted models. Null where
          a patient is tested in several folds, since then rows are not independent.
baseline  a logistic regression on mean and spread of the features, on the same folds; versus_baseline pairs the folds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from coverslip.base.errors import TableError
from coverslip.base.files import finite
from coverslip.eval import baseline as mean_sd_baseline
from coverslip.eval.caveats import about_the_data, caveats
from coverslip.eval.curves import confusion, discrimination, reliability, site_table
from coverslip.eval.folds import FoldResult, FoldSize, difference, fold_results, mean_sd, over_folds
from coverslip.eval.interval import Interval, patient_bootstrap
from coverslip.eval.metrics import METRICS
from coverslip.eval.reduce import Rows, Task, UnitLevel, Units, overlapping, read_rows, reduce

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
    sites: pd.Series | None = None,
    warnings: Sequence[str] = (),
) -> Evaluation:
    """Metrics and curves of a run.

    `predictions` and `baseline` are tables like predictions.csv: slide, patient, fold, set, the target's column
    (class names) and p_<class>; repeat where folds were drawn more than once. Rows of the set "test" are out-of-fold
    predictions; rows of the set "external" get figures of their own, from the mean over the folds' models, and the
    curves where they are alone. `task` has kind, column and classes. `sites` names the site of a slide, by slide id.
    `warnings` are the caller's (leaks, missing features); they stand first.

    Raises:
        TableError: a column is missing, a label is no class, a probability is NaN, a patient has two outcomes.
        SettingsError: a task kind that cannot be evaluated yet.
    """
    what = Task.of(task)
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
    folds = fold_results(rows, sizes, level, what.classes)
    baseline_folds = fold_results(baseline_rows, sizes, level, what.classes)
    units = reduce(rows, level)
    repeated = overlapping(rows)

    primary = over_folds(folds, what.classes)
    baseline_figures = over_folds(baseline_folds, what.classes)
    versus_baseline = difference(folds, baseline_folds, what.classes)
    pooled = None if repeated else _resampled(units, what.classes, resamples, seed, models="these fitted models")
    metrics: dict[str, Any] = {
        "format": FORMAT,
        "task": what.to_json(),
        "level": level,
        "counts": _counts(rows, units, what.classes),
        "primary": _json(primary),
        "baseline": {"name": mean_sd_baseline.NAME, **_json(baseline_figures)},
        "versus_baseline": _json(versus_baseline),
        "pooled": None if pooled is None else _json(pooled),
        "folds": [_fold_json(fold, level, what.classes) for fold in folds],
        "fold_summary": {name: mean_sd([fold.figures[name] for fold in folds]) for name in METRICS},
    }
    if external is not None:
        metrics["external"] = _external(external, baseline_external, what, level, resamples, seed)
    if len(rows):
        doubts = caveats(
            folds=folds,
            units=units,
            classes=what.classes,
            level=level,
            primary=primary,
            pooled=pooled,
            baseline=baseline_figures,
            versus_baseline=versus_baseline,
            repeated=repeated,
            unlabelled=unlabelled,
        )
    elif external is not None:
        # Another cohort alone: its figures are under "external", and the curves are its.
        rows, units = external, reduce(external, level)
        repeated = overlapping(external)
        doubts = about_the_data(units, what.classes, level, [], unlabelled)
    else:
        doubts = ["There is no prediction to evaluate: every figure is null."]
    metrics["warnings"] = [*warnings, *doubts]
    curves = _curves(units, folds, what, level, repeated=bool(repeated))
    curves["set"] = "external" if rows is external else "test"
    curves["sites"] = _sites(rows, units, sites, what.classes, level, resamples, seed)
    return Evaluation(finite(metrics), finite(curves))


def _read(frame: pd.DataFrame, task: Task, *, where: str) -> tuple[Rows, Rows | None, int]:
    """Out-of-fold rows, external rows where there are any, and how many rows had no label."""
    if "set" not in frame.columns:
        raise TableError(f"{where}: no column 'set'; it says test or external.")
    is_external = frame["set"].astype(str) == "external"
    rows, unlabelled = read_rows(frame[~is_external], task, where=where)
    external, also_unlabelled = read_rows(frame[is_external], task, where=where)
    return rows, external if len(external) else None, unlabelled + also_unlabelled


def _resampled(units: Units, classes: Sequence[str], resamples: int, seed: int, *, models: str) -> dict[str, Interval]:
    how = f"{models}, test patients resampled, {resamples}, 95%"
    return {
        name: patient_bootstrap(name, units.y, units.p, units.patient, resamples, seed, how=how) for name in METRICS
    }


def _curves(
    units: Units, folds: Sequence[FoldResult], task: Task, level: UnitLevel, *, repeated: bool
) -> dict[str, Any]:
    return {
        "format": CURVES_FORMAT,
        "task": task.to_json(),
        "level": level,
        "note": f"a {level} tested in several folds counts once, with its mean probability" if repeated else None,
        "discrimination": discrimination(units, task.classes),
        "folds": [
            {
                "fold": fold.size.fold,
                "repeat": fold.size.repeat,
                "discrimination": discrimination(fold.units, task.classes),
            }
            for fold in folds
        ],
        "confusion": confusion(units, task.classes),
        "reliability": reliability(units, task.classes),
    }


def _external(
    rows: Rows, baseline: Rows | None, task: Task, level: UnitLevel, resamples: int, seed: int
) -> dict[str, Any]:
    """Figures on patients of another cohort: every fold's model predicts each, and their mean counts."""
    models = f"mean of {len(rows.folds())} fitted models"
    units = reduce(rows, level)
    result = {
        "counts": _counts(rows, units, task.classes),
        **_json(_resampled(units, task.classes, resamples, seed, models=models)),
    }
    if baseline is not None:
        figures = _resampled(reduce(baseline, level), task.classes, resamples, seed, models=models)
        result["baseline"] = {"name": mean_sd_baseline.NAME, **_json(figures)}
    return result


def _sites(
    rows: Rows,
    units: Units,
    sites: pd.Series | None,
    classes: Sequence[str],
    level: UnitLevel,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    if sites is None:
        return []
    site_of_slide = {str(slide): str(site) for slide, site in sites.dropna().items()}
    named: dict[str, set[str]] = {}
    for slide, patient in zip(rows.slide, rows.patient):
        if slide in site_of_slide:
            named.setdefault(patient if level == "patient" else slide, set()).add(site_of_slide[slide])
    joined = {unit: " + ".join(sorted(names)) for unit, names in named.items()}
    return site_table(units, joined, classes, level=level, resamples=resamples, seed=seed)


def _counts(rows: Rows, units: Units, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "patients": len(set(rows.patient)),
        "slides": len(set(rows.slide)),
        "classes": units.counts(classes),
    }


def _fold_json(fold: FoldResult, level: UnitLevel, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "fold": fold.size.fold,
        "repeat": fold.size.repeat,
        "patients": len(set(fold.units.patient)),
        f"train_{level}s": fold.size.train,
        "classes": fold.units.counts(classes),
        **fold.figures,
    }


def _json(figures: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: interval.to_json() for name, interval in figures.items()}
