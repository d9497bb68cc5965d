"""What a run says of new patients: one row each, from the models of all its folds, with what was learnt beside them.

The mean of the models and how far they are apart; the decision at the kept operating point and how many models decide
otherwise; a prediction set; whether the slides are unlike the training slides; and the models with covariates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from coverslip.base.files import finite
from coverslip.cohort import Cohort, Targets
from coverslip.eval.compare import compare_scores
from coverslip.eval.conformal import cv_plus_interval, cv_plus_sets
from coverslip.eval.evaluate import evaluate
from coverslip.eval.learnt import CALIBRATED, Learnt, contrasts, states_probabilities, with_calibrated
from coverslip.eval.metrics import decisions
from coverslip.eval.operating_point import OperatingPoint
from coverslip.eval.proportion import proportion
from coverslip.eval.reduce import UnitLevel, overlapping, read_rows, reduce
from coverslip.eval.truth import Task
from coverslip.recipes.clinical import ClinicalModels, clinical_table, truth_of
from coverslip.recipes.likeness import read_likeness, slide_means
from coverslip.recipes.nested import read_nested, unit_means
from coverslip.store import Features, Run

FORMAT = "coverslip.answers/1"
SEPARATOR = "; "
_CURVES = ("s_", "cif_")


@dataclass(frozen=True)
class Answers:
    """`table` is answers.csv, `predictions` the table a model and slide with the calibrated columns, `metrics` is
    answers.json, which metrics.json repeats where labels are known."""

    table: pd.DataFrame
    predictions: pd.DataFrame
    metrics: dict[str, Any]


@dataclass(frozen=True)
class _Models:
    """The models of a run on new units: `p` (f, m, k) in the order of `folders` and `units`."""

    task: Task
    level: UnitLevel
    folders: list[Path]
    units: list[str]
    p: Float[ndarray, "f m k"]
    learnt: list[Learnt | None]
    clinical: list[ClinicalModels | None]

    @property
    def mean(self) -> Float[ndarray, "m k"]:
        return self.p.mean(axis=0)


def answers(
    run: Run, cohort: Cohort, predictions: pd.DataFrame, features: Mapping[str, Features], targets: Targets | None
) -> Answers:
    """The answers of a run on a new cohort. `predictions` has a row a slide and model, numbered as `run.models()`;
    `features` are the slides' rows; `targets` what is known of them, where anything is."""
    task, level = Task.of(run.metrics["task"]), run.metrics["level"]
    models = _models(run, task, level, predictions)
    held = predictions.drop_duplicates("slide").groupby(predictions[level].astype(str))["slide"].agg(list)
    table = pd.DataFrame(index=pd.Index(models.units, name=level))
    if level == "slide":
        table["patient"] = predictions.drop_duplicates("slide").set_index("slide")["patient"].reindex(models.units)
    table["slides"] = [len(held[unit]) for unit in models.units]
    known, y = _known(targets, predictions, level)
    truth = [models.units.index(unit) for unit in known]
    metrics: dict[str, Any] = {"format": FORMAT, "models": len(models.folders)}
    settings = run.settings.evaluation
    for part in (
        _spread(models),
        _decisions(models, settings.operating_point, truth, y),
        _sets(models, run, settings.alpha, truth, y),
        _likeness(models, run, features, held),
        _clinical(models, run, cohort, predictions, targets),
    ):
        columns, told = part
        table = table.assign(**columns)
        metrics |= told
    with_them = [
        with_calibrated(predictions[predictions["fold"] == place], learnt, task)
        for place, learnt in enumerate(models.learnt)
        if learnt is not None
    ]
    complete = len(with_them) == len(models.learnt)
    predictions = pd.concat(with_them, ignore_index=True) if complete else predictions
    return Answers(table.reset_index(), predictions, finite(metrics))


def _models(run: Run, task: Task, level: UnitLevel, predictions: pd.DataFrame) -> _Models:
    folders = run.models()
    said = [unit_means(predictions[predictions["fold"] == place], task, level) for place in range(len(folders))]
    units = said[0].index.tolist()
    p = np.stack([one.loc[units].to_numpy(np.float64) for one in said])
    learnt, clinical = zip(*(read_nested(folder, task) for folder in folders))
    return _Models(task, level, folders, units, p, list(learnt), list(clinical))


def _known(
    targets: Targets | None, predictions: pd.DataFrame, level: UnitLevel
) -> tuple[list[str], Shaped[ndarray, "n ..."]]:
    """The units whose outcome is known, and the outcomes."""
    if targets is None:
        return [], np.zeros(0)
    return truth_of(targets, sorted(set(predictions["slide"]) & set(targets.slides)), level)


