"""What the kinds of targets share: columns read strictly, and patients who must have one outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from coverslip.base.errors import SettingsError, TableError
from coverslip.cohort.cohort import Cohort, Exclusion
from coverslip.cohort.labels import label_text
from coverslip.cohort.table import require_column, some


def setting(task_value: str | None, name: str, meaning: str) -> str:
    """The column that a setting names.

    Raises:
        SettingsError: it is not set.
    """
    if not task_value:
        raise SettingsError(f"task.{name} is not set.", fix=f"Name the column of the table that holds {meaning}.")
    return task_value


def cell(column: str) -> str:
    """Under which name `rows_of` gives a column of the table: never one that a kind makes itself, such as y."""
    return f"cell {column}"


def rows_of(cohort: Cohort, columns: Sequence[str], *, fix: str) -> pd.DataFrame:
    """The columns row, slide, patient and the `cell` of each that is named, sorted by slide.

    Raises:
        TableError: a column is missing, or has no value in any row.
    """
    frame = cohort.frame
    for column in columns:
        require_column(frame, column, source=cohort.source, fix=fix)
        if frame[column].isna().all():
            raise TableError(f"{cohort.source}: column {column!r} has no value in any of its {len(frame)} rows.")
    cells = {cell(column): frame[column] for column in columns}
    rows = pd.DataFrame({"row": frame.index.to_series(), "slide": frame["slide"], "patient": frame["patient"], **cells})
    return rows.sort_values("slide", ignore_index=True)


def numbers(rows: pd.DataFrame, column: str, *, source: str, fix: str) -> pd.Series:
    """The column as float64, NaN where a cell is empty.

    Raises:
        TableError: a value is no number, with its row.
    """
    values = rows[cell(column)]
    if pd.api.types.is_numeric_dtype(values):
        return values.astype(np.float64)
    parsed = pd.to_numeric(values, errors="coerce")
    wrong = values.notna() & ~np.isfinite(parsed)
    refuse(rows, column, wrong, "is not a number", source=source, fix=fix)
    return parsed.astype(np.float64)


def zero_or_one(rows: pd.DataFrame, column: str, *, source: str, fix: str) -> pd.Series:
    """The column as 0.0, 1.0 and NaN for an empty cell; True and False count as 1 and 0.

    Raises:
        TableError: a value is neither, with its row.
    """
    said = rows[cell(column)].map(label_text, na_action="ignore")
    known = {"0": 0.0, "1": 1.0, "False": 0.0, "True": 1.0}
    refuse(rows, column, said.notna() & ~said.isin(list(known)), "is neither 0 nor 1", source=source, fix=fix)
    return said.map(known, na_action="ignore").astype(np.float64)


def refuse(rows: pd.DataFrame, column: str, wrong: pd.Series, what: str, *, source: str, fix: str) -> None:
    """Nothing, where no row is wrong.

    Raises:
        TableError: naming the first wrong rows, the column and the first value.
    """
    if wrong.any():
        at = sorted(int(row) for row in rows.loc[wrong, "row"])
        value = rows.loc[rows["row"] == at[0], cell(column)].iloc[0]
        several = f" (rows {some(at)})" if len(at) > 1 else ""
        shown = value if isinstance(value, str) else float(value)
        text = repr(shown) if isinstance(shown, str) else f"{shown:g}"
        raise TableError(f"{source}, row {at[0]}, column {column!r}: {text} {what}{several}.", fix=fix)


def without_missing(rows: pd.DataFrame, missing: pd.Series, reason: str) -> tuple[pd.DataFrame, tuple[Exclusion, ...]]:
    """The rows that have a value, and the others as exclusions."""
    gone = tuple(Exclusion(slide, reason) for slide in rows.loc[missing, "slide"])
    return rows[~missing].reset_index(drop=True), gone


def one_outcome(rows: pd.DataFrame, outcome: pd.Series, what: str, source: str) -> None:
    """Nothing, where all rows of a patient say the same.

    Raises:
        TableError: naming the first patient with two outcomes, and their rows.
    """
    of_patient = outcome.groupby(rows["patient"], sort=True).nunique()
    torn = of_patient.index[of_patient > 1].tolist()
    if not torn:
        return
    first = rows["patient"] == torn[0]
    told = " and ".join(
        f"{_said(value)} (row{'s' if len(at) > 1 else ''} {some(sorted(at))})"
        for value, at in rows.loc[first, "row"].groupby(outcome[first], sort=True)
    )
    more = f", and {len(torn) - 1} more patients have too" if len(torn) > 1 else ""
    raise TableError(
        f"{source}: patient {torn[0]!r} has two outcomes in {what}: {told}{more}.",
        fix="Correct the table, or set task.level = 'slide' where slides of a patient may differ.",
    )


def _said(value: Any) -> str:
    return repr(value) if isinstance(value, str) else f"{value:g}"
