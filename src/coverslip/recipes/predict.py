"""`coverslip predict`: a finished run on new slides or features. Nothing is trained; the folds' models are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from coverslip.base.errors import FeatureError, SettingsError, TableError
from coverslip.base.files import finite, read_json, write_json
from coverslip.base.progress import SILENT, Progress
from coverslip.base.study import CohortSettings, Study
from coverslip.cohort import Cohort, Fold, Split, Targets, load_cohort, make_targets
from coverslip.eval import Evaluation, evaluate
from coverslip.eval.learnt import before_and_after, corrected_table
from coverslip.eval.linear import LinearModel
from coverslip.eval.truth import Task
from coverslip.mil import BagSource, SlideModel
from coverslip.recipes.answers import answers
from coverslip.recipes.check import look_at
from coverslip.recipes.embed import embed_slides, feature_store
from coverslip.recipes.external import audit_external, told
from coverslip.recipes.job import LOG, Job, working
from coverslip.recipes.out_of_fold import baseline_table, summaries
from coverslip.store import Features, OutcomeLog, Run, RunFolder, write_table

_NO_BASELINE = (
    "The run has kept no baseline, so nothing stands beside the model's figures: `coverslip train` keeps one since."
)


@dataclass
class External:
    """What external validation leaves: the file of predictions, a row a slide and model, and that of answers, a row a
    patient; `said` is what the answers promise; the slides that failed; metrics, or the reason why there are none; and
    what speaks against the cohort as a test (`warnings`; they are in the metrics too).
    """

    predictions: Path
    answers: Path
    said: dict[str, Any]
    failed: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    no_metrics: str = ""
    warnings: list[str] = field(default_factory=list)


def predict(run: Run, bag: Features) -> pd.DataFrame:
    """What a run's models say of one slide, a row a fold: slide, patient, fold, and the task's columns.

    A slide of the run's own cohort is told by the models that have not learnt from its patient; a new slide by all, and
    stands as its own patient. `repeat` is there where the folds were drawn more than once.

    Raises:
        FeatureError: the features are of another encoder, tile size or scale than the run's.
    """
    patient = run.split.patients.get(bag.slide, bag.slide)
    rows = []
    times = _times(run)
    for fold in unseen(run.split, bag.slide):
        table = SlideModel.load(run.files.model(fold.name)).predict(bag, times=times)
        rows.append(table.assign(patient=patient, fold=fold.index, repeat=fold.repeat))
    frame = pd.concat(rows, ignore_index=True)
    first = ["slide", "patient", "fold", *(["repeat"] if run.split.repeats > 1 else [])]
    return frame[[*first, *[c for c in frame if c not in (*first, "repeat")]]]


def unseen(split: Split, slide: str) -> list[Fold]:
    """The folds whose model has neither trained nor tuned on the slide's patient; all for a new slide."""
    patient = split.patients.get(slide)
    if patient is None:
        return list(split.folds)
    blind = [fold for fold in split.folds if patient not in split.patients_of((*fold.train, *fold.tune))]
    # With leaking folds every model may have seen the patient; then those that test the slide are asked.
    return blind or [fold for fold in split.folds if slide in fold.test] or list(split.folds)


