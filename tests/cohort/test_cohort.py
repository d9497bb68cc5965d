from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coverslip.base.errors import SettingsError, TableError
from coverslip.cohort import Cohort

PLAIN = "slide,patient,path,site,mpp,age,grade\na,007,s/a.svs,x,0.5,40,1\nb,007,s/b.svs,y,,NA,high\n"


def test_a_cohort_has_one_row_a_slide_with_typed_columns(load: Any, tmp_path: Path) -> None:
    cohort = load(PLAIN, need_paths=True)
    frame = cohort.frame
    assert list(frame) == ["slide", "patient", "path", "mpp", "site", "age", "grade"]
    assert frame["patient"].tolist() == ["007", "007"]
    assert frame["path"].tolist() == [str(tmp_path / "s/a.svs"), str(tmp_path / "s/b.svs")]
    assert frame["mpp"].dtype == np.float64
    assert frame["mpp"].isna().tolist() == [False, True]
    assert frame["age"].dtype == np.float64
    assert frame["grade"].tolist() == ["1", "high"]
    assert frame.index.tolist() == [2, 3]
    assert cohort.patient_of == {"a": "007", "b": "007"}
    assert cohort.exclusions == ()


def test_bom_semicolons_spaces_and_accents_load_the_same_cohort(load: Any) -> None:
    plain = load("slide,patient,note\nä,p 1,x\nb,p2,y\n")
    odd = load(" slide ; patient;note \n ä ;p 1; x\nb;p2 ;y\n", encoding="utf-8-sig")
    assert odd.frame.equals(plain.frame)
    assert odd.digest == plain.digest


def test_the_digest_is_of_content_not_of_place_or_order(load: Any) -> None:
    one = load("slide,patient,path,y\na,p,a.svs,1\nb,q,b.svs,0\n")
    other = load("patient,slide,y,path\nq,b,0,moved/b.svs\np,a,1,moved/a.svs\n")
    changed = load("slide,patient,path,y\na,p,a.svs,1\nb,q,b.svs,1\n")
    assert one.digest == other.digest != changed.digest


def test_a_root_that_holds_no_slide_is_told_where_the_table_lies_beside_them(load: Any, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "b.svs").touch()
    (tmp_path / "elsewhere").mkdir()
    elsewhere = str(tmp_path / "elsewhere")
    with pytest.raises(TableError, match=f"none of its 2 slides lies under cohort.root, {elsewhere}; .* {tmp_path}"):
        load(PLAIN, need_paths=True, root=elsewhere)
    # Nobody opens a slide; and one slide under the root says that the root is right.
    assert len(load(PLAIN, root=elsewhere).frame) == 2
    (tmp_path / "elsewhere" / "s").mkdir()
    (tmp_path / "elsewhere" / "s" / "a.svs").touch()
    assert len(load(PLAIN, need_paths=True, root=elsewhere).frame) == 2


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("slide,case_id\na,p\n", "no column 'patient'.*Did you mean 'case_id'"),
        ("Slide,patient\na,p\n", "no column 'slide'.*Did you mean 'Slide'"),
        ("slide,patient\na,p\nb,\nc,NA\n", "rows 3, 4: column 'patient' is empty"),
        ("slide,patient\na,p\n,q\n", "row 3: column 'slide' is empty"),
        ("slide,patient\na/b,p\n", "row 2, column 'slide': 'a/b' cannot be the name of a file"),
        ("slide,patient\na,p\nb,q\na,p\n", "rows 2, 4: slide 'a' stands there more than once"),
        ("slide,patient\na,p\nb,q\na,q\n", "rows 2, 4: slide 'a'.*with the patients 'p', 'q'"),
        ("slide,patient\na,p\nA,q\n", "rows 2, 3: the slides 'a', 'A' differ in capitals"),
        ("slide,patient,path\na,p,x.svs\nb,q,x.svs\n", "rows 2, 3: two slides have the same path"),
        ("slide,patient,path\na,p,../x.svs\n", "row 2, column 'path': the path '../x.svs' leaves"),
        ("slide,patient,path\na,p,s/../../x.svs\n", "leaves"),
        ("slide,patient,path\na,p,/etc/passwd\n", "leaves"),
        ("slide,patient\n" + "a" * 201 + ",p\n", "row 2, column 'slide': 'aaa.* is longer than 200 bytes"),
        ('slide,patient,path\na,p,"x\n.svs"\n', "row 2, column 'path'.*control character"),
        ("slide,patient,path\na,p,x\0.svs\n", "row 2, column 'path'.*control character"),
        ("slide,patient,path\na,p,x.svs\nb,q,\n", "row 3: column 'path' is empty"),
        ("slide,patient\na,p\n", "no column 'path'"),
    ],
)
def test_a_wrong_table_is_named_with_row_and_column(load: Any, table: str, said: str) -> None:
    with pytest.raises(TableError, match=said):
        load(table, need_paths="path" in table or table == "slide,patient\na,p\n")


@pytest.mark.skipif(os.sep != "/", reason="backslashes separate folders on Windows")
def test_windows_paths_are_refused_with_the_way_out(load: Any) -> None:
    with pytest.raises(TableError, match=r"backslashes.*Write paths with '/'"):
        load("slide,patient,path\na,p,s\\a.svs\n")


