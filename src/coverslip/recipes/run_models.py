"""The models of a run's folds on new units, in one array, with what was learnt beside each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped
from numpy import ndarray

from coverslip.cohort import Targets
from coverslip.eval.learnt import Learnt
from coverslip.eval.reduce import UnitLevel
from coverslip.eval.truth import Task
from coverslip.recipes.clinical import ClinicalModels, truth_of
from coverslip.recipes.nested import read_nested, unit_means
from coverslip.store import Run

CURVES = ("s_", "cif_")
"""Columns of curves begin so: many numbers a unit, of which no spread is told."""


@dataclass(frozen=True)
class RunModels:
    """The models of a run on new units: `p` (f, m, k) in the order of `folders` and `units`; `patients` (m,) names the
    patient of each unit."""

    task: Task
    level: UnitLevel
    folders: list[Path]
    units: list[str]
    patients: ndarray
    p: Float[ndarray, "f m k"]
    learnt: list[Learnt | None]
    clinical: list[ClinicalModels | None]

    @property
    def mean(self) -> Float[ndarray, "m k"]:
        return self.p.mean(axis=0)


def models_of(run: Run, task: Task, level: UnitLevel, predictions: pd.DataFrame) -> RunModels:
    folders = run.models()
    said = [unit_means(predictions[predictions["fold"] == place], task, level) for place in range(len(folders))]
    units = said[0].index.tolist()
    p = np.stack([one.loc[units].to_numpy(np.float64) for one in said])
    learnt, clinical = zip(*(read_nested(folder, task) for folder in folders))
    patient_of = dict(zip(predictions[level].astype(str), predictions["patient"].astype(str)))
    patients = np.array([patient_of[unit] for unit in units])
    return RunModels(task, level, folders, units, patients, p, list(learnt), list(clinical))


def known_units(
    targets: Targets | None, predictions: pd.DataFrame, level: UnitLevel
) -> tuple[list[str], Shaped[ndarray, "n ..."]]:
    """The units whose outcome is known, and the outcomes."""
    if targets is None:
        return [], np.zeros(0)
    return truth_of(targets, sorted(set(predictions["slide"]) & set(targets.slides)), level)
