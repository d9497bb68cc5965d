"""What is asked of a result at its end: leaks, shortcuts, subgroups, and where the errors are. Written to audit.json.

Nothing here changes a figure. What cannot be asked (no sites, no covariates, too few) is said with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from coverslip.audit import (
    AuditFinding,
    Sketch,
    ask_sites,
    audit_split,
    contents_json,
    duplicate_pairs,
    feature_twins,
    looks_like_outcome,
    pretraining_overlap,
    sketch,
    slide_collapse,
)
from coverslip.base.errors import CoverslipError, SettingsError
from coverslip.base.files import finite, read_json, write_json
from coverslip.base.study import AuditSettings
from coverslip.cohort import Targets
from coverslip.encoders import EncoderInfo, describe
from coverslip.eval.concordance import Concordance
from coverslip.eval.fold_rows import FoldRows, fold_rows
from coverslip.eval.slices import attribute_slices, clusters, error_slices
from coverslip.eval.subgroups import subgroups
from coverslip.eval.truth import Task
from coverslip.recipes.audit_warnings import OUTCOME, warnings_of
from coverslip.recipes.contents import contents_of
from coverslip.recipes.job import LOG, Job
from coverslip.recipes.training_data import TrainingData

FORMAT = "coverslip.audit/1"
# Slides whose tiles are asked for their slide; more would cost and tell no more.
_COLLAPSE_SLIDES = 150
# Columns that are no covariates.
_OWN = frozenset({"slide", "patient", "path", "mpp", "split"})


def check_audit(job: Job) -> None:
    """Nothing, where the audits' settings can be followed; asked before anything is trained.

    Raises:
        SettingsError: `audit.columns` or `audit.cuts` names a column that is not there, or `audit.pretraining` a file.
    """
    settings, frame = job.study.audit, job.cohort.frame
    for key, names in (("columns", settings.columns or []), ("cuts", list(settings.cuts))):
        if missing := [name for name in names if name not in frame]:
            raise SettingsError(
                f"audit.{key}: the table has no column {missing[0]!r}.",
                fix=f"It has: {', '.join(map(str, frame.columns))}.",
            )
    listed(settings.pretraining)


def audit_run(job: Job, data: TrainingData, predictions: pd.DataFrame) -> dict[str, Any]:
    """What audit.json holds, after it is written."""
    settings = job.study.audit
    sketches = _sketches(job, data)
    # Kept whatever is audited now: a later cohort is compared with it.
    write_json(job.run.contents, contents_json(contents_of(data.features, sketches, read_json(job.run.check))))
    if not settings.enabled:
        job.run.audit.unlink(missing_ok=True)
        return {}
    means = {slide: one.mean for slide, one in sketches.items()}
    tested, slides = tested_rows(predictions, data.targets, data.unit)
    attributes = per_row(job.cohort.frame, covariate_columns(job, data.targets), slides)
    sites = attributes.get("site")
    embedding = mean_embedding(means, slides)
    seed = settings.seed
    audit: dict[str, Any] = {
        "format": FORMAT,
        "level": data.unit,
        "leaks": _leaks(job, data, means),
        "pretraining": _pretraining(job, data, predictions),
        "sites": ask_sites(tested, embedding, sites, seed=seed, resamples=settings.resamples),
        "collapse": collapse_of(sketches, job.cohort.frame, seed),
        **where_it_fails(settings, tested, predictions, data.targets, embedding, attributes),
    }
    audit["subgroups"]["skipped"] += outcome_columns(job, data.targets)
    audit["warnings"] = warnings_of(audit)
    write_json(job.run.audit, finite(audit))
    LOG.info("audited: %d warnings", len(audit["warnings"]))
    return audit


def where_it_fails(
    settings: AuditSettings,
    tested: FoldRows,
    predictions: pd.DataFrame,
    targets: Targets,
    embedding: Float[ndarray, "n d"],
    attributes: Mapping[str, list[Any]],
) -> dict[str, Any]:
    """The parts "subgroups" and "slices": whom the model serves worse, and where its errors gather."""
    seed = settings.seed
    return {
        "subgroups": subgroups(tested, attributes, cuts=settings.cuts, seed=seed),
        "slices": _slices(tested, predictions, targets, embedding, attributes, seed),
    }


def tested_rows(predictions: pd.DataFrame, targets: Targets, level: str) -> tuple[FoldRows, list[tuple[str, ...]]]:
    """The out-of-fold rows, one a unit and fold, with what they are ranked by; and the slides behind each."""
    frame = predictions[predictions["set"] == "test"]
    values = [c for c in frame.columns if c in ("value", "risk") or str(c).startswith(("p_", "risk_"))]
    unit = "patient" if level == "patient" else "slide"
    if "repeat" not in frame:
        frame = frame.assign(repeat=0)
    truth = targets.frame.drop(columns="patient").set_index("slide")
    known = frame["slide"].isin(truth.index)
    rows = frame[known].groupby(["repeat", "fold", unit], sort=True)
    made = rows[values].mean().reset_index()
    slides = [tuple(group) for group in rows["slide"].agg(lambda s: sorted(set(s)))]
    first = truth.loc[[held[0] for held in slides]]
    patient = np.array([targets.patient_of[held[0]] for held in slides], dtype=object)
    fold = np.unique(made[["repeat", "fold"]].to_numpy(), axis=0, return_inverse=True)[1].reshape(-1)
    task = Task.of(targets.description)
    ranked = [name for name in task.reader.predictions(task) if name in values]
    p = made[ranked].to_numpy(np.float64)
    return fold_rows(made[unit].to_numpy(dtype=object), patient, fold, _truth(first, targets), p, task), slides


def _truth(truth: pd.DataFrame, targets: Targets) -> ndarray:
    """What is known of each row, as `coverslip.eval.truth` has it."""
    if "event" in truth:
        return truth[["y", "event"]].to_numpy(np.float64)
    if targets.kind == "multilabel":
        return truth[[f"y{t}" for t in range(len(targets.classes))]].to_numpy(np.float64)
    return truth["y"].to_numpy()


def _sketches(job: Job, data: TrainingData) -> dict[str, Sketch]:
    made = {}
    with job.progress.stage("audit", len(data.features), unit="slide") as step:
        for slide, features in data.features.items():
            made[slide] = sketch(features.x)
            step.advance(note=slide)
    return made


def mean_embedding(means: Mapping[str, ndarray], slides: list[tuple[str, ...]]) -> Float[ndarray, "n d"]:
    """Mean features of each row's slides."""
    return np.stack([np.mean([means[slide] for slide in held], axis=0) for held in slides]).astype(np.float64)


