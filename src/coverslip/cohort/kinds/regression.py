"""A number from one column: an age, a score, an expression."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from coverslip.base.errors import TableError
from coverslip.base.study import TaskSettings
from coverslip.cohort.cohort import Cohort
from coverslip.cohort.kinds._columns import numbers, one_outcome, rows_of, setting, without_missing
from coverslip.cohort.targets import Groups, Targets

ENTRIES = {
    "regression": {
        "build": "regression_targets",
        "summary": "a number, one column",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "",
    }
}

MOST_STRATA = 5
PATIENTS_A_STRATUM = 10


def regression_targets(
    cohort: Cohort, task: TaskSettings, groups: Groups | None, expected: Sequence[str] | None
) -> Targets:
    """The number of each slide; slides without one are exclusions. Folds get their share of each fifth of the values.

    Raises:
        SettingsError: no column is named.
        TableError: the column is missing, empty, constant or holds text; a patient has two values.
    """
    column, source = setting(task.column, "column", "the number"), cohort.source
    rows = rows_of(cohort, [column], fix="task.column names the target.")
    fix = "Regression needs numbers; classes are kind = 'classification'."
    rows["y"] = numbers(rows, column, source=source, fix=fix)
    rows, gone = without_missing(rows, rows["y"].isna(), f"no value in {column!r}")
    if task.level == "patient":
        one_outcome(rows, rows["y"], f"column {column!r}", source)
    if rows["y"].nunique() < 2 and expected is None:
        raise TableError(
            f"{source}: column {column!r} is constant: every value is {rows['y'].iloc[0]:g}.",
            fix="Regression needs values that differ.",
        )
    rows["stratum"], strata = _quantiles(rows)
    frame = rows[["slide", "patient", "y", "stratum"]]
    return Targets("regression", column, (), task.level, frame, gone, strata=strata, strict=False)


def _quantiles(rows: pd.DataFrame) -> tuple[pd.Series, tuple[str, ...]]:
    """The quantile group of each row, cut over patients, and what each group holds."""
    of_patient = rows.groupby("patient", sort=True)["y"].mean()
    number = int(np.clip(len(of_patient) // PATIENTS_A_STRATUM, 1, MOST_STRATA))
    inner = np.unique(np.quantile(of_patient, np.arange(1, number) / number))
    stratum = pd.Series(np.searchsorted(inner, rows["y"], side="right"), index=rows.index, dtype=np.int64)
    edges = [float(of_patient.min()), *inner.tolist(), float(of_patient.max())]
    return stratum, tuple(f"{low:g} to {high:g}" for low, high in pairwise(edges))
