from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.base.errors import TableError
from coverslip.cohort.table import nearest, read_table


def _table(folder: Path, content: str, **kwargs: object) -> pd.DataFrame:
    path = folder / "t.csv"
    path.write_text(content, encoding="utf-8")
    return read_table(path, **kwargs)  # type: ignore[arg-type]


def test_identifiers_stay_text_whatever_they_look_like(tmp_path: Path) -> None:
    frame = _table(tmp_path, "slide,patient,code\n007,1e5,3\n8,12,4\n", text={"code"})
    assert frame["slide"].tolist() == ["007", "8"]
    assert frame["patient"].tolist() == ["1e5", "12"]
    assert frame["code"].tolist() == ["3", "4"]


def test_numbers_are_numbers_only_where_every_value_is_one(tmp_path: Path) -> None:
    frame = _table(
        tmp_path,
        "slide,count,age,grade,code,long\na,1,1.5,3+3,01,12345678901234567\nb,-2,,4,02,1\nc,3,NA,NA,10,2\n",
    )
    assert frame["count"].dtype == np.int64
    assert frame["age"].dtype == np.float64
    assert frame["age"].isna().tolist() == [False, True, True]
    assert frame["grade"].tolist() == ["3+3", "4", None]
    assert frame["code"].tolist() == ["01", "02", "10"]  # leading zeros make a code, not a number
    assert frame["long"].tolist() == ["12345678901234567", "1", "2"]  # a float would change it


def test_none_is_an_answer_and_na_is_not(tmp_path: Path) -> None:
    frame = _table(tmp_path, "slide,metastasis\na,None\nb,N/A\nc,null\n")
    assert frame["metastasis"].tolist() == ["None", None, None]


def test_infinity_is_no_number(tmp_path: Path) -> None:
    assert _table(tmp_path, "slide,x\na,inf\nb,1\n")["x"].tolist() == ["inf", "1"]
    assert _table(tmp_path, "slide,x\na,1e999\nb,1\n")["x"].tolist() == ["1e999", "1"]


def test_truth_values_are_written_one_way(tmp_path: Path) -> None:
    assert _table(tmp_path, "slide,x\na,TRUE\nb,false\nc,\n")["x"].tolist() == ["True", "False", None]


def test_the_index_is_the_row_of_the_spreadsheet(tmp_path: Path) -> None:
    frame = _table(tmp_path, "slide\na\n\nb\n")
    assert frame.index.tolist() == [2, 4]
    assert frame.index.name == "row"


def test_decimal_commas_between_semicolons_are_numbers(tmp_path: Path) -> None:
    frame = _table(tmp_path, "slide;age;mpp;n\na;1,5;0,499;3\nb;20;0,25;4\n")
    assert frame["age"].tolist() == [1.5, 20.0]
    assert frame["mpp"].tolist() == [0.499, 0.25]
    assert frame["n"].dtype == np.int64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('slide,age\na,"1,5"\nb,2\n', "row 2, column 'age': '1,5' has a decimal comma"),
        ("slide;age\na;1.5\nb;2,5\n", "row 3, column 'age'.*others? rows have a point"),
        ("slide;cost\na;1,500\nb;2,250\n", "row 2, column 'cost'.*thousands"),
        ("slide;cost\na;1,500,000\nb;2,25\n", "several commas"),
    ],
)
def test_commas_that_could_mean_two_things_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TableError, match=said.replace("others?", "other")):
        _table(tmp_path, text)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="columns 1 and 3 are both named 'slide'"):
        _table(tmp_path, "slide,patient, slide\na,p,b\n")


def test_a_column_that_only_counts_the_rows_is_left_out(tmp_path: Path) -> None:
    assert list(_table(tmp_path, ",slide\n0,a\n1,b\n")) == ["slide"]
    with pytest.raises(TableError, match="column 2 has values but no name"):
        _table(tmp_path, "slide,,patient\na,x,p\n")


def test_a_header_alone_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no rows"):
        _table(tmp_path, "slide,patient\n")


def test_the_nearest_name_is_found_whatever_the_capitals() -> None:
    assert "Did you mean 'PATIENT_ID'?" in nearest("patient", ["SLIDE", "PATIENT_ID"])
    assert "Did you mean 'case_id'?" in nearest("patient", ["slide_id", "case_id"])
    assert "Did you mean" not in nearest("patient", ["x", "y"])


def test_parquet_reads_like_csv(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "slide": [1, 2, 3],
            "patient": ["007", " p ", "q"],
            "age": [1.5, None, 3.0],
            "label": pd.Categorical(["x", "y", "x"]),
            "flag": [True, False, True],
            "when": pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03"]).date,
        }
    )
    frame.set_index("slide").to_parquet(tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet")
    assert read["slide"].tolist() == ["1", "2", "3"]
    assert read["patient"].tolist() == ["007", "p", "q"]
    assert read["age"].dtype == np.float64
    assert read["label"].tolist() == ["x", "y", "x"]
    assert read["flag"].tolist() == ["True", "False", "True"]
    assert read["when"].tolist()[0] == "2020-01-01"
    assert read.index.tolist() == [2, 3, 4]


def test_an_unnamed_index_in_parquet_is_no_column(tmp_path: Path) -> None:
    pd.DataFrame({"slide": ["a", "b"]}, index=["x", "y"]).to_parquet(tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet")) == ["slide"]


def test_a_damaged_parquet_file_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(TableError, match="parquet"):
        read_table(tmp_path / "t.parquet")
    with pytest.raises(TableError, match="no table"):
        read_table(tmp_path / "none.parquet")


_CELL = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=8)


@given(names=st.lists(_CELL, min_size=1, max_size=6))
def test_text_survives_any_table(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("t") / "t.csv"
    pd.DataFrame({"x": ["k"] * len(names), "slide": names}).to_csv(path, index=False)
    missing = {"NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "<NA>", "#N/A"}
    expected = [None if name in missing else name for name in names]
    assert read_table(path)["slide"].tolist() == expected
