"""What is decided of new patients, at thresholds kept with the models, and sets of what cannot be ruled out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from coverslip.eval.conformal import cv_plus_interval, cv_plus_sets
from coverslip.eval.learnt import contrasts, states_probabilities
from coverslip.eval.levels import median_level
from coverslip.eval.metrics import decisions
from coverslip.eval.operating_point import OperatingPoint
from coverslip.eval.proportion import share_of
from coverslip.eval.reduce import overlapping, read_rows, reduce
from coverslip.eval.truth import Task
from coverslip.recipes.run_models import RunModels
from coverslip.store import Run

SEPARATOR = "; "


def decided(
    models: RunModels, rule: str, truth: list[int], y: Shaped[ndarray, "n ..."]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is decided, the share of models that decide otherwise, and the kept thresholds with what each does where the
    truth is known. The mean of the models' scores is held against the mean of their thresholds."""
    task = models.task
    if not states_probabilities(task):
        return {}, {"operating_points": {"points": [], "reason": "only classes and labels have thresholds"}}
    points = _points(models)
    what = [of for of, _, _ in contrasts(task, *_nothing(task))]
    reason = None
    if not what:
        several = "the median level decides" if task.kind == "ordinal" else "the likeliest decides"
        reason = f"more than two classes: {several}"
    elif any(rule not in points.get(of, {}) for of in what):
        reason = "none was learnt: .5 decides"
    if reason is not None:
        called, each, points = _without_points(task, models.mean), [_without_points(task, p) for p in models.p], {}
    else:
        at = {of: points[of][rule].threshold for of in what}
        called = _at_points(task, models.mean, at)
        own = [one.points for one in models.learnt if one is not None]
        each = [_at_points(task, p, {of: at[of][rule].threshold for of in what}) for p, at in zip(models.p, own)]
    differs = np.stack(each) != called
    disagreement = (differs if differs.ndim == 2 else differs.any(axis=2)).mean(axis=0)
    if task.kind == "multilabel":
        named = [SEPARATOR.join(name for name, there in zip(task.classes, row) if there) for row in called]
    else:
        named = [task.classes[int(k)] for k in called]
    measured, who = [], models.patients[truth]
    for of, positive, score in contrasts(task, y, models.mean[truth]) if truth else contrasts(task, *_nothing(task)):
        known = who if y.ndim < 2 or not truth else who[~np.isnan(y[:, task.classes.index(of)])]
        for point in points.get(of, {}).values():
            rates = {name: rate.to_json() for name, rate in point.measured(positive, score, known).items()}
            measured.append({"of": of, "rule": point.rule, "aim": point.aim, "threshold": point.threshold, **rates})
    told = {"decides": rule, "points": measured, "reason": reason}
    return {"decision": named, "disagreement": disagreement}, {"operating_points": told}


def _points(models: RunModels) -> dict[str, dict[str, OperatingPoint]]:
    """Of each class or label and rule, the mean of the models' thresholds; none where a model has none."""
    found: dict[str, dict[str, OperatingPoint]] = {}
    if not all(models.learnt):
        return {}
    kept = [one.points for one in models.learnt if one is not None]
    for of, rules in kept[0].items():
        for rule, point in rules.items():
            theirs = [other[of][rule].threshold for other in kept if rule in other.get(of, {})]
            if len(theirs) == len(kept):
                found.setdefault(of, {})[rule] = replace(point, threshold=float(np.mean(theirs)))
    return found


def _at_points(task: Task, p: Float[ndarray, "m k"], at: Mapping[str, float]) -> ndarray:
    """The class of each unit, or its labels (m, t), where scores from `at` upwards are called positive."""
    columns = np.stack([p[:, task.classes.index(of)] >= threshold for of, threshold in at.items()], axis=1)
    return columns if task.kind == "multilabel" else columns[:, 0].astype(np.int64)


def _without_points(task: Task, p: Float[ndarray, "m k"]) -> ndarray:
    """The class of each unit, or its labels (m, t), as the run's own figures decide."""
    if task.kind == "multilabel":
        return p >= 0.5
    return median_level(p) if task.kind == "ordinal" else decisions(p)


def _nothing(task: Task) -> tuple[ndarray, ndarray]:
    """No units at all, in the shapes of the task."""
    width = len(task.classes)
    return np.zeros((0, width)) if task.kind == "multilabel" else np.zeros(0), np.zeros((0, width))


