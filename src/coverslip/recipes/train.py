"""`coverslip train`: from feature files to an evaluated run. Opens no slide; reads each test fold once, at the end."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import torch

from coverslip._version import __version__
from coverslip.base.files import read_json, write_json
from coverslip.base.fingerprint import digest, file_digest
from coverslip.base.progress import SILENT, Progress
from coverslip.base.study import Study
from coverslip.cohort import Fold, Split, write_split
from coverslip.eval import FoldSize
from coverslip.mil import SlideModel
from coverslip.mil.plan import check_plan
from coverslip.recipes.audits import audit_run, check_audit
from coverslip.recipes.clinical import check_covariates
from coverslip.recipes.control import run_control
from coverslip.recipes.embed import feature_store
from coverslip.recipes.engine import LOCAL, Engine, open_engine
from coverslip.recipes.fitting import digests_of, fit_fold
from coverslip.recipes.job import LOG, Job, Tally, open_job, working
from coverslip.recipes.likeness import keep_likeness
from coverslip.recipes.nested import calibrated, learn_inside, told
from coverslip.recipes.out_of_fold import baseline_table, evaluated, fit_baseline, fold_sizes, labelled, summaries
from coverslip.recipes.training_data import TrainingData, load_data
from coverslip.recipes.tuning import candidates, choose_settings, collect_tuning
from coverslip.store import RunFolder, describe_environment, write_table
from coverslip.store.run import WEIGHTS


def train_study(
    study: Study, *, engine: str = LOCAL, ray_address: str | None = None, progress: Progress = SILENT
) -> Tally:
    """Trains and evaluates on the study's feature files; `engine` says where the folds are trained.

    Raises:
        SettingsError, TableError, SplitError, FeatureError: what the user gave cannot work.
    """
    check_plan(study)
    job = open_job(study, need_paths=False, store=feature_store(study), progress=progress, trains=True)
    with working(job.run, "train"), open_engine(engine, ray_address) as where:
        return train_job(job, failed={}, engine=where)


def train_job(job: Job, *, failed: Mapping[str, str], engine: Engine) -> Tally:
    """Folds, models, out-of-fold predictions and metrics; slides in `failed` are left out with their reason."""
    # Settings of the end are checked at the beginning.
    candidates(job.study)
    check_audit(job)
    data = load_data(job, failed)
    check_covariates(job.cohort, job.study.cohort.covariates, data.targets)
    forget_results(job.run, data.split)
    write_split(data.split, job.run.split)
    write_json(job.run.cohort, cohort_json(job, data))
    _train_folds(job, data, engine)
    nested = learn_inside(job, data, engine)
    predictions, baseline = _out_of_fold(job, data)
    predictions = calibrated(nested, predictions, data.split.folds)
    write_table(job.run.predictions, predictions)
    sizes = fold_sizes(job.study, job.run, data, data.split.folds)
    result = evaluated(job, data, predictions, baseline, sizes)
    figures, curves = told(nested, job, data, predictions, sizes)
    metrics = {**result.metrics, **figures, "likeness": keep_likeness(job, data)}
    write_json(job.run.evaluation, {**result.curves, **curves})
    write_json(job.run.environment, environment(job, data, engine))
    write_json(job.run.metrics, metrics)
    collect_tuning(job.run, data.split)
    audit_run(job, data, predictions)
    run_control(job, data, predictions, sizes, cross_validate, engine)
    return Tally(job.run.folder, failed=data.failed, metrics=metrics)


def forget_results(run: RunFolder, split: Split) -> None:
    """Removes what an earlier run with other settings left, so that no old number stands beside a new one."""
    for path in (run.predictions, run.metrics, run.evaluation, run.audit, run.tuning):
        path.unlink(missing_ok=True)
    for path in (run.control, run.checklists, run.contents, run.report):
        path.unlink(missing_ok=True)
    for folder in (run.heatmaps, run.slices):
        shutil.rmtree(folder, ignore_errors=True)
    current = {fold.name for fold in split.folds}
    for folder in run.models.glob("*"):
        if folder.name not in current:
            shutil.rmtree(folder, ignore_errors=True)


def _train_folds(job: Job, data: TrainingData, engine: Engine) -> None:
    """The models of all folds, in their folders; those made from the same data and settings are kept."""
    folds = data.split.folds
    work = FoldTraining(job.study, job.run, data, job.progress)
    with job.progress.stage("train", len(folds), unit="fold") as step:
        for place, told in engine.map(work, folds, device=job.study.fit.device, devices=job.study.fit.devices):
            LOG.info("%s %s", folds[place].name, told)
            step.advance(note=folds[place].name)


def _out_of_fold(job: Job, data: TrainingData) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of each fold's test slides: by its model, and by the baseline on the same fold,
    which is kept for `predict`."""
    predictions, baseline = [], []
    spread = summaries(data.bags)
    with job.progress.stage("predict", len(data.split.folds), unit="fold") as step:
        for fold in data.split.folds:
            model = SlideModel.load(job.run.model(fold.name))
            test = data.bags.take(fold.test)
            predictions.append(labelled(model.predict(test, times=data.targets.grid), data, fold))
            linear = fit_baseline(spread, data, fold)
            write_json(job.run.baseline(fold.name), linear.to_json())
            baseline.append(labelled(baseline_table(linear, spread, test), data, fold))
            step.advance(note=fold.name)
    return pd.concat(predictions, ignore_index=True), pd.concat(baseline, ignore_index=True)


