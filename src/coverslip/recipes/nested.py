"""What is learnt inside each fold beside its model, before any test patient is read: corrections of probabilities,
operating points, models of covariates. Kept with the fold's model, measured on its test patients, used by `predict`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coverslip.base.files import read_json, write_json
from coverslip.cohort import Fold, learnt_times
from coverslip.eval import FoldSize
from coverslip.eval.covariates import added_value
from coverslip.eval.folds import fold_results
from coverslip.eval.learnt import (
    Learnt,
    before_and_after,
    contrasts,
    learn,
    measured_over_folds,
    states_probabilities,
    with_calibrated,
)
from coverslip.eval.reduce import UnitLevel, read_rows, reduce
from coverslip.eval.truth import Task
from coverslip.recipes.clinical import NAME, ClinicalModels, clinical_table, fit_clinical, truth_of
from coverslip.recipes.engine import Engine
from coverslip.recipes.inner import Inner, inner_predictions
from coverslip.recipes.job import LOG, Job
from coverslip.recipes.training_data import TrainingData

CORRECTIONS, POINTS = "recalibration.json", "operating_points.json"


@dataclass(frozen=True)
class Nested:
    """What every fold learnt, by its name; `reasons` says why a fold has no inner predictions."""

    task: Task
    level: UnitLevel
    learnt: Mapping[str, Learnt]
    clinical: Mapping[str, ClinicalModels]
    reasons: Mapping[str, str]


def learn_inside(job: Job, data: TrainingData, engine: Engine) -> Nested:
    """Trains the inner models, learns from their predictions, and writes what was learnt beside each fold's model. No
    test patient of an outer fold is read."""
    task, level = Task.of(data.targets.description), data.unit
    settings, names = job.study.evaluation, job.study.cohort.covariates
    inner = inner_predictions(job, data, engine)
    learnt: dict[str, Learnt] = {}
    clinical: dict[str, ClinicalModels] = {}
    for fold in data.split.folds:
        folder, mine = job.run.model(fold.name), inner[fold.name]
        for name in (CORRECTIONS, POINTS, NAME):
            (folder / name).unlink(missing_ok=True)
        if states_probabilities(task) and settings.inner_folds:
            learnt[fold.name] = _learnt(task, level, mine, settings.recalibration, settings.aim)
            write_json(folder / CORRECTIONS, learnt[fold.name].corrections_json())
            write_json(folder / POINTS, learnt[fold.name].points_json())
        if names:
            slides = (*fold.train, *fold.tune)
            own = replace(task, grid=learnt_times(job.study.task, data.targets, slides))
            units, y = truth_of(data.targets, slides, level)
            table = clinical_table(job.cohort, names, slides, level).loc[units]
            means = None if mine.table is None else unit_means(mine.table, own, level)
            clinical[fold.name] = fit_clinical(own, names, table, y, means, mine.reason)
            write_json(folder / NAME, clinical[fold.name].to_json())
    return Nested(task, level, learnt, clinical, {name: one.reason for name, one in inner.items() if one.reason})


def read_nested(folder: Path, task: Task) -> tuple[Learnt | None, ClinicalModels | None]:
    """What the folder of one fold's model holds beside it.

    Raises:
        TableError: it is of a format that is not known.
    """
    learnt = clinical = None
    if (folder / CORRECTIONS).is_file() and (folder / POINTS).is_file():
        learnt = Learnt.from_json(read_json(folder / CORRECTIONS), read_json(folder / POINTS))
    if (folder / NAME).is_file():
        clinical = ClinicalModels.from_json(task, read_json(folder / NAME))
    return learnt, clinical


def unit_means(frame: pd.DataFrame, task: Task, level: UnitLevel) -> pd.DataFrame:
    """Mean predictions of each unit, by its name."""
    return frame.groupby(frame[level].astype(str))[task.reader.predictions(task)].mean()


def calibrated(nested: Nested, predictions: pd.DataFrame, folds: Sequence[Fold]) -> pd.DataFrame:
    """The out-of-fold predictions with columns calibrated_<class>, each fold by its own correction; as they are where
    nothing was learnt."""
    if not nested.learnt:
        return predictions
    parts = []
    for fold in folds:
        mine = predictions[(predictions["fold"] == fold.index) & (predictions["repeat"] == fold.repeat)]
        parts.append(with_calibrated(mine, nested.learnt[fold.name], nested.task))
    return pd.concat(parts, ignore_index=True)


def told(
    nested: Nested, job: Job, data: TrainingData, predictions: pd.DataFrame, sizes: Sequence[FoldSize]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What metrics.json and evaluation.json say of it: operating points and covariates; recalibration."""
    folds, settings = data.split.folds, job.study.evaluation
    metrics: dict[str, Any] = {
        "inner": {"folds": settings.inner_folds, "without": dict(nested.reasons)},
        "operating_points": _points(nested, folds, predictions, sizes, settings.operating_point),
        "covariates": None,
    }
    curves: dict[str, Any] = {"recalibration": None}
    if nested.learnt:
        curves["recalibration"] = {
            "asked": settings.recalibration,
            "folds": [_method(fold, nested.learnt[fold.name]) for fold in folds],
            **before_and_after(predictions, nested.task, nested.level, seed=settings.seed),
        }
    if nested.clinical:
        metrics["covariates"] = _added(nested, job, data, predictions, sizes)
        LOG.info("%s", metrics["covariates"]["sentence"])
    return metrics, curves


