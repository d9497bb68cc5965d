"""One model on the learning sets of one fold: what training, tuning and inner folds have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from coverslip.base.fingerprint import file_digest
from coverslip.base.progress import SILENT, Progress
from coverslip.base.study import Study
from coverslip.cohort import Fold, learnt_times
from coverslip.mil import SlideModel, fit_bags, make_task
from coverslip.recipes.training_data import TrainingData
from coverslip.store import Features


def fit_fold(
    study: Study,
    data: TrainingData,
    fold: Fold,
    *,
    folder: Path | None = None,
    progress: Progress = SILENT,
    name: str = "fit",
) -> SlideModel:
    """The model of a fold, an outer or an inner one, by the study's settings; its test slides are not read.

    With `folder` it is kept there, and a run that was stopped goes on.

    Raises:
        SettingsError, FeatureError, CoverslipError: as `fit_bags` raises.
    """
    train, tune = data.learning_sets(fold, study.fit.least_tuning)
    fit = study.fit if tune else study.fit.model_copy(update={"epochs": study.fit.fixed_epochs})
    return fit_bags(
        data.bags.take(train),
        data.bags.take(tune) if tune else None,
        make_task(
            study.task.kind,
            classes=data.targets.classes,
            grid=learnt_times(study.task, data.targets, (*fold.train, *fold.tune)),
            weights=study.fit.class_weights,
            options=study.task.options,
        ),
        study.aggregator,
        fit,
        column=data.targets.column,
        folder=folder,
        progress=progress,
        name=name,
    )


def digests_of(features: Mapping[str, Features], slides: Iterable[str]) -> dict[str, str]:
    """16 hex digits for each slide, over what its rows were made from, or over their file where that is not known.

    A file that holds many slides is read once.
    """
    found: dict[str, str] = {}
    of_files: dict[Path, str] = {}
    for slide in slides:
        identity, path = features[slide].identity, features[slide].path
        if identity is not None:
            found[slide] = identity.fingerprint
            continue
        assert path is not None
        if path not in of_files:
            of_files[path] = file_digest(path)
        found[slide] = of_files[path]
    return found
