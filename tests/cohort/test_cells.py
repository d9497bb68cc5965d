from __future__ import annotations

from pathlib import Path

import pytest

from coverslip.base.errors import TableError
from coverslip.cohort.cells import read_cells


def _write(folder: Path, data: bytes | str) -> Path:
    path = folder / "tafel ü.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_bom_separator_and_line_ends_change_nothing(tmp_path: Path, bom: bytes, separator: str, newline: str) -> None:
    rows = [["slide", "patient", "note"], [" a ", "p1", '"x, y; z"'], ["b", " p2", "ä"]]
    text = newline.join(separator.join(row) for row in rows) + newline
    cells = read_cells(_write(tmp_path, bom + text.encode()))
    assert cells.columns == ("slide", "patient", "note")
    assert cells.rows == (("a", "p1", "x, y; z"), ("b", "p2", "ä"))
    assert cells.numbers == (2, 3)
    assert cells.separator == separator


def test_the_header_decides_the_separator_not_the_values(tmp_path: Path) -> None:
    cells = read_cells(_write(tmp_path, "slide;patient;size\na;p1;1,5\nb;p2;2,5\n"))
    assert cells.separator == ";"
    assert cells.rows[0] == ("a", "p1", "1,5")


def test_the_separator_line_of_spreadsheets_is_understood(tmp_path: Path) -> None:
    cells = read_cells(_write(tmp_path, "sep=;\r\nslide;patient\r\na;p1\r\n"))
    assert cells.columns == ("slide", "patient")
    assert cells.numbers == (3,)


def test_blank_rows_and_separators_at_the_end_are_passed_over_but_counted(tmp_path: Path) -> None:
    cells = read_cells(_write(tmp_path, "slide,patient,,\na,p1,,\n,,,\n\nb,p2,,\n"))
    assert cells.columns == ("slide", "patient")
    assert cells.numbers == (2, 5)


def test_a_line_break_inside_quotes_is_one_row(tmp_path: Path) -> None:
    cells = read_cells(_write(tmp_path, 'slide,note\na,"two\nlines"\nb,x\n'))
    assert cells.rows == (("a", "two\nlines"), ("b", "x"))
    assert cells.numbers == (2, 3)


def test_a_windows_encoded_table_is_refused_with_its_row_and_how_it_would_read(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="row 3") as error:
        read_cells(_write(tmp_path, "slide,patient\na,p1\nb,Müller\n".encode("cp1252")))
    assert "Müller" in str(error.value)
    assert "UTF-8" in str(error.value)
    assert "0xfc" in str(error.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"PK\x03\x04rest", "workbook"),
        (b"\x1f\x8b\x08", "gzip"),
        ("slide,patient\na,p1\n".encode("utf-16"), "UTF-16"),
        (b"slide,patient\na,p1,x\n", "row 2: 3 values, but the header names 2"),
        (b"slide,patient\na,p1\nb\n", "row 3: 1 values"),
        (b'slide,patient\na,p1\n"b,p2\nc,p3\n', "row 3"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(TableError, match=said):
        read_cells(_write(tmp_path, data))


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no table"):
        read_cells(tmp_path / "none.csv")
    with pytest.raises(TableError, match="folder"):
        read_cells(tmp_path)
