"""What a run says of new patients: one row each, from the models of all its folds, with what was learnt beside them.

The mean of the models and how far they are apart; the decision at the kept operating point and how many models decide
otherwise; a prediction set; whether the slides are unlike the training slides; and the models with covariates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from coverslip.base.files import finite
from coverslip.cohort import Cohort, Targets
from coverslip.eval.compare import compare_scores
from coverslip.eval.evaluate import evaluate
from coverslip.eval.learnt import CALIBRATED, states_probabilities, with_calibrated
from coverslip.eval.truth import Task
from coverslip.recipes.clinical import clinical_table
from coverslip.recipes.decided import decided, prediction_sets
from coverslip.recipes.likeness import read_likeness, slide_means
from coverslip.recipes.run_models import CURVES, RunModels, known_units, models_of
from coverslip.store import Features, Run

FORMAT = "coverslip.answers/1"


@dataclass(frozen=True)
class Answers:
    """`table` is answers.csv, `predictions` the table a model and slide with the calibrated columns, `metrics` is
    answers.json, which metrics.json repeats where labels are known."""

    table: pd.DataFrame
    predictions: pd.DataFrame
    metrics: dict[str, Any]


def answers(
    run: Run, cohort: Cohort, predictions: pd.DataFrame, features: Mapping[str, Features], targets: Targets | None
) -> Answers:
    """The answers of a run on a new cohort. `predictions` has a row a slide and model, numbered as `run.models()`;
    `features` are the slides' rows; `targets` what is known of them, where anything is."""
    task, level = Task.of(run.metrics["task"]), run.metrics["level"]
    models = models_of(run, task, level, predictions)
    held = predictions.drop_duplicates("slide").groupby(predictions[level].astype(str))["slide"].agg(list)
    table = pd.DataFrame(index=pd.Index(models.units, name=level))
    if level == "slide":
        table["patient"] = predictions.drop_duplicates("slide").set_index("slide")["patient"].reindex(models.units)
    table["slides"] = [len(held[unit]) for unit in models.units]
    known, y = known_units(targets, predictions, level)
    truth = [models.units.index(unit) for unit in known]
    metrics: dict[str, Any] = {
        "format": FORMAT,
        "level": level,
        "units": len(models.units),
        "models": len(models.folders),
    }
    settings = run.settings.evaluation
    for part in (
        _spread(models),
        decided(models, settings.operating_point, truth, y),
        prediction_sets(models, run, settings.alpha, truth, y),
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


def _spread(models: RunModels) -> tuple[dict[str, Any], dict[str, Any]]:
    """The mean of the models, corrected where that was learnt, and the standard deviation over them."""
    names = models.task.reader.predictions(models.task)
    columns: dict[str, Any] = {name: models.mean[:, k] for k, name in enumerate(names)}
    learnt = [one for one in models.learnt if one is not None]
    reason = None
    if not states_probabilities(models.task):
        reason = "only classes, levels and labels are recalibrated"
    elif len(learnt) < len(models.learnt):
        reason = "no inner folds"
    else:
        corrected = np.mean([one.corrected(p, models.task) for one, p in zip(learnt, models.p)], axis=0)
        columns |= {CALIBRATED + name.removeprefix("p_"): corrected[:, k] for k, name in enumerate(names)}
    if len(models.p) > 1:
        sd = models.p.std(axis=0, ddof=1)
        columns |= {f"sd_{name}": sd[:, k] for k, name in enumerate(names) if not name.startswith(CURVES)}
    methods = {of: [one.corrections[of].method for one in learnt] for of in learnt[0].corrections} if not reason else {}
    why = next((one.reason for one in learnt if one.reason), None)
    return columns, {"recalibration": {"methods": methods, "reason": reason or why}}


def _likeness(
    models: RunModels, run: Run, features: Mapping[str, Features], held: pd.Series
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
    models: RunModels, run: Run, cohort: Cohort, predictions: pd.DataFrame, targets: Targets | None
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
    shown_figures = list(run.metrics.get("shown") or ())
    told: dict[str, Any] = {"names": list(names), "shown": shown_figures, "unseen": strange, "reason": None}
    whole = {name: np.mean(values, axis=0) for name, values in said.items() if len(values) == len(kept)}
    for name, values in whole.items():
        shown |= {f"{name}_{c}": values[:, k] for k, c in enumerate(columns) if not c.startswith(CURVES)}
        if targets is not None:
            told[name] = _figures(models, run, said[name], predictions, targets)
    if targets is not None and task.kind == "classification" and len(task.classes) == 2 and len(whole) == 2:
        units, y = known_units(targets, predictions, level)
        at = [models.units.index(unit) for unit in units]
        scores = {name: values[at, 1] for name, values in whole.items()}
        told["adds"] = compare_scores("covariates", scores, y == 1).to_json()
    return shown, {"covariates": told}


def _figures(
    models: RunModels, run: Run, values: list[ndarray], predictions: pd.DataFrame, targets: Targets
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