def covariate_columns(job: Job, targets: Targets) -> list[str]:
    """The columns of the table by which units are grouped: those of the settings, else all that are no targets and by
    their names no outcomes: nobody is in a group of what happens later. `cohort.covariates` are taken as told."""
    frame, wanted = job.cohort.frame, job.study.audit.columns
    if wanted is not None:
        return [*wanted, *(["site"] if "site" in frame and "site" not in wanted else [])]
    later = {one["column"] for one in outcome_columns(job, targets)}
    return [name for name in _foreign(job, targets) if name not in later]


def outcome_columns(job: Job, targets: Targets) -> list[dict[str, str]]:
    """The columns that make no subgroups since they look like outcomes, as entries of what was skipped."""
    if job.study.audit.columns is not None:
        return []
    declared = job.study.cohort.covariates
    names = [name for name in _foreign(job, targets) if looks_like_outcome(name) and name not in declared]
    return [{"column": name, "reason": OUTCOME} for name in names]


def _foreign(job: Job, targets: Targets) -> list[str]:
    """The columns that are neither the target's nor the program's own."""
    task = job.study.task
    own = _OWN | set(targets.columns) | {task.column, task.time, task.event, job.study.split.time, job.study.cohort.on}
    return [str(name) for name in job.cohort.frame if name not in own]


def per_row(frame: pd.DataFrame, columns: list[str], slides: list[tuple[str, ...]]) -> dict[str, list[Any]]:
    """The value of each covariate for each row; what the slides of a patient differ in is joined, numbers averaged."""
    table = frame.set_index("slide")
    found: dict[str, list[Any]] = {}
    for name in columns:
        column = table[name].to_dict()
        values: list[Any] = []
        for held in slides:
            said = [column[s] for s in held if column.get(s) is not None and column[s] == column[s]]
            if not said:
                values.append(None)
            elif all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in said):
                values.append(float(np.mean(said)))
            else:
                values.append(" + ".join(sorted({str(v) for v in said})))
        found[name] = values
    return found