def _spread(models: _Models) -> tuple[dict[str, Any], dict[str, Any]]:
    """The mean of the models, corrected where that was learnt, and the standard deviation over them."""
    names = models.task.reader.predictions(models.task)
    columns: dict[str, Any] = {name: models.mean[:, k] for k, name in enumerate(names)}
    if states_probabilities(models.task) and all(models.learnt):
        corrected = np.mean([one.corrected(p, models.task) for one, p in zip(models.learnt, models.p) if one], axis=0)
        columns |= {CALIBRATED + name.removeprefix("p_"): corrected[:, k] for k, name in enumerate(names)}
    if len(models.p) > 1:
        sd = models.p.std(axis=0, ddof=1)
        columns |= {f"sd_{name}": sd[:, k] for k, name in enumerate(names) if not name.startswith(_CURVES)}
    return columns, {}


def _decisions(
    models: _Models, rule: str, truth: list[int], y: Shaped[ndarray, "n ..."]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is decided, the share of models that decide otherwise, and what each kept threshold does where the truth is
    known. The mean of the models' scores is held against the mean of their thresholds."""
    task = models.task
    if not states_probabilities(task):
        return {}, {"operating_points": {"points": [], "reason": "the task states no probabilities"}}
    points = _points(models)
    what = [of for of, _, _ in contrasts(task, *_nothing(task))]
    if not what or any(rule not in points.get(of, {}) for of in what):
        reason = "more than two classes: the likeliest decides" if not what else "none was learnt: .5 decides"
        called = decisions(models.mean) if task.kind != "multilabel" else models.mean >= 0.5
        each = np.stack([decisions(p) if task.kind != "multilabel" else p >= 0.5 for p in models.p])
        points = {}
    else:
        reason = None
        at = {of: models.mean[:, _column(task, of)] >= points[of][rule].threshold for of in what}
        called = _joined(task, at)
        own = [one.points for one in models.learnt if one is not None]
        each = np.stack(
            [
                _joined(task, {of: p[:, _column(task, of)] >= mine[of][rule].threshold for of in what})
                for p, mine in zip(models.p, own)
            ]
        )
    differs = each != called
    disagreement = (differs if differs.ndim == 2 else differs.any(axis=2)).mean(axis=0)
    if task.kind == "multilabel":
        named = [SEPARATOR.join(name for name, there in zip(task.classes, row) if there) for row in called]
    else:
        named = [task.classes[int(k)] for k in called]
    measured = []
    for of, positive, score in contrasts(task, y, models.mean[truth]) if truth else []:
        for point in points.get(of, {}).values():
            rates = {name: rate.to_json() for name, rate in point.measured(positive, score).items()}
            measured.append({"of": of, "rule": point.rule, "aim": point.aim, "threshold": point.threshold, **rates})
    told = {"decides": rule, "points": measured, "reason": reason}
    return {"decision": named, "disagreement": disagreement}, {"operating_points": told}


def _points(models: _Models) -> dict[str, dict[str, OperatingPoint]]:
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


def _column(task: Task, of: str) -> int:
    return task.classes.index(of)


def _joined(task: Task, called: Mapping[str, Bool[ndarray, m]]) -> ndarray:
    """The class of each unit, or its labels (m, t)."""
    columns = np.stack(list(called.values()), axis=1)
    return columns if task.kind == "multilabel" else columns[:, 0].astype(np.int64)


def _nothing(task: Task) -> tuple[ndarray, ndarray]:
    """No units at all, in the shapes of the task."""
    width = len(task.classes)
    return np.zeros((0, width)) if task.kind == "multilabel" else np.zeros(0), np.zeros((0, width))


def _sets(
    models: _Models, run: Run, alpha: float, truth: list[int], y: Shaped[ndarray, "n ..."]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """CV+ sets of classes or levels, or ranges of numbers, calibrated on the run's out-of-fold predictions: their
    patients trained and stopped none of the models that made them."""
    task = models.task
    rows = _calibration(models, run)
    if isinstance(rows, str):
        return {}, {"sets": {"coverage": None, "reason": rows}}
    true, p, model = rows
    promise = f"CV+: at least {1 - 2 * alpha:.0%} on average over patients like the run's, about {1 - alpha:.0%}"
    told: dict[str, Any] = {"aim": 1 - alpha, "promise": promise, "calibration": len(true)}
    if task.kind == "regression":
        low, high = cv_plus_interval(np.abs(true - p[:, 0]), model, models.p[:, :, 0], alpha)
        hits = (y >= low[truth]) & (y <= high[truth])
        told |= {"coverage": proportion(int(hits.sum()), len(truth)).to_json(), "reason": None}
        return {"low": low, "high": high}, {"sets": told}
    inside = cv_plus_sets(true, p, model, models.p, alpha)
    named = [SEPARATOR.join(name for name, there in zip(task.classes, row) if there) for row in inside]
    hits = inside[truth, y.astype(np.int64)] if truth else np.zeros(0, dtype=bool)
    counts = {name: int((true == k).sum()) for k, name in enumerate(task.classes)}
    told |= {
        "counts": counts,
        "always": [name for name, n in counts.items() if n < 1 / alpha - 1 - 1e-9],
        "coverage": proportion(int(hits.sum()), len(truth)).to_json(),
        "classes": {
            name: proportion(int(hits[y == k].sum()), int((y == k).sum())).to_json() if truth else None
            for k, name in enumerate(task.classes)
        },
        "one_class": float((inside.sum(axis=1) == 1).mean()),
        "every_class": float(inside.all(axis=1).mean()),
        "reason": None,
    }
    return {"prediction_set": named}, {"sets": told}


def _calibration(models: _Models, run: Run) -> tuple[Shaped[ndarray, n], Float[ndarray, "n k"], Int[ndarray, n]] | str:
    """Truth, out-of-fold prediction and model of each unit that the run has tested; or why they cannot calibrate."""
    task = models.task
    if task.kind not in ("classification", "ordinal", "regression"):
        return "sets are of classes, levels and numbers"
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


def _likeness(
    models: _Models, run: Run, features: Mapping[str, Features], held: pd.Series
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Whether any slide of a unit is unlike the training slides, and how usual the furthest one is among them."""
    found = read_likeness(run.files)
    if found is None:
        return {}, {"unlike": {"reason": (run.metrics.get("likeness") or {}).get("reason") or "the run kept none"}}
    names = [slide for slides in held for slide in slides]
    means = slide_means({slide: features[slide] for slide in names})
    usual, flags = dict(zip(names, found.p_values(means))), found.flagged(means)
    columns: dict[str, Any] = {"unlike_p": [min(usual[slide] for slide in held[unit]) for unit in models.units]}
    told: dict[str, Any] = {"false_alarms": found.false_alarms.to_json(), "aim": found.alpha, "reason": None}
    if flags is None:
        return columns, {"unlike": {**told, "reason": "too few training patients to set a limit"}}
    flagged = dict(zip(names, flags))
    columns["unlike"] = [any(flagged[slide] for slide in held[unit]) for unit in models.units]
    return columns, {"unlike": {**told, "flagged": int(sum(columns["unlike"])), "of": len(models.units)}}


def _clinical(
    models: _Models, run: Run, cohort: Cohort, predictions: pd.DataFrame, targets: Targets | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the models of covariates, alone and with tissue, say where the table has them; figures where truth is
    known."""
    names = run.settings.cohort.covariates
    kept = [one for one in models.clinical if one is not None]
    if not names or len(kept) < len(models.folders):
        return {}, {"covariates": None}
    if lacking := [name for name in names if name not in cohort.frame]:
        return {}, {"covariates": {"reason": f"the table has no column {', '.join(map(repr, lacking))}"}}
    task, level = models.task, models.level
    columns = task.reader.predictions(task)
    table = clinical_table(cohort, names, predictions["slide"].tolist(), level).loc[models.units]
    said: dict[str, list[ndarray]] = {"covariates": [], "tissue_covariates": []}
    strange: dict[str, int] = {}
    for one, p in zip(kept, models.p):
        alone, together, unseen = one.predict(table, p)
        strange = {name: max(n, strange.get(name, 0)) for name, n in unseen.items()} | strange
        said["covariates"].append(alone)
        if together is not None:
            said["tissue_covariates"].append(together)
    shown: dict[str, Any] = {}
    told: dict[str, Any] = {"names": list(names), "unseen": strange, "reason": None}
    whole = {name: np.mean(values, axis=0) for name, values in said.items() if len(values) == len(kept)}
    for name, values in whole.items():
        shown |= {f"{name}_{c}": values[:, k] for k, c in enumerate(columns) if not c.startswith(_CURVES)}
        if targets is not None:
            told[name] = _figures(models, run, said[name], predictions, targets)
    if targets is not None and task.kind == "classification" and len(task.classes) == 2 and len(whole) == 2:
        units, y = _known(targets, predictions, level)
        at = [models.units.index(unit) for unit in units]
        scores = {name: values[at, 1] for name, values in whole.items()}
        told["adds"] = compare_scores("covariates", scores, y == 1).to_json()
    return shown, {"covariates": told}


def _figures(
    models: _Models, run: Run, values: list[ndarray], predictions: pd.DataFrame, targets: Targets
) -> dict[str, Any]:
    """Figures of the folds' models together on the new patients, as metrics.json has them under "external"."""
    columns = models.task.reader.predictions(models.task)
    known = predictions[predictions["slide"].isin(targets.slides)]
    tables = []
    for place, said in enumerate(values):
        mine = known[known["fold"] == place]
        rows = pd.DataFrame(said, index=models.units).loc[mine[models.level].astype(str).tolist()].to_numpy()
        tables.append(mine.assign(**{c: rows[:, k] for k, c in enumerate(columns)}))
    settings = run.settings.evaluation
    found = evaluate(
        pd.concat(tables, ignore_index=True),
        None,
        task=models.task.to_json(),
        level=models.level,
        split=[],
        resamples=settings.resamples,
        seed=settings.seed,
    )
    external: dict[str, Any] = found.metrics["external"]
    return external
