"""Covariates beside tissue: in each fold a model of the covariates alone, and one of tissue and covariates together.

The second is fitted on inner out-of-fold tissue scores of the training patients. In-sample scores would not do: a model
knows the patients it has learnt from too well, so the sum would trust tissue far more than new patients justify.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped
from numpy import ndarray

from coverslip.base.errors import SettingsError
from coverslip.cohort import Cohort, Targets
from coverslip.cohort.table import nearest
from coverslip.eval.covariates import FORMAT, Covariate, design, tissue_scores
from coverslip.eval.linear import LinearModel
from coverslip.eval.reduce import UnitLevel
from coverslip.eval.truth import Task

NAME = "covariates.json"


@dataclass(frozen=True)
class ClinicalModels:
    """What one fold learnt of the covariates: how they become numbers, the model of them alone, and the one with
    tissue, or why there is none."""

    covariates: tuple[Covariate, ...]
    alone: LinearModel
    together: LinearModel | None
    reason: str = ""

    def predict(
        self, units: pd.DataFrame, tissue: Float[ndarray, "m k"] | None
    ) -> tuple[Float[ndarray, "m k"], Float[ndarray, "m k"] | None, dict[str, int]]:
        """What both models say of these units (`clinical_table`), whose tissue predictions are in the order of the
        rows; and by covariate how many values no training unit had."""
        x, strange = design(self.covariates, units)
        together = None
        if self.together is not None and tissue is not None:
            scores = tissue_scores(self.together.task, tissue)
            together = self.together.predict(np.concatenate([scores, x], axis=1))
        return self.alone.predict(x), together, strange

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "covariates": [one.to_json() for one in self.covariates],
            "alone": self.alone.to_json(),
            "together": None if self.together is None else self.together.to_json(),
            "reason": self.reason or None,
        }

    @classmethod
    def from_json(cls, task: Task, found: Mapping[str, Any]) -> ClinicalModels:
        """
        Raises:
            TableError: a linear model of a format that is not known.
        """
        together = found["together"]
        return cls(
            tuple(Covariate.from_json(one) for one in found["covariates"]),
            LinearModel.from_json(task, found["alone"]),
            None if together is None else LinearModel.from_json(task, together),
            found["reason"] or "",
        )


def check_covariates(cohort: Cohort, names: Sequence[str], targets: Targets) -> None:
    """Nothing, where the table has every covariate and none is the target.

    Raises:
        SettingsError: a column that is not there, named twice, or the target's own.
    """
    for name in names:
        if name not in cohort.frame:
            raise SettingsError(f"cohort.covariates: no column {name!r}. {nearest(name, cohort.frame.columns)}")
        if name in (*targets.columns, "slide", "patient", "path", "split"):
            raise SettingsError(
                f"cohort.covariates: {name!r} is the target or names slides and patients.", fix="Leave it out."
            )
    if len(set(names)) < len(names):
        raise SettingsError("cohort.covariates names a column twice.", fix="Leave one out.")


def clinical_table(cohort: Cohort, names: Sequence[str], slides: Sequence[str], level: UnitLevel) -> pd.DataFrame:
    """The covariates of the units of these slides, a row a unit, sorted by its name, which is the index.

    Numbers that the slides of a patient differ in are averaged; of text the first value counts.
    """
    frame = cohort.frame[cohort.frame["slide"].isin(list(slides))]
    groups = frame.groupby(frame[level].astype(str), sort=True)
    columns = {}
    for name in names:
        numeric = pd.api.types.is_numeric_dtype(frame[name])
        columns[name] = groups[name].mean() if numeric else groups[name].first()
    return pd.DataFrame(columns, index=pd.Index(sorted(map(str, groups.groups)), name=level))


def fit_clinical(
    task: Task,
    names: Sequence[str],
    units: pd.DataFrame,
    y: Shaped[ndarray, "n ..."],
    inner: pd.DataFrame | None,
    why: str = "",
) -> ClinicalModels:
    """Both models of one fold, from its training units with `y` in their order. `inner` has the inner out-of-fold
    tissue predictions of units, by their name; None, for the reason `why`, leaves the second out."""
    covariates = tuple(Covariate.learn(name, units[name].tolist()) for name in names)
    x, _ = design(covariates, units)
    alone = LinearModel.fit(task, x, y)
    if inner is None:
        return ClinicalModels(covariates, alone, None, why)
    known = units.index.isin(inner.index)
    scores = tissue_scores(task, inner.loc[units.index[known], task.reader.predictions(task)].to_numpy(np.float64))
    together = LinearModel.fit(task, np.concatenate([scores, x[known]], axis=1), y[known])
    return ClinicalModels(covariates, alone, together)


def truth_of(targets: Targets, slides: Sequence[str], level: UnitLevel) -> tuple[list[str], Shaped[ndarray, "n ..."]]:
    """The units of these slides, sorted, and what is known of them as `coverslip.eval.truth` has it."""
    frame = targets.frame[targets.frame["slide"].isin(list(slides))].drop_duplicates(level).sort_values(level)
    labels = [name for name in frame if re.fullmatch(r"y\d+", str(name))]
    columns = ["y", "event"] if "event" in frame else labels
    y = frame[columns].to_numpy(np.float64) if columns else frame["y"].to_numpy()
    return frame[level].astype(str).tolist(), y
