"""The tables of a run: what became of each slide, and what was predicted for it."""

from __future__ import annotations

import csv
import io
import math
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Literal

import pandas as pd

from coverslip.base.errors import TableError
from coverslip.base.files import atomic, storage_errors

Status = Literal["done", "reused", "failed"]

OUTCOME_COLUMNS = ("slide", "stage", "status", "reason", "seconds")
PREDICTION_COLUMNS = ("slide", "patient", "fold", "set")
_OUTCOME_KEY = ["slide", "stage"]


class OutcomeLog:
    """Appends what became of each slide to outcomes.csv: a line a slide and stage, at once, so that a kill loses none.

    Several threads and processes may append to one file. Where a slide and stage stand there twice, the last line
    counts; `close` leaves only those.
    """

    def __init__(self, path: Path) -> None:
        """Opens the log, and makes it where it is not there.

        Raises:
            StoreError: the folder cannot be written.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                return
            try:
                os.write(file, _line(OUTCOME_COLUMNS))
            finally:
                os.close(file)

    def record(self, slide: str, stage: str, status: Status, reason: str = "", seconds: float = math.nan) -> None:
        """Adds one line. `reason` says why a slide failed; `seconds` is how long the stage took, NaN for unknown."""
        assert status in ("done", "reused", "failed"), status
        shown = "" if math.isnan(seconds) else f"{seconds:.3f}"
        line = _line((slide, stage, status, " ".join(reason.split()), shown))
        with self._lock, storage_errors(self.path):
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                # A line that a kill or a full disk cut off must not swallow this one.
                size = os.fstat(file).st_size
                os.lseek(file, max(0, size - 1), os.SEEK_SET)
                whole = size == 0 or os.read(file, 1) == b"\n"
                os.write(file, line if whole else b"\n" + line)
            finally:
                os.close(file)

    def read(self) -> pd.DataFrame:
        """The outcomes so far: slide, stage, status, reason, seconds; the last of each slide and stage."""
        return read_outcomes(self.path)

    def close(self) -> None:
        """Leaves one line a slide and stage, atomically. For the end of a run, when nobody else appends."""
        write_table(self.path, self.read())

    def __enter__(self) -> OutcomeLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


def read_outcomes(path: Path) -> pd.DataFrame:
    """outcomes.csv as a table, the last line of each slide and stage, in the order of their first lines.

    Raises:
        TableError: it is not there, or its columns are others.
    """
    found: dict[tuple[str, str], list[str]] = {}
    try:
        text = Path(path).read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError as error:
        raise TableError(f"There is no {path}.") from error
    # Line by line: the open quote of a torn line must not swallow those behind it.
    rows = [next(csv.reader([line]), []) for line in text.split("\n")]
    if not rows or tuple(rows[0]) != OUTCOME_COLUMNS:
        raise TableError(f"{path} has not the columns {', '.join(OUTCOME_COLUMNS)} in its first row.")
    for row in rows[1:]:
        if len(row) == len(OUTCOME_COLUMNS) and row[2] in ("done", "reused", "failed"):  # a torn line is none
            found[row[0], row[1]] = row
    frame = pd.DataFrame(list(found.values()), columns=list(OUTCOME_COLUMNS), dtype=str)
    frame["seconds"] = pd.to_numeric(frame["seconds"], errors="coerce")
    return frame


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Writes a CSV atomically; numbers keep every digit.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def read_predictions(path: Path, *, text: tuple[str, ...] = ()) -> pd.DataFrame:
    """predictions.csv as a table: ids and the columns in `text` (the target) stay text, so "007" and "NA" survive.

    Raises:
        TableError: it is not there, is no table, or lacks slide, patient, fold or set.
    """
    kept = {"slide", "patient", "set", *text}
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
        lacking = [name for name in PREDICTION_COLUMNS if name not in header]
        if lacking:
            raise TableError(f"{path} lacks the column {', '.join(lacking)}.")
        numbers = [name for name in header if _is_number_column(name) and name not in kept]
        return pd.read_csv(
            path,
            dtype={name: str for name in header if name in kept},
            # Only an empty number is missing: pandas would take a class called "NA" or "None" for a hole.
            keep_default_na=False,
            na_values={name: [""] for name in numbers},
            float_precision="round_trip",
            encoding="utf-8-sig",
        )
    except FileNotFoundError as error:
        raise TableError(f"There is no {path}.") from error
    except ValueError as error:  # pandas' parser errors and undecodable bytes are ValueErrors
        raise TableError(f"{path} cannot be read as a table: {error}.") from error


def _is_number_column(name: str) -> bool:
    return name in ("fold", "repeat", "value", "risk") or name.startswith(("p_", "s_", "risk_", "cif_"))


def _line(values: tuple[str, ...]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(values)
    return out.getvalue().encode()
