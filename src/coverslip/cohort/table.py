"""A table of slides or patients as typed columns, from CSV or parquet.

Names of things (slide, patient, path, ...) are text whatever they look like: "007" stays "007". Any other column is
numbers where every value is a number, else text. Empty cells stay missing. The index is the row a spreadsheet shows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from coverslip.base.errors import TableError
from coverslip.cohort.cells import Cells, read_cells

# Columns that name things: always text.
IDENTIFIERS = frozenset({"slide", "patient", "path", "site", "split", "stain", "preparation"})
# What people and programs write into a cell that has no value. "None" is not among them: it can be an answer.
MISSING = frozenset({"", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "<NA>", "#N/A"})
# In these a written NaN is a mistake to be told, so that only an empty cell is missing.
_ONLY_EMPTY = frozenset({"mpp"})

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")
# "007", and whole numbers that a float cannot hold, are names that happen to be made of digits.
_CODE = re.compile(r"[+-]?(?:0\d+|\d{16,})")
# What other tools call these columns.
_OTHER_NAMES = {"patient": ("case_id", "case", "subject", "subject_id"), "slide": ("image_id", "filename", "wsi")}


def read_table(path: Path | str, *, text: Collection[str] = ()) -> pd.DataFrame:
    """The table with typed columns; the index `row` is what a spreadsheet shows (the header is row 1).

    Text columns hold str or None, numeric ones int64 or float64 with NaN. The columns named in `text` are text
    whatever they hold, and so are `IDENTIFIERS`.

    Raises:
        TableError: naming file, row and column: no such file, not UTF-8, empty, two columns of one name, a row of
            another length, decimal commas that cannot be told from separators.
    """
    path = Path(path)
    keep = IDENTIFIERS | set(text)
    if path.suffix.lower() in {".parquet", ".pq"}:
        return _read_parquet(path, keep)
    return _typed(read_cells(path), keep)


def require_column(frame: pd.DataFrame, name: str, *, source: str, fix: str = "") -> None:
    """Nothing, where the table has the column.

    Raises:
        TableError: it has none, with the nearest name it has.
    """
    if name not in frame.columns:
        hint = nearest(name, frame.columns)
        raise TableError(f"{source} has no column {name!r}. {hint}", fix=fix)


def nearest(name: str, columns: Iterable[object]) -> str:
    """ "Did you mean ...?" whatever the case of letters, and the columns there are."""
    names = [str(column) for column in columns]
    folded = {column.casefold(): column for column in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    near = near or [other for other in _OTHER_NAMES.get(name, ()) if other in folded]
    hint = f"Did you mean {folded[near[0]]!r}? " if near else ""
    shown = ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")
    return f"{hint}Its columns: {shown}."


def some(values: Sequence[object], limit: int = 5) -> str:
    """The first few of a list in words: "a, b, c and 7 more"."""
    shown = ", ".join(str(value) for value in values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"


def _typed(cells: Cells, text: Collection[str]) -> pd.DataFrame:
    columns = _named_columns(cells)
    if not cells.rows:
        raise TableError(f"{cells.source} has a header but no rows.", fix="Each row below the header is a slide.")
    index = pd.Index(cells.numbers, name="row")
    series: dict[str, pd.Series] = {}
    for at, name in columns:
        missing = {""} if name in _ONLY_EMPTY else MISSING
        values = [None if row[at] in missing else row[at] for row in cells.rows]
        if name not in text:
            values = _numbers(values, name, cells)
        series[name] = _series(values, index)
    return pd.DataFrame(series, index=index)


def _named_columns(cells: Cells) -> list[tuple[int, str]]:
    """Position and name of the columns; a first one without a name that only counts the rows is left out."""
    named: dict[str, int] = {}
    for at, name in enumerate(cells.columns):
        if not name:
            values = [row[at] for row in cells.rows]
            counts = at == 0 and all(value.isdecimal() for value in values)
            if counts or not any(values):
                continue
            raise TableError(f"{cells.source}, row 1: column {at + 1} has values but no name.", fix="Name it.")
        if name in named:
            raise TableError(
                f"{cells.source}: columns {named[name] + 1} and {at + 1} are both named {name!r}.",
                fix="Rename or remove one.",
            )
        named[name] = at
    return [(at, name) for name, at in named.items()]


def _numbers(values: list[str | None], name: str, cells: Cells) -> list[Any]:
    """The values as numbers where each is one, as "True" and "False" where each is one of them, else as they are."""
    present = [value for value in values if value is not None]
    if present and all(value.casefold() in {"true", "false"} for value in present):
        return [value if value is None else value.capitalize() for value in values]
    if any(_COMMA_NUMBER.fullmatch(value) for value in present) and all(
        NUMBER.fullmatch(value) or _COMMA_NUMBER.fullmatch(value) or _THOUSANDS.fullmatch(value) for value in present
    ):
        values = _decimal_points(values, name, cells)
        present = [value for value in values if value is not None]
    if not present or not all(NUMBER.fullmatch(value) and not _CODE.fullmatch(value) for value in present):
        return list(values)
    parsed = [None if value is None else float(value) for value in values]
    if not all(np.isfinite(value) for value in parsed if value is not None):
        return list(values)
    if None not in parsed and all(re.fullmatch(r"[+-]?\d+", value) for value in present):
        return [int(value) for value in present]
    return parsed


def _decimal_points(values: list[str | None], name: str, cells: Cells) -> list[str | None]:
    """Decimal commas as points, where nothing else can be meant: such spreadsheets separate by semicolons."""
    commas = [(row, value) for row, value in zip(cells.numbers, values) if value is not None and "," in value]
    row, value = commas[0]
    where = f"{cells.source}, row {row}, column {name!r}: {value!r}"
    fix = "Write numbers with a point and without thousands separators: 0.5."
    if cells.separator == ",":
        raise TableError(f"{where} has a decimal comma in a table that is cut by commas.", fix=fix)
    if any(v is not None and "." in v for v in values):
        raise TableError(f"{where} has a comma where other rows have a point.", fix=fix)
    if all(_THOUSANDS.fullmatch(v) for _, v in commas):
        raise TableError(f"{where} could be a decimal comma or a thousands separator.", fix=fix)
    if any(v.count(",") > 1 for _, v in commas):
        raise TableError(f"{where} stands beside values with several commas.", fix=fix)
    return [value if value is None else value.replace(",", ".") for value in values]


def _series(values: list[Any], index: pd.Index) -> pd.Series:
    numbers = [value for value in values if value is not None]
    if numbers and not any(isinstance(value, str) for value in numbers):
        whole = len(numbers) == len(values) and all(isinstance(value, int) for value in numbers)
        if whole:
            return pd.Series(values, index=index, dtype=np.int64)
        return pd.Series([np.nan if v is None else float(v) for v in values], index=index, dtype=np.float64)
    return pd.Series(values, index=index, dtype=object)


def _read_parquet(path: Path, text: Collection[str]) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise TableError(f"There is no table {path}.", fix="Give the path of a CSV or parquet file.") from error
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path} cannot be read as parquet: {error}.", fix="Write the file anew.") from error
    table = _with_named_range(table)
    # A data frame's unnamed index comes along under this name.
    names = [name for name in table.column_names if not re.fullmatch(r"__index_level_\d+__", name)]
    stripped = [name.strip() for name in names]
    for name in stripped:
        if stripped.count(name) > 1:
            raise TableError(f"{path.name}: two columns are named {name!r}.", fix="Rename or remove one.")
    if table.num_rows == 0:
        raise TableError(f"{path.name} has no rows.", fix="Each row is a slide.")
    index = pd.RangeIndex(2, table.num_rows + 2, name="row")
    series: dict[str, pd.Series] = {}
    for name, clean in zip(names, stripped):
        values = table.column(name).to_pylist()
        if any(isinstance(value, (list, dict, bytes)) for value in values):
            raise TableError(f"{path.name}: column {clean!r} holds lists or bytes, not values.", fix="Remove it.")
        series[clean] = _series([_plain(value, as_text=clean in text) for value in values], index)
    return pd.DataFrame(series, index=index)


def _with_named_range(table: pa.Table) -> pa.Table:
    """The table with an index of counting numbers as a column, where it has a name; pandas writes only its range."""
    for index in (table.schema.pandas_metadata or {}).get("index_columns", []):
        if isinstance(index, dict) and index.get("kind") == "range" and index.get("name"):
            values = range(index["start"], index["stop"], index["step"])
            table = table.add_column(0, index["name"], pa.array(values))
    return table


def _plain(value: Any, *, as_text: bool) -> Any:
    """One parquet value as int, float, str or None."""
    if value is None or value != value or (isinstance(value, str) and value.strip() in MISSING):
        return None
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float)):
        return _from_decimal(value) if not as_text else str(value)
    if as_text:
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return value


def _from_decimal(value: Any) -> Any:
    # Decimals are numbers; booleans, dates and times are kept as the text they print.
    return float(value) if hasattr(value, "as_tuple") else str(value)
