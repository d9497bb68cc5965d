"""The cells of a CSV file as text, with the row numbers a spreadsheet shows, so that errors can point at them."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from coverslip.base.errors import TableError

SEPARATORS = (",", ";", "\t")

_SAVE_AS = "Save it as 'CSV UTF-8'."
# Excel writes this line to tell itself the separator.
_EXCEL_HINT = re.compile(r'"?sep=([,;\t])"?\s*$')


@dataclass(frozen=True)
class Cells:
    """A table as text: names and values without the spaces around them, "" where a cell is empty.

    `rows` holds one tuple a row, as long as `columns`; `numbers` the row of each as a spreadsheet counts it (the header
    is row 1, blank rows count); `separator` what the file is cut by.
    """

    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...]
    separator: str

    def column(self, name: str) -> list[str]:
        at = self.columns.index(name)
        return [row[at] for row in self.rows]


def read_cells(path: Path) -> Cells:
    """The cells of a CSV file: UTF-8 with or without a byte-order mark, cut by commas, semicolons or tabs.

    The separator is the one that cuts the header into most columns.

    Raises:
        TableError: no such file, not UTF-8, no header, a row of another length, quotes that do not close.
    """
    path = Path(path)
    text = _decode(_bytes(path), path.name)
    separator, skipped = _separator(text)
    records = _records(text, separator, path.name)[skipped:]
    filled = [(number, cells) for number, cells in enumerate(records, start=1 + skipped) if any(cells)]
    if not filled:
        raise TableError(f"{path.name} is empty.", fix="Its first row names the columns, each further row is a slide.")
    (_, header), *body = filled
    while header and not header[-1] and all(not cell for _, row in body for cell in row[len(header) - 1 :]):
        header = header[:-1]  # spreadsheets leave separators behind the last column
    rows = [_fit(row, header, number, path.name) for number, row in body]
    return Cells(path.name, tuple(header), tuple(rows), tuple(number for number, _ in body), separator)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise TableError(f"There is no table {path}.", fix="Give the path of a CSV or parquet file.") from error
    except IsADirectoryError as error:
        raise TableError(f"{path} is a folder, not a table.", fix="Give the path of a CSV or parquet file.") from error
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}.") from error


def _decode(data: bytes, name: str) -> str:
    if data[:2] == b"PK":
        raise TableError(f"{name} is a spreadsheet workbook or a zip file, not CSV.", fix=_SAVE_AS)
    if data[:2] == b"\x1f\x8b":
        raise TableError(f"{name} is compressed (gzip).", fix="Unpack it first.")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise TableError(f"{name} is encoded as UTF-16, not UTF-8.", fix=_SAVE_AS)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Row and neighbourhood of the first wrong byte; cp1252 is what spreadsheets write when they do not write UTF-8.
        start = data.rfind(b"\n", 0, error.start) + 1
        row = data.count(b"\n", 0, error.start) + 1
        near = data[max(start, error.start - 12) : error.start + 12].splitlines()[0].decode("cp1252", errors="replace")
        raise TableError(
            f"{name}, row {row}: the file is not encoded as UTF-8 (byte 0x{data[error.start]:02x}; "
            f"read as Windows-1252 it would be {near.strip()!r}).",
            fix=_SAVE_AS,
        ) from error


def _separator(text: str) -> tuple[str, int]:
    """The separator, and how many lines to skip before the header."""
    first = text.split("\n", 1)[0]
    if hint := _EXCEL_HINT.match(first):
        return hint[1], 1
    lines = io.StringIO(text, newline="")
    header = next((line for line in lines if line.strip(" ,;\t\r\n")), "")
    counts = {s: len(next(csv.reader([header], delimiter=s, skipinitialspace=True), [])) for s in SEPARATORS}
    return max(counts, key=lambda s: counts[s]), 0


def _records(text: str, separator: str, name: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    records: list[list[str]] = []
    try:
        for record in reader:
            records.append([cell.strip() for cell in record])
    except csv.Error as error:
        raise TableError(
            f"{name}, row {len(records) + 1}: {error}.", fix="A quote that opens a value must also close it."
        ) from error
    return records


def _fit(row: list[str], header: list[str], number: int, name: str) -> tuple[str, ...]:
    while len(row) > len(header) and not row[-1]:
        row = row[:-1]
    if len(row) != len(header):
        raise TableError(
            f"{name}, row {number}: {len(row)} values, but the header names {len(header)} columns.",
            fix="A value that holds the separator needs quotes around it.",
        )
    return tuple(row)