def prediction_sets(
    models: RunModels, run: Run, alpha: float, truth: list[int], y: Shaped[ndarray, "n ..."]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """CV+ sets of classes, levels (without gaps) or of each label, or ranges of numbers, calibrated on the run's
    out-of-fold predictions: their patients trained and stopped none of the models that made them."""
    task = models.task
    rows = _calibration(models, run)
    if isinstance(rows, str):
        return {}, {"sets": {"coverage": None, "reason": rows}}
    true, p, model = rows
    who, everyone = models.patients[truth], np.ones(len(truth), dtype=bool)
    promise = f"CV+: at least {1 - 2 * alpha:.0%} on average over patients like the run's, about {1 - alpha:.0%}"
    told: dict[str, Any] = {"aim": 1 - alpha, "promise": promise, "calibration": len(true)}
    if task.kind == "regression":
        low, high = cv_plus_interval(np.abs(true - p[:, 0]), model, models.p[:, :, 0], alpha)
        hits = (y >= low[truth]) & (y <= high[truth])
        told |= {"coverage": share_of(hits, everyone, who).to_json(), "reason": None}
        return {"low": low, "high": high}, {"sets": told}
    if task.kind == "multilabel":
        columns, by_label = _label_sets(models, rows, alpha, truth, y)
        told |= {"promise": f"{promise}; each label by itself", "coverage": None, "labels": by_label, "reason": None}
        return columns, {"sets": told}
    inside = cv_plus_sets(true, p, model, models.p, alpha, ordered=task.kind == "ordinal")
    told |= {**_about_sets(inside, true, task.classes, alpha, truth, y, models.patients), "reason": None}
    return {"prediction_set": _named(inside, task.classes)}, {"sets": told}


def _label_sets(
    models: RunModels,
    rows: tuple[Shaped[ndarray, "n ..."], Float[ndarray, "n k"], Int[ndarray, n]],
    alpha: float,
    truth: list[int],
    y: Shaped[ndarray, "n ..."],
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """A set of 0 and 1 for each label, calibrated on those of the run who know it: a column and what is said of it."""
    true, p, model = rows
    columns, told = {}, {}
    for t, label in enumerate(models.task.classes):
        known = ~np.isnan(true[:, t])
        on = true[known, t].astype(np.int64)
        inside = cv_plus_sets(on, _two(p[known, t]), model[known], _two(models.p[:, :, t]), alpha)
        here = np.flatnonzero(~np.isnan(y[:, t])) if truth else np.zeros(0, dtype=np.int64)
        at, shown = [truth[place] for place in here], y[here, t] if truth else y
        columns[f"prediction_set_{label}"] = _named(inside, ("0", "1"))
        about = _about_sets(inside, on, ("0", "1"), alpha, at, shown, models.patients)
        told[label] = {"calibration": len(on), **about}
    return columns, told


def _two(p: Float[ndarray, "*n"]) -> Float[ndarray, "*n 2"]:
    """The probabilities that a label is not there, and that it is."""
    return np.stack([1 - p, p], axis=-1)


def _named(inside: Bool[ndarray, "m k"], classes: Sequence[str]) -> list[str]:
    return [SEPARATOR.join(name for name, there in zip(classes, row) if there) for row in inside]


def _about_sets(
    inside: Bool[ndarray, "m k"],
    calibrated_on: Shaped[ndarray, c],
    classes: Sequence[str],
    alpha: float,
    truth: list[int],
    y: Shaped[ndarray, n],
    patients: ndarray,
) -> dict[str, Any]:
    """On whom sets were calibrated, how much they say, and how often they hold the truth `y` of the units `truth`."""
    counts = {name: int((calibrated_on == k).sum()) for k, name in enumerate(classes)}
    hits = inside[truth, y.astype(np.int64)] if truth else np.zeros(0, dtype=bool)
    who, everyone = patients[truth], np.ones(len(truth), dtype=bool)
    return {
        "counts": counts,
        "always": [name for name, n in counts.items() if n < 1 / alpha - 1 - 1e-9],
        "coverage": share_of(hits, everyone, who).to_json(),
        "classes": {name: share_of(hits, y == k, who).to_json() if truth else None for k, name in enumerate(classes)},
        "one_class": float((inside.sum(axis=1) == 1).mean()),
        "every_class": float(inside.all(axis=1).mean()),
    }


def _calibration(
    models: RunModels, run: Run
) -> tuple[Shaped[ndarray, n], Float[ndarray, "n k"], Int[ndarray, n]] | str:
    """Truth, out-of-fold prediction and model of each unit that the run has tested; or why they cannot calibrate."""
    task = models.task
    if task.kind not in ("classification", "ordinal", "multilabel", "regression"):
        return "no ranges of times: how often they hold cannot be known of patients who are censored"
    if run.split.leaks:
        return "the run's folds leak: its tested patients are not apart from those it has learnt from"
    frame = run.predictions
    frame = frame[(frame["set"] == "test") & ((frame["repeat"] == 0) if "repeat" in frame else True)]
    rows, _ = read_rows(frame, task, where="The run's predictions")
    if overlapping(rows):
        return "the run tested patients in several folds: no fold's predictions are apart from the others'"
    units = reduce(rows, models.level)
    if len(set(units.patient.tolist())) < len(units):
        return "several slides of a patient: calibration slides are not apart"
    place = {folder.name: number for number, folder in enumerate(models.folders)}
    name = {(fold.repeat, fold.index): fold.name for fold in run.split.folds}
    model_of = np.array([place[name[key]] for key in rows.folds()])
    assert units.stratum is not None
    return units.y, units.p, model_of[units.stratum]