def _learnt(task: Task, level: UnitLevel, inner: Inner, method: str, aim: float) -> Learnt:
    if inner.table is None:
        none = np.zeros((0, len(task.reader.predictions(task))))
        y = np.zeros((0, len(task.classes))) if task.kind == "multilabel" else np.zeros(0, dtype=np.int64)
        return learn(task, y, none, method=method, aim=aim, reason=inner.reason)
    units = reduce(read_rows(inner.table, task, where="Inner predictions")[0], level)
    return learn(task, units.y, units.p, method=method, aim=aim)


def _method(fold: Fold, learnt: Learnt) -> dict[str, Any]:
    return {
        "fold": fold.index,
        "repeat": fold.repeat,
        "of": {name: {"method": c.method, "n": c.n, "reason": c.reason} for name, c in learnt.corrections.items()},
    }


def _points(
    nested: Nested, folds: Sequence[Fold], predictions: pd.DataFrame, sizes: Sequence[FoldSize], decides: str
) -> dict[str, Any]:
    if not nested.learnt:
        states = states_probabilities(nested.task)
        return {
            "points": [],
            "reason": "no inner folds"
            if states
            else "only probabilities of classes, levels and labels are corrected and get thresholds",
        }
    results = fold_results(
        read_rows(predictions, nested.task, where="Predictions")[0],
        {(size.repeat, size.fold): size for size in sizes},
        nested.level,
        nested.task,
    )
    name_of = {(fold.repeat, fold.index): fold.name for fold in folds}
    points = [nested.learnt[name_of[result.size.repeat, result.size.fold]].points for result in results]
    found = measured_over_folds(
        [result.units for result in results], points, [result.size for result in results], nested.task
    )
    reason = None
    if not found:
        several = not any(contrasts(nested.task, result.units.y, result.units.p) for result in results)
        why = "more than two classes: the likeliest decides" if several else "inner predictions of one class alone"
        reason = why if several else next(iter(nested.reasons.values()), why)
    return {"decides": decides, "points": found, "reason": reason}


def _added(
    nested: Nested, job: Job, data: TrainingData, predictions: pd.DataFrame, sizes: Sequence[FoldSize]
) -> dict[str, Any]:
    """The tables of covariates alone and of tissue + covariates, one row a test slide, and what they say together."""
    names, level, task = job.study.cohort.covariates, nested.level, nested.task
    columns = task.reader.predictions(task)
    alone: list[pd.DataFrame] = []
    both: list[pd.DataFrame] = []
    strange: dict[str, int] = {}
    for fold in data.split.folds:
        mine = predictions[(predictions["fold"] == fold.index) & (predictions["repeat"] == fold.repeat)]
        units = clinical_table(job.cohort, names, fold.test, level)
        tissue = unit_means(mine, task, level).loc[units.index].to_numpy(np.float64)
        without, together, unseen = nested.clinical[fold.name].predict(units, tissue)
        for name, times in unseen.items():
            strange[name] = strange.get(name, 0) + times
        for values, made in ((without, alone), (together, both)):
            if values is not None:
                said = pd.DataFrame(values, index=units.index, columns=columns)
                held = said.loc[mine[level].astype(str).tolist()].to_numpy()
                made.append(mine.assign(**{c: held[:, k] for k, c in enumerate(columns)}))
    found = added_value(
        predictions,
        pd.concat(alone, ignore_index=True),
        pd.concat(both, ignore_index=True) if both else None,
        names=names,
        task=task,
        level=level,
        sizes=sizes,
        reason=next((one.reason for one in nested.clinical.values() if one.reason), ""),
    )
    return {**found, "unseen": strange}
