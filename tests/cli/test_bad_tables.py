"""Tables and labels that cannot be used: one message that names row and column, and nothing is begun."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

Change = Callable[[pd.DataFrame], pd.DataFrame]


def _twice(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.iloc[:1]])


def _two_outcomes(table: pd.DataFrame) -> pd.DataFrame:
    table.loc[:1, "patient"] = "patient-01"
    table.loc[:1, "lesion"] = [0, 1]
    return table


def _path(text: str) -> Change:
    return lambda table: table.assign(path=[text, *table["path"][1:]])


REFUSED: dict[str, tuple[Change, list[str]]] = {
    "row twice": (_twice, ["rows 2, 14", "'case-01'", "Keep one row a slide"]),
    "same path": (_path("slides/case-02.tif"), ["rows 2, 3", "slides/case-02.tif", "Keep one row a slide"]),
    "two outcomes": (_two_outcomes, ["'patient-01'", "'0' (row 2)", "'1' (row 3)", "task.level = 'slide'"]),
    "no label column": (
        lambda table: table.rename(columns={"lesion": "Lesions"}),
        ["no column 'lesion'", "Did you mean 'Lesions'?", "task.column"],
    ),
    "constant label": (lambda table: table.assign(lesion=1), ["'lesion' is constant", "'1'", "at least two classes"]),
    "NaN label": (lambda table: table.assign(lesion=np.nan), ["'lesion' has no value", "12 rows", "task.column"]),
    "measurements": (
        lambda table: table.assign(lesion=np.linspace(0, 1, 12)),
        ["measurements (such as 0.0909091)", "cohort.classes"],
    ),
    "one-class fold": (
        lambda table: table.assign(lesion=[1] + [0] * 11),
        ["3 folds need 3 patients of each class", "'1' has 1", "add patients"],
    ),
    "few patients": (lambda table: table.iloc[:2].assign(lesion=[0, 1]), ["2 patients cannot fill 3 folds"]),
    "out of root": (
        _path("../elsewhere/a.tif"),
        ["row 2, column 'path'", "'../elsewhere/a.tif' leaves", "cohort.root"],
    ),
    "absolute": (_path("/etc/passwd"), ["row 2, column 'path'", "'/etc/passwd' leaves", "cohort.root"]),
    "slide is a path": (
        lambda table: table.assign(slide=["../a", *table["slide"][1:]]),
        ["row 2, column 'slide'", "'../a'", "Use letters"],
    ),
    "no patient": (
        lambda table: table.assign(patient=["", *table["patient"][1:]]),
        ["row 2", "'patient' is empty", "Every slide belongs to a patient"],
    ),
    "mixed stains": (
        lambda table: table.assign(stain=["HE", "IHC"] * 6),
        ["mixes values of 'stain'", "'HE' (6)", "cohort.allow_mixed"],
    ),
}


@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize("case", list(REFUSED))
def test_a_wrong_table_is_refused_before_anything_is_done(
    case: str, command: str, cohort: Path, coverslip: Callable[..., Any]
) -> None:
    change, words = REFUSED[case]
    change(pd.read_csv(cohort / "cohort.csv")).to_csv(cohort / "cohort.csv", index=False)
    said = coverslip(command, cohort / "study.toml")
    assert said.code == 2
    assert said.out == ""
    if case not in ("one-class fold", "few patients") or command == "run":
        assert said.err.count("\n") == 1, said.err  # one message, and no progress: nothing was begun
        assert not (cohort / "run").exists()
    for word in words:
        assert word in said.err


def test_the_mended_table_goes_on_with_what_was_finished(cohort: Path, coverslip: Callable[..., Any]) -> None:
    good = (cohort / "cohort.csv").read_text()
    assert coverslip("train", cohort / "study.toml").code == 0
    predictions = (cohort / "run" / "predictions.csv").read_bytes()
    settings = (cohort / "run" / "settings.toml").read_bytes()
    pd.read_csv(cohort / "cohort.csv").assign(lesion=1).to_csv(cohort / "cohort.csv", index=False)
    refused = coverslip("train", cohort / "study.toml", "--set", "fit.epochs=7")
    assert refused.code == 2
    # What stood there still belongs together.
    assert (cohort / "run" / "predictions.csv").read_bytes() == predictions
    assert (cohort / "run" / "settings.toml").read_bytes() == settings
    (cohort / "cohort.csv").write_text(good)
    assert coverslip("train", cohort / "study.toml").code == 0
    assert (cohort / "run" / "predictions.csv").read_bytes() == predictions
    assert (cohort / "run" / "run.log").read_text().count("reused") == 3


def test_rows_without_a_label_are_counted_and_left_out(cohort: Path, coverslip: Callable[..., Any]) -> None:
    table = pd.read_csv(cohort / "cohort.csv")
    table["lesion"] = table["lesion"].astype(object).where(table.index != 4, "NaN")
    table.to_csv(cohort / "cohort.csv", index=False)
    assert coverslip("train", cohort / "study.toml").code == 0
    predictions = pd.read_csv(cohort / "run" / "predictions.csv")
    assert set(table["slide"]) - set(predictions["slide"]) == {"case-05"}
    excluded = json.loads((cohort / "run" / "cohort.json").read_text())["exclusions"]
    assert excluded == [{"slide": "case-05", "reason": "no value in 'lesion'"}]


def test_a_patient_with_two_outcomes_is_no_mistake_at_slide_level(cohort: Path, coverslip: Callable[..., Any]) -> None:
    _two_outcomes(pd.read_csv(cohort / "cohort.csv")).to_csv(cohort / "cohort.csv", index=False)
    assert coverslip("train", cohort / "study.toml", "--set", "task.level=slide").code == 0
    metrics = json.loads((cohort / "run" / "metrics.json").read_text())
    assert metrics["level"] == "slide"
    assert metrics["counts"]["slides"] == 12
    predictions = pd.read_csv(cohort / "run" / "predictions.csv")
    assert predictions[predictions["patient"] == "patient-01"]["fold"].nunique() == 1


@pytest.mark.parametrize("form", ["BOM", "semicolons", "tabs", "spaces", "parquet", "CRLF"])
def test_a_table_may_be_written_as_people_write_tables(
    form: str, finished: Path, cohort: Path, coverslip: Callable[..., Any]
) -> None:
    table = cohort / "cohort.csv"
    text = table.read_text()
    if form == "parquet":
        table = cohort / "cohort.parquet"
        pd.read_csv(cohort / "cohort.csv").to_parquet(table)
    elif form == "BOM":
        table.write_bytes(b"\xef\xbb\xbf" + text.encode())
    else:
        new = {"semicolons": ";", "tabs": "\t", "spaces": " , ", "CRLF": ","}[form]
        table.write_text(text.replace(",", new).replace("\n", "\r\n" if form == "CRLF" else "\n"), newline="")
    said = coverslip("train", cohort / "study.toml", "--set", f"cohort.table={table.name}")
    assert said.code == 0, said.err
    assert len(pd.read_csv(cohort / "run" / "predictions.csv")) == 12


def test_a_cohort_may_lie_below_a_folder_with_any_name(cohort: Path, coverslip: Callable[..., Any]) -> None:
    folder = cohort.rename(cohort.parent / "Größe [neu] µ 1")
    said = coverslip("train", folder / "study.toml")
    assert said.code == 0, said.err
    assert f"run  {folder / 'run'}" in said.out


def test_a_table_that_is_not_there_or_no_table_is_refused(cohort: Path, coverslip: Callable[..., Any]) -> None:
    study = cohort / "study.toml"
    said = coverslip("run", study, "--set", "cohort.table=gone.csv")
    assert said.code == 2
    assert f"There is no table {cohort / 'gone.csv'}" in said.err
    (cohort / "book.csv").write_bytes(b"PK\x03\x04" + bytes(100))
    said = coverslip("run", study, "--set", "cohort.table=book.csv")
    assert said.code == 2
    assert "workbook" in said.err and "CSV UTF-8" in said.err
    said = coverslip("run", study, "--set", "cohort.table=slides")
    assert said.code == 2
    assert "is a folder" in said.err