def predict_table(
    run_folder: Path,
    table: Path,
    *,
    features: Path | None = None,
    out: Path | None = None,
    progress: Progress = SILENT,
) -> External:
    """Predictions, and metrics where the labels are known, for the slides of a table that the run has not seen.

    Features are read from `features`, or made as the run's were and kept in the output folder.

    Raises:
        SettingsError, TableError: the run or the table cannot be used.
        FeatureError: features of another encoder than the run's.
    """
    run = Run.open(run_folder)
    study = _external_study(run, Path(table), features, out)
    cohort = load_cohort(study.cohort, need_paths=features is None)
    folder = RunFolder(Path(study.output)).create()
    with working(folder, "predict"):
        job = Job(study, cohort, folder, feature_store(study), OutcomeLog(folder.outcomes), progress)
        failed = embed_slides(job, list(cohort.slides)) if features is None else {}
        source, unreadable = _bags(job, failed)
        failed |= unreadable
        predictions = _predictions(run, source, progress)
        targets, no_metrics = _targets(run, cohort, study)
        if no_metrics:
            LOG.info("no metrics: %s", no_metrics)
        if targets is not None:
            predictions = _labelled(predictions, targets)
        rows = {str(slide): job.store.read(slide) for slide in predictions["slide"].unique()}
        said = answers(run, cohort, predictions, rows, targets)
        write_table(folder.predictions, said.predictions)
        write_table(folder.answers, said.table)
        write_json(folder.answers.with_suffix(".json"), said.metrics)
        check = look_at(job, list(rows)) if features is None else {}
        audit = audit_external(run, job, rows, predictions, targets, check=check)
        result = External(
            folder.predictions, folder.answers, said.metrics, failed, no_metrics=no_metrics, warnings=told(audit)
        )
        if targets is not None:
            baseline = _baseline(run, source, targets)
            found = _evaluate(run, cohort, said.predictions, baseline, targets, job, result.warnings)
            result.metrics = {**found.metrics, "answers": said.metrics}
            write_json(folder.evaluation, {**found.curves, "recalibration": _recalibrated(said.predictions, targets)})
            write_json(folder.metrics, result.metrics)
        return result


def _external_study(run: Run, table: Path, features: Path | None, out: Path | None) -> Study:
    """The run's settings over the new table; relative paths are relative to the table's folder."""
    study = run.settings
    output = (Path(out) if out is not None else run.folder / "external" / table.stem).absolute()
    if output == run.folder.absolute():
        raise SettingsError("--out is the run's own folder.", fix="Give another folder; the run stays as it is.")
    store = (Path(features) if features is not None else output / "features").absolute()
    if features is not None and not store.exists():
        raise SettingsError(f"There are no features at {features}.", fix="Give the folder of the feature files.")
    cohort = CohortSettings(
        table=str(table.absolute()),
        root=str(table.absolute().parent),
        classes=study.cohort.classes,
        allow_mixed=study.cohort.allow_mixed,
        # What the run was told are covariates are none of the outcomes that audits leave out by their names.
        covariates=study.cohort.covariates,
    )
    changes: dict[str, Any] = {
        "output": str(output),
        "cohort": cohort,
        "features": study.features.model_copy(update={"store": str(store)}),
    }
    return study.model_copy(update=changes)


def _bags(job: Job, failed: Mapping[str, str]) -> tuple[BagSource, dict[str, str]]:
    """The bags of the slides that have features, and the slides whose files are missing or damaged."""
    features: list[Features] = []
    lost: dict[str, str] = {}
    for slide in job.cohort.slides:
        if slide in failed:
            continue
        try:
            features.append(job.store.read(slide))
        except FeatureError as error:
            lost[slide] = str(error).removeprefix(f"{slide}: ")
            job.outcomes.record(slide, "features", "failed", lost[slide])
    if not features:
        first = next(iter({**failed, **lost}.items()))
        raise FeatureError(f"no slide of the table has features; {first[0]}: {first[1]}")
    return BagSource(features, patients=job.cohort.patient_of, bag=job.study.task.bag), lost


def _predictions(run: Run, source: BagSource, progress: Progress) -> pd.DataFrame:
    folders = run.models()
    rows = []
    with progress.stage("predict", len(folders), unit="model") as step:
        for number, folder in enumerate(folders):
            table = SlideModel.load(folder).predict(source, times=_times(run))
            rows.append(table.assign(fold=number, set="external"))
            step.advance(note=folder.name)
    frame = pd.concat(rows, ignore_index=True)
    first = ["slide", "patient", "fold", "set"]
    return frame[[*first, *[c for c in frame if c not in first]]]