def cross_validate(study: Study, run: RunFolder, data: TrainingData) -> tuple[pd.DataFrame, list[FoldSize]]:
    """Out-of-fold predictions of all folds, one after another, and the folds' sizes: what a control repeats."""
    train, tables = FoldTraining(study, run, data), []
    for fold in data.split.folds:
        train(fold)
        model = SlideModel.load(run.model(fold.name))
        said = model.predict(data.bags.take(fold.test), times=data.targets.grid)
        tables.append(labelled(said, data, fold))
    return pd.concat(tables, ignore_index=True), fold_sizes(study, run, data, data.split.folds)


@dataclass(frozen=True)
class FoldTraining:
    """Trains one fold into its folder; says in a few words how. Travels to another process, without the progress bars
    and without the rows, which are read from their files there."""

    study: Study
    run: RunFolder
    data: TrainingData
    progress: Progress = SILENT

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.study, self.run, self.data)

    def __call__(self, fold: Fold) -> str:
        """Nothing is trained where the folder has the model of the same data and settings; a run that was stopped goes
        on at its checkpoint."""
        folder = self.run.model(fold.name)
        data = self.data
        study = choose_settings(self.study, data, fold, folder)
        train, tune = data.learning_sets(fold, study.fit.least_tuning)
        made_from = digest(
            {
                "sets": {"train": train, "tune": tune},
                "targets": data.targets.digest,
                "task": {"kind": study.task.kind, "options": study.task.options},
                "features": digests_of(data.features, (*train, *tune)),
                "fit": study.fit.model_dump(),
                "aggregator": study.aggregator.model_dump(),
                "bag": study.task.bag,
                "coverslip": __version__,
            }
        )
        stamp = folder / "made_from.json"
        if stamp.is_file() and read_json(stamp).get("digest") == made_from:
            return "reused"
        stamp.unlink(missing_ok=True)
        model = fit_fold(study, data, fold, folder=folder, progress=self.progress, name=fold.name)
        write_json(stamp, {"digest": made_from})
        training = model.card.training
        return f"trained: {training.get('epochs')} epochs, best {training.get('best_epoch')}"


def cohort_json(job: Job, data: TrainingData) -> dict[str, Any]:
    """From the rows of the table to the slides that are analysed."""
    left_out = [*job.cohort.exclusions, *data.targets.exclusions]
    return {
        "format": "coverslip.cohort/1",
        "source": job.cohort.source,
        "digest": job.cohort.digest,
        "rows": len(job.cohort.frame) + len(job.cohort.exclusions),
        "slides": list(data.targets.slides),
        "exclusions": [{"slide": e.slide, "reason": e.reason} for e in left_out if e.slide not in data.failed],
    }


def environment(job: Job, data: TrainingData, engine: Engine) -> dict[str, Any]:
    study = job.study
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    trained = [f.name for f in data.split.folds if (job.run.model(f.name) / WEIGHTS).is_file()]
    weights = {f"weights {name}": file_digest(job.run.model(name) / WEIGHTS, whole=True) for name in trained}
    described = describe_environment(
        now=datetime.now(UTC),
        seeds={"split": study.split.seed, "fit": study.fit.seed, "evaluation": study.evaluation.seed},
        digests={
            "cohort": job.cohort.digest,
            "split": data.split.digest,
            "features": digest(digests_of(data.features, data.features)),
            **weights,
        },
        devices=devices,
    )
    return {**described, "engine": engine.describe(), "encoder": data.bags.origin.card()}
