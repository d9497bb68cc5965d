"""One model on the learning sets of one fold: what training, tuning and inner folds have in common."""

from __future__ import annotations

from pathlib import Path

from coverslip.base.fingerprint import file_digest
from coverslip.base.progress import SILENT, Progress
from coverslip.base.study import Study
from coverslip.cohort import Fold
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
            grid=data.targets.grid,
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


def digest_of(features: Features) -> str:
    """16 hex digits over what the rows of a slide were made from, or over their file where that is not known."""
    if features.identity is not None:
        return features.identity.fingerprint
    assert features.path is not None
    return file_digest(features.path)