def _times(run: Run) -> tuple[float, ...]:
    """The times at which the run's models were judged; empty for targets that are no times."""
    return tuple(map(float, run.metrics["task"].get("grid") or ()))


def _targets(run: Run, cohort: Cohort, study: Study) -> tuple[Targets | None, str]:
    """The labels of the new cohort; or None, and why."""
    known = run.metrics["task"]
    columns = known.get("columns") or [known["column"]]
    if lacking := [name for name in columns if name not in cohort.frame]:
        return None, f"the table has no column {', '.join(map(repr, lacking))}"
    if empty := [name for name in columns if cohort.frame[name].isna().all()]:
        return None, f"the table has no value in column {', '.join(map(repr, empty))}"
    # Curves are compared at the times at which the run's models were judged.
    task = study.task.model_copy(update={"times": list(_times(run))})
    return make_targets(cohort, task, study.cohort.classes, expected=known["classes"]), ""


def _labelled(predictions: pd.DataFrame, targets: Targets) -> pd.DataFrame:
    known = targets.shown.reindex(predictions["slide"]).reset_index(drop=True)
    if not len(targets.grid) and targets.classes and targets.y.ndim == 1:
        known = known.fillna("")  # a slide without a class
    return pd.concat([predictions.iloc[:, :4], known, predictions.iloc[:, 4:]], axis=1)


def _baseline(run: Run, source: BagSource, targets: Targets) -> pd.DataFrame | None:
    """What the run's linear baselines say, like the predictions; None where a model has none (older runs)."""
    folders = run.models()
    kept = [read_json(run.files.baseline(folder.name)) for folder in folders]
    if not all(kept):
        return None
    task, spread = Task.of(run.metrics["task"]), summaries(source)
    tables = [
        baseline_table(LinearModel.from_json(task, found), spread, source).assign(fold=number, set="external")
        for number, found in enumerate(kept)
    ]
    frame = pd.concat(tables, ignore_index=True)
    first = ["slide", "patient", "fold", "set"]
    return _labelled(frame[[*first, *[c for c in frame if c not in first]]], targets)


def _evaluate(
    run: Run,
    cohort: Cohort,
    predictions: pd.DataFrame,
    baseline: pd.DataFrame | None,
    targets: Targets,
    job: Job,
    warnings: Sequence[str],
) -> Evaluation:
    """Figures of the external cohort, with what it shares with the run's cohort told first."""
    lacking = [] if baseline is not None else [_NO_BASELINE]
    labelled = predictions[predictions["slide"].isin(targets.slides)]
    if labelled.empty:
        raise TableError(f"No slide of the table has a known {targets.column!r}.")
    return evaluate(
        labelled,
        None if baseline is None else baseline[baseline["slide"].isin(targets.slides)],
        task=targets.description,
        level="patient" if targets.level == "patient" else "slide",
        split=[],
        resamples=job.study.evaluation.resamples,
        seed=job.study.evaluation.seed,
        sites=cohort.frame.set_index("slide")["site"] if "site" in cohort.frame else None,
        warnings=[*_left_out(targets), *warnings, *lacking],
    )


def _recalibrated(predictions: pd.DataFrame, targets: Targets) -> dict[str, Any] | None:
    """Calibration on the external patients of the raw and of the recalibrated probabilities; None without the latter.
    What was learnt on the run's own patients may be wrong where the outcome is more or less frequent."""
    task = Task.of(targets.description)
    known = predictions[predictions["slide"].isin(targets.slides)]
    if corrected_table(known, task) is None:
        return None
    return finite(before_and_after(known, task, "patient" if targets.level == "patient" else "slide"))


def _left_out(targets: Targets) -> list[str]:
    """That slides have no place in the figures, where some have none."""
    if not targets.exclusions:
        return []
    first, number = targets.exclusions[0], len(targets.exclusions)
    slides = "1 slide is" if number == 1 else f"{number} slides are"
    return [f"{slides} predicted but not in the figures; {first.slide}: {first.reason}."]