def _leaks(job: Job, data: TrainingData, means: Mapping[str, ndarray]) -> dict[str, Any]:
    rows: Callable[[str], ndarray] = lambda slide: data.features[slide].x  # noqa: E731
    twins = feature_twins(means, rows)
    digests = {s: f.identity.slide_fingerprint for s, f in data.features.items() if f.identity is not None}
    exact, near = duplicate_pairs(read_json(job.run.check))
    found = audit_split(data.split, contents=digests, exact=exact, near=near, features=twins)
    missed = {}
    if unknown := len(data.features) - len(digests):
        missed["files of slides"] = f"not known of {unknown} of {len(data.features)} slides: features of another tool"
    if not job.run.check.is_file():
        missed["looks of slides"] = "no slide was opened"
    return {
        "looked_at": ["patients", "slides", "images" if digests or job.run.check.is_file() else None, "features"],
        "not_compared": missed,
        "feature_twins": [list(pair) for pair in twins],
        "findings": [finding_json(one) for one in found],
    }


def finding_json(found: AuditFinding) -> dict[str, Any]:
    return {"code": found.code, "message": found.message, "fix": found.fix, "cases": list(found.cases)}


def _pretraining(job: Job, data: TrainingData, predictions: pd.DataFrame) -> dict[str, Any]:
    name = data.bags.origin.encoder
    tested = predictions[predictions["set"] == "test"]
    patient_of = dict(zip(tested["slide"].astype(str), tested["patient"].astype(str)))
    return {
        "encoder": name or None,
        "source": pretraining_source(name),
        **pretraining_overlap(patient_of, seen_by(name), listed(job.study.audit.pretraining)),
    }


def seen_by(encoder: str) -> tuple[str, ...] | None:
    """The public cohorts that an encoder has learnt from; None where that, or the encoder, is not known."""
    info = _described(encoder)
    return None if info is None else info.pretraining


def pretraining_source(encoder: str) -> str | None:
    """Who says so, and where; None where the encoder is not known."""
    info = _described(encoder)
    return None if info is None else info.pretraining_source or None


def _described(encoder: str) -> EncoderInfo | None:
    try:
        return describe(encoder) if encoder else None
    except CoverslipError:
        return None  # features of another tool, under a name that only it knows


def listed(path: str | None) -> list[str]:
    """The names of a pretraining list; none without a file."""
    if path is None:
        return []
    try:
        return Path(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"audit.pretraining: {path} cannot be read: {error}.", fix="A text file with one name a line."
        ) from error


def collapse_of(sketches: Mapping[str, Sketch], frame: pd.DataFrame, seed: int) -> dict[str, Any]:
    names = sorted(sketches)
    place = np.unique(np.linspace(0, len(names) - 1, min(len(names), _COLLAPSE_SLIDES)).astype(np.int64))
    sites = {s: None if v != v else v for s, v in zip(frame["slide"], frame["site"])} if "site" in frame else None
    patients = dict(zip(frame["slide"], frame["patient"].astype(str)))
    return slide_collapse({names[i]: sketches[names[i]].tiles for i in place}, sites, patients, seed=seed)


def _slices(
    tested: FoldRows,
    predictions: pd.DataFrame,
    targets: Targets,
    embedding: Float[ndarray, "n d"],
    attributes: Mapping[str, list[Any]],
    seed: int,
) -> dict[str, Any]:
    """Each unit once: the mean of its errors over folds and repeats."""
    units, first, of = np.unique(np.asarray(tested.unit, dtype=str), return_index=True, return_inverse=True)
    error = Concordance(tested.contrasts, tested.fold).wrong_share()
    known = ~np.isnan(error)
    total = np.bincount(of[known], error[known], len(units))
    times = np.bincount(of[known], minlength=len(units))
    mean = np.divide(total, times, out=np.full(len(units), np.nan), where=times > 0)
    per_unit = {name: [values[i] for i in first] for name, values in attributes.items()}
    groups = [*clusters(embedding[first], seed=seed), *attribute_slices(per_unit)]
    cell = tested.group[first] + len(tested.names) * tested.fold[first]
    found = error_slices(mean, cell, units.tolist(), groups, seed=seed)
    slides_of: dict[str, list[str]] = {}
    column = "patient" if set(units.tolist()) <= set(predictions["patient"].astype(str)) else "slide"
    for unit, slide in zip(predictions[column].astype(str), predictions["slide"].astype(str)):
        slides_of.setdefault(unit, []).append(slide)
    for entry in found["slices"]:
        named = [slide for unit in entry.pop("examples") for slide in sorted(set(slides_of.get(unit, [])))]
        entry["slides"] = named[:6]
    return {"error": "share of a patient's pairs within the fold that are in the wrong order", **found}
