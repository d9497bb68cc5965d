"""Predictions of each fold's test patients, by its model and by the baseline, and how large the folds are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from coverslip.base.study import FitSettings, Study
from coverslip.cohort import Fold
from coverslip.eval import Evaluation, FoldSize, evaluate, mean_sd
from coverslip.eval.linear import LinearModel
from coverslip.eval.truth import Task
from coverslip.mil import BagSource, SlideModel, Target
from coverslip.recipes.job import Job
from coverslip.recipes.training_data import TrainingData
from coverslip.store import RunFolder


def labelled(table: pd.DataFrame, data: TrainingData, fold: Fold) -> pd.DataFrame:
    """The columns of predictions.csv, in their order."""
    known = data.targets.shown.loc[table["slide"]].reset_index(drop=True)
    values = table.drop(columns=["slide", "patient"])
    names = table[["slide", "patient"]].assign(fold=fold.index, repeat=fold.repeat, set="test")
    return pd.concat([names, known, values], axis=1)


def evaluated(
    job: Job, data: TrainingData, predictions: pd.DataFrame, baseline: pd.DataFrame, sizes: Sequence[FoldSize]
) -> Evaluation:
    """What metrics.json and evaluation.json say of out-of-fold predictions, with the warnings that belong to them."""
    return evaluate(
        predictions,
        baseline,
        task=data.targets.description,
        level=data.unit,
        split=sizes,
        resamples=job.study.evaluation.resamples,
        seed=job.study.evaluation.seed,
        alpha=job.study.evaluation.alpha,
        sites=_sites(job),
        warnings=[*data.warnings, *untuned(data, job.study.fit)],
    )


def summaries(bags: BagSource) -> dict[str, np.ndarray]:
    """Mean and standard deviation over the rows of each bag, by the bag's name."""
    return {name: mean_sd(bags.bags([place]).x.float().numpy()) for place, name in enumerate(bags.names)}


def fit_baseline(spread: Mapping[str, np.ndarray], data: TrainingData, fold: Fold) -> LinearModel:
    """The baseline of a fold. It needs no early stopping, so it is fitted on training and tuning bags."""
    train = data.bags.take((*fold.train, *fold.tune))
    assert train.target is not None
    x = np.stack([spread[name] for name in train.names])
    return LinearModel.fit(Task.of(data.targets.description), x, _known(train.target))


def baseline_table(model: LinearModel, spread: Mapping[str, np.ndarray], test: BagSource) -> pd.DataFrame:
    """The baseline's predictions of bags of which `spread` has mean and standard deviation."""
    values = model.predict(np.stack([spread[name] for name in test.names]))
    columns = model.task.reader.predictions(model.task)
    return pd.DataFrame(
        [
            {"slide": slide, "patient": patient, **dict(zip(columns, row.tolist()))}
            for slides, patient, row in zip(test.slides, test.patients, values)
            for slide in slides
        ]
    )


def _known(target: Target) -> np.ndarray:
    """What is known of the bags as `coverslip.eval.truth` has it: (n,), (n, labels) with NaN, or times and events."""
    if target.event is not None:
        return torch.stack([target.y.double(), target.event.double()], dim=1).numpy()
    if target.known is not None:
        return torch.where(target.known, target.y, torch.nan).numpy()
    return target.y.numpy()


def fold_sizes(study: Study, run: RunFolder | None, data: TrainingData, folds: Sequence[Fold]) -> list[FoldSize]:
    """How many units of the task's level moved the weights of each fold's model, and how many tested it.

    For survival the models in `run` say where risk is cut; None: it is not.
    """
    sizes = []
    for fold in folds:
        slides, _ = data.learning_sets(fold, study.fit.least_tuning)
        cut = _middle_risk(run, fold, data, slides) if run and data.targets.kind == "survival" else None
        sizes.append(_size(fold, data, slides, cut))
    return sizes


def _middle_risk(run: RunFolder, fold: Fold, data: TrainingData, slides: Sequence[str]) -> float:
    """The median risk that the fold's model gives its own training units."""
    risks = SlideModel.load(run.model(fold.name)).predict(data.bags.take(slides))
    return float(risks.groupby("patient" if data.unit == "patient" else "slide")["risk"].mean().median())


def _size(fold: Fold, data: TrainingData, slides: Sequence[str], cut: float | None) -> FoldSize:
    if data.unit == "patient":
        train, test = (len(data.split.patients_of(names)) for names in (slides, fold.test))
    else:
        train, test = len(slides), len(fold.test)
    return FoldSize(fold.index, train, test, fold.repeat, training=_times(data, slides), cut=cut)


def _times(data: TrainingData, slides: Sequence[str]) -> np.ndarray | None:
    """Time and event of each unit of a training set, for the weights of figures about times; None for other kinds."""
    frame = data.targets.frame
    if "event" not in frame:
        return None
    rows = frame[frame["slide"].isin(slides)]
    return rows.drop_duplicates("patient" if data.unit == "patient" else "slide")[["y", "event"]].to_numpy(np.float64)


def untuned(data: TrainingData, fit: FitSettings) -> list[str]:
    """A sentence where tuning sets are too small to choose an epoch."""
    without = [fold for fold in data.split.folds if not data.learning_sets(fold, fit.least_tuning)[1]]
    if not without:
        return []
    return [
        f"In {len(without)} of {len(data.split.folds)} folds the tuning set has under {fit.least_tuning} patients "
        f"{_of_what(data)}: its patients were trained on too, and training ended after {fit.fixed_epochs} epochs "
        "(fit.least_tuning, fit.fixed_epochs)."
    ]


def _of_what(data: TrainingData) -> str:
    """What a tuning set needs enough of."""
    if data.targets.strict:
        return "of a class"
    return "with an event" if "event" in data.targets.frame else "in each half"


def _sites(job: Job) -> pd.Series | None:
    frame = job.cohort.frame
    return frame.set_index("slide")["site"] if "site" in frame else None
