"""Inner out-of-fold predictions: inside each fold, every training patient is predicted by a model that neither trained
on nor stopped on them. They teach what in-sample predictions would teach wrongly and test patients must not teach.

A run trains `evaluation.inner_folds` models a fold more for it. They are not kept; their predictions are, in the folder
of the fold's model.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from coverslip._version import __version__
from coverslip.base.errors import CoverslipError, SplitError, StoreError
from coverslip.base.files import read_json, write_json
from coverslip.base.fingerprint import digest
from coverslip.base.study import Study
from coverslip.cohort import Fold, inner_folds, learnt_times
from coverslip.recipes.engine import Engine
from coverslip.recipes.fitting import digests_of, fit_fold
from coverslip.recipes.job import LOG, Job
from coverslip.recipes.training_data import TrainingData
from coverslip.recipes.tuning import choose_settings
from coverslip.store import write_table
from coverslip.store.tables import read_predictions

FORMAT = "coverslip.inner/1"
TABLE, RECORD = "inner.csv", "inner.json"


@dataclass(frozen=True)
class Inner:
    """The inner predictions of one fold, like predictions.csv, whose folds are the inner ones; or None and why."""

    table: pd.DataFrame | None
    reason: str = ""


def inner_predictions(job: Job, data: TrainingData, engine: Engine) -> dict[str, Inner]:
    """The inner predictions of each fold, by its name; those made from the same data and settings are used again.

    Where a fold has too few patients for inner folds, or an inner model cannot be trained, it has none and says why.
    """
    settings, found = job.study.evaluation, {}
    work = InnerTraining(data)
    plans = []
    for fold in data.split.folds:
        folder = job.run.model(fold.name)
        try:
            plan = _plan(job, data, fold) if settings.inner_folds else "evaluation.inner_folds = 0"
        except SplitError as error:
            plan = error.message
        if isinstance(plan, str):
            _forget(folder)
            found[fold.name] = Inner(None, plan)
            continue
        plans.append((fold, plan))
    items = [part for _, plan in plans if not _is_kept(plan) for part in plan]
    failed: dict[Path, str] = {}
    with job.progress.stage("inner", len(items), unit="model") as step:
        for place, said in engine.map(work, items, device=job.study.fit.device, devices=job.study.fit.devices):
            part = items[place]
            if said:
                failed[part.folder] = f"{part.inner.label}: {said}"
            LOG.info("%s: %s", part.inner.label, said or "predicted")
            step.advance(note=part.inner.label)
    text = data.targets.columns if data.targets.classes else ()
    for fold, plan in plans:
        folder = job.run.model(fold.name)
        if folder in failed:
            _forget(folder)
            found[fold.name] = Inner(None, failed[folder])
            continue
        if not _is_kept(plan):
            parts = [read_predictions(part.table, text=text) for part in plan]
            write_table(folder / TABLE, pd.concat(parts, ignore_index=True))
            write_json(folder / RECORD, {"format": FORMAT, "folds": len(plan), "digest": _digest_of_all(plan)})
        _forget_parts(folder)
        found[fold.name] = Inner(read_predictions(folder / TABLE, text=text))
    return {fold.name: found[fold.name] for fold in data.split.folds}


@dataclass(frozen=True)
class Part:
    """One inner fold to be predicted: by which settings, for the model in which folder, and all that it depends on as
    16 hex digits. The outer test patients are no part of it."""

    study: Study
    inner: Fold
    folder: Path
    digest: str
    times: tuple[float, ...] = ()
    """The times of the outer fold's model, at which curves are stated; empty for targets that are no times."""

    @property
    def table(self) -> Path:
        """Where the predictions lie until those of all inner folds are there."""
        return self.folder / "inner" / f"{self.inner.index}.csv"


@dataclass(frozen=True)
class InnerTraining:
    """Trains the model of one inner fold and keeps its predictions; says nothing, or why there are none. Travels to
    another process without the rows, which are read from their files there."""

    data: TrainingData

    def __call__(self, part: Part) -> str:
        stamp = part.table.with_suffix(".json")
        if part.table.is_file() and read_json(stamp).get("digest") == part.digest:
            return ""
        try:
            model = fit_fold(part.study, self.data, part.inner)
        except StoreError:
            raise
        except CoverslipError as error:
            return error.message
        said = model.predict(self.data.bags.take(part.inner.test), times=part.times)
        known = self.data.targets.shown.loc[said["slide"]].reset_index(drop=True)
        names = said[["slide", "patient"]].assign(fold=part.inner.index, set="inner")
        write_table(part.table, pd.concat([names, known, said.drop(columns=["slide", "patient"])], axis=1))
        write_json(stamp, {"digest": part.digest})
        return ""


def _plan(job: Job, data: TrainingData, fold: Fold) -> list[Part]:
    """The inner folds of a fold, by the settings that were chosen for it.

    Raises:
        SplitError: too few training patients.
    """
    settings, folder = job.study.evaluation, job.run.model(fold.name)
    inside = inner_folds(fold, data.targets, folds=settings.inner_folds, seed=settings.seed, tune=job.study.split.tune)
    study = choose_settings(job.study, data, fold, folder)
    times = learnt_times(study.task, data.targets, (*fold.train, *fold.tune))
    return [Part(study, inner, folder, _digest(study, data, inner, times), times) for inner in inside]


def _digest(study: Study, data: TrainingData, inner: Fold, times: Sequence[float]) -> str:
    sets, frame = inner.sets(), data.targets.frame
    slides = sorted({slide for names in sets.values() for slide in names})
    return digest(
        {
            "sets": sets,
            "y": frame[frame["slide"].isin(slides)].astype(str).to_numpy().tolist(),
            "grid": list(times),
            "features": digests_of(data.features, slides),
            "task": study.task.model_dump(),
            "fit": study.fit.model_dump(),
            "aggregator": study.aggregator.model_dump(),
            "coverslip": __version__,
        }
    )


def _digest_of_all(plan: Sequence[Part]) -> str:
    return digest([part.digest for part in plan])


def _is_kept(plan: Sequence[Part]) -> bool:
    """Whether the joined table of the same data and settings is there."""
    folder = plan[0].folder
    return (folder / TABLE).is_file() and read_json(folder / RECORD).get("digest") == _digest_of_all(plan)


def _forget(folder: Path) -> None:
    """Removes inner predictions that belong to other settings."""
    for name in (TABLE, RECORD):
        (folder / name).unlink(missing_ok=True)
    _forget_parts(folder)


def _forget_parts(folder: Path) -> None:
    shutil.rmtree(folder / "inner", ignore_errors=True)