@pytest.mark.parametrize("mpp", ["0", "-0.5", "NaN", "nan", "inf", "50", "0.01", "half", "0.5 um", "NA"])
def test_an_impossible_mpp_names_row_value_and_range(load: Any, mpp: str) -> None:
    with pytest.raises(TableError, match=r"row 3, column 'mpp'.*0\.05 to 20") as error:
        load(f"slide,patient,mpp\na,p,0.25\nb,q,{mpp}\n")
    assert mpp in str(error.value)


def test_slides_without_a_name_are_named_by_their_files(load: Any, tmp_path: Path) -> None:
    (tmp_path / "series.1").mkdir()
    cohort = load("patient,path\np,x/a.b.svs\nq,series.1\n")
    assert cohort.slides == ("a.b", "series.1")
    assert "named by their files" in cohort.warnings[0]


def test_a_non_ascii_path_is_just_a_path(load: Any, tmp_path: Path) -> None:
    assert load("slide,patient,path\na,p,bücher/ß é.svs\n").frame["path"].iloc[0] == str(tmp_path / "bücher/ß é.svs")


# The clinical table


def test_a_clinical_table_joins_on_the_patient_as_text(load: Any) -> None:
    cohort = load(
        "slide,patient\na,007\nb,007\nc,8\nd,9\n", clinical="patient,age,os\n007,40,\n8,50,3\n8,50,3\n7,1,1\n"
    )
    assert cohort.frame["age"].tolist()[:3] == [40.0, 40.0, 50.0]
    assert cohort.frame["age"].isna().tolist() == [False, False, False, True]
    assert cohort.warnings == ("1 of 3 patient values have no row in clinical.csv: 9.",)
    assert cohort.slides == ("a", "b", "c", "d")


def test_the_clinical_table_can_join_on_another_column(load: Any) -> None:
    cohort = load("slide,patient,case\na,p,01\nb,q,1\n", clinical="case,age\n01,5\n1,6\n", on="case")
    assert cohort.frame["age"].tolist() == [5, 6]


@pytest.mark.parametrize(
    ("clinical", "said"),
    [
        ("patient,age\np,1\nq,2\np,3\n", "clinical.csv, rows 2, 4: patient 'p' has several rows that differ in 'age'"),
        ("patient,site\np,1\n", "both have the column 'site'"),
        ("case,age\np,1\n", "clinical.csv has no column 'patient'.*Did you mean 'case'"),
        ("patient,age\n,1\np,2\n", "clinical.csv, row 2: column 'patient' is empty"),
        ("patient,age\np-01,1\n", r"such as p.*stands in clinical.csv \(such as p-01\)"),
    ],
)
def test_a_clinical_table_that_does_not_fit_is_refused(load: Any, clinical: str, said: str) -> None:
    with pytest.raises(TableError, match=said):
        load("slide,patient,site\na,p,x\n", clinical=clinical)


def test_nothing_is_shortened_to_make_a_join(load: Any) -> None:
    with pytest.raises(TableError, match="letter by letter"):
        load("slide,patient\na,TCGA-3C-AALI-01Z\n", clinical="patient,age\nTCGA-3C-AALI,1\n")


# Filter and mixing


def test_the_filter_leaves_out_and_counts(load: Any) -> None:
    cohort = load("slide,patient,stage\na,p,I\nb,q,IV\nc,r,\n", filter="stage != 'IV'")
    assert cohort.slides == ("a",)
    assert [(e.slide, e.reason) for e in cohort.exclusions] == [
        ("b", "left out by cohort.filter"),
        ("c", "a value that cohort.filter needs is missing"),
    ]


def test_the_filter_sees_clinical_columns(load: Any) -> None:
    cohort = load("slide,patient\na,p\nb,q\n", clinical="patient,age\np,10\nq,20\n", filter="age >= 18")
    assert cohort.slides == ("b",)


def test_the_filter_is_a_way_out_of_a_doubled_slide(load: Any) -> None:
    assert load("slide,patient,scan\na,p,1\na,p,2\n", filter="scan == 2").slides == ("a",)


def test_a_filter_that_keeps_nothing_is_told(load: Any) -> None:
    with pytest.raises(TableError, match=r"keeps none of the 2 rows.*\(1 for want"):
        load("slide,patient,age\na,p,1\nb,q,\n", filter="age > 5")
    with pytest.raises(SettingsError, match="Did you mean 'age'"):
        load("slide,patient,age\na,p,1\n", filter="aeg > 5")


@pytest.mark.parametrize("column", ["stain", "preparation"])
def test_mixing_is_refused_unless_asked_for(load: Any, column: str) -> None:
    table = f"slide,patient,{column}\na,p,X\nb,q,X\nc,r,Y\n"
    with pytest.raises(TableError, match=rf"'X' \(2\), 'Y' \(1\).*{column} == 'X'.*allow_mixed = \[\"{column}\"\]"):
        load(table)
    assert len(load(table, allow_mixed=[column]).slides) == 3
    assert load(table, filter=f"{column} == 'X'").slides == ("a", "b")


def test_slides_of_unknown_stain_are_counted(load: Any) -> None:
    assert load("slide,patient,stain\na,p,X\nb,q,\n").warnings == ("1 of 2 slides have no 'stain' in cohort.csv.",)


def test_slides_can_be_left_out_later_with_a_reason(load: Any) -> None:
    cohort: Cohort = load(PLAIN)
    less = cohort.without({"a": "truncated", "zzz": "not here"})
    assert less.slides == ("b",)
    assert [(e.slide, e.reason) for e in less.exclusions] == [("a", "truncated")]
    assert less.digest != cohort.digest
    assert cohort.slides == ("a", "b")
