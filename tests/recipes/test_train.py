from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch


def _metrics(cohort: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cohort / "run" / "metrics.json").read_text())
    return found


def _rows(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        rows: np.ndarray = file["features"][()].astype(np.float32)
    return rows


@pytest.mark.parametrize("kind", ["pt", "npz"])
def test_features_of_other_tools_train_as_ours_do(kind: str, cohort: Path, coverslip: Callable[..., Any]) -> None:
    theirs = cohort / "theirs"
    theirs.mkdir()
    for path in (cohort / "features").iterdir():
        if kind == "pt":
            torch.save(torch.from_numpy(_rows(path)), theirs / f"{path.stem}.pt")
        else:
            np.savez(theirs / f"{path.stem}.npz", features=_rows(path))
    shutil.rmtree(cohort / "slides")  # training opens no slide
    assert coverslip("train", cohort / "study.toml").code == 0
    ours = (cohort / "run" / "predictions.csv").read_bytes()
    said = coverslip("train", cohort / "study.toml", "--set", "features.store=theirs", "--set", "output=other")
    assert said.code == 0, said.err
    assert (cohort / "other" / "predictions.csv").read_bytes() == ours


def test_all_slides_of_a_patient_can_be_one_bag(cohort: Path, coverslip: Callable[..., Any]) -> None:
    table = pd.read_csv(cohort / "cohort.csv").sort_values(["lesion", "slide"])
    table["patient"] = [f"P{number // 2}" for number in range(len(table))]
    table.to_csv(cohort / "cohort.csv", index=False)
    said = coverslip("train", cohort / "study.toml", "--set", "task.bag=patient")
    assert said.code == 0, said.err
    predictions = pd.read_csv(cohort / "run" / "predictions.csv")
    assert len(predictions) == 12
    assert (predictions.groupby("patient")["p_1"].nunique() == 1).all()
    assert _metrics(cohort)["counts"]["patients"] == 6


def test_repeats_test_every_patient_again_and_have_no_pooled_numbers(
    cohort: Path, coverslip: Callable[..., Any]
) -> None:
    assert coverslip("train", cohort / "study.toml", "--set", "split.repeats=2").code == 0
    predictions = pd.read_csv(cohort / "run" / "predictions.csv")
    assert (predictions["slide"].value_counts() == 2).all()
    assert sorted(predictions["repeat"].unique()) == [0, 1]
    metrics = _metrics(cohort)
    assert len(metrics["folds"]) == 6
    assert metrics["pooled"] is None
    assert metrics["primary"]["auroc"]["value"] is not None


def test_fewer_folds_leave_no_old_model_behind(cohort: Path, coverslip: Callable[..., Any]) -> None:
    assert coverslip("train", cohort / "study.toml").code == 0
    assert coverslip("train", cohort / "study.toml", "--set", "split.folds=2").code == 0
    assert sorted(path.name for path in (cohort / "run" / "models").iterdir()) == ["fold0", "fold1"]
    assert set(pd.read_csv(cohort / "run" / "predictions.csv")["fold"]) == {0, 1}


def test_classes_can_be_grouped_and_rows_filtered(cohort: Path, coverslip: Callable[..., Any]) -> None:
    table = pd.read_csv(cohort / "cohort.csv")
    table["stage"] = ["I", "II", "III"] * 4
    table.to_csv(cohort / "cohort.csv", index=False)
    said = coverslip(
        *("train", cohort / "study.toml", "--set", "task.column=stage", "--set", "split.folds=2"),
        *("--set", 'cohort.classes={early=["I"], late=["II", "III"]}', "--set", "cohort.filter=\"slide != 'case-12'\""),
    )
    assert said.code == 0, said.err
    assert _metrics(cohort)["counts"] == {"patients": 11, "slides": 11, "classes": {"early": 4, "late": 7}}


# Folds that were made elsewhere: CSV files that name slides.


def _folds(cohort: Path, *, test: list[slice]) -> list[str]:
    slides = pd.read_csv(cohort / "cohort.csv").sort_values("lesion")["slide"].tolist()
    slides = [slide for pair in zip(slides[:6], slides[6:]) for slide in pair]  # one of each class in turn
    (cohort / "splits").mkdir()
    for number, part in enumerate(test):
        rest = [slide for slide in slides if slide not in slides[part]]
        columns = {"train": rest[2:], "val": rest[:2], "test": slides[part]}
        frame = pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})
        frame.to_csv(cohort / "splits" / f"splits_{number}.csv")
    return slides


def test_foreign_folds_are_used_as_they_are(cohort: Path, coverslip: Callable[..., Any]) -> None:
    slides = _folds(cohort, test=[slice(0, 4), slice(4, 8)])
    said = coverslip("train", cohort / "study.toml", "--set", "split.file=splits")
    assert said.code == 0, said.err
    predictions = pd.read_csv(cohort / "run" / "predictions.csv")
    assert sorted(predictions[predictions["fold"] == 0]["slide"]) == sorted(slides[:4])
    assert sorted(predictions[predictions["fold"] == 1]["slide"]) == sorted(slides[4:8])


def test_a_leaking_patient_is_named_and_stops_the_run(cohort: Path, coverslip: Callable[..., Any]) -> None:
    slides = _folds(cohort, test=[slice(0, 4), slice(4, 8)])
    table = pd.read_csv(cohort / "cohort.csv").set_index("slide")
    table.loc[[slides[0], slides[6]], "patient"] = "Torn, Tom"
    table.reset_index().to_csv(cohort / "cohort.csv", index=False)
    for command in ("train", "run"):
        said = coverslip(command, cohort / "study.toml", "--set", "split.file=splits")
        assert said.code == 2
        assert "Torn, Tom (fold 0: train and test, fold 1: tune and test)" in said.err
        assert "split.allow_leaks = true" in said.err
        assert not (cohort / "run" / "predictions.csv").exists()


def test_an_allowed_leak_is_red_in_the_report(cohort: Path, coverslip: Callable[..., Any]) -> None:
    slides = _folds(cohort, test=[slice(0, 4), slice(4, 8)])
    table = pd.read_csv(cohort / "cohort.csv").set_index("slide")
    table.loc[[slides[0], slides[6]], "patient"] = "Torn-Tom"
    table.reset_index().to_csv(cohort / "cohort.csv", index=False)
    options = ("--set", "split.file=splits", "--set", "split.allow_leaks=true", "--set", "heatmaps.slides=none")
    said = coverslip("run", cohort / "study.toml", *options)
    assert said.code == 0, said.err
    assert any(w.startswith("LEAK.") and "Torn-Tom" in w for w in _metrics(cohort)["warnings"])
    html = (cohort / "run" / "report.html").read_text()
    warnings = html[html.index('id="run-1-warnings"') : html.index('id="run-1-cohort"')]
    assert "Torn-Tom" in warnings
    assert "leak" in warnings


def test_a_slide_may_be_tested_in_several_folds(cohort: Path, coverslip: Callable[..., Any]) -> None:
    _folds(cohort, test=[slice(0, 4), slice(2, 6)])
    said = coverslip("train", cohort / "study.toml", "--set", "split.file=splits")
    assert said.code == 0, said.err
    assert "tested in more than one fold" in said.out


def test_listed_slides_without_features_are_dropped_and_counted(cohort: Path, coverslip: Callable[..., Any]) -> None:
    slides = _folds(cohort, test=[slice(0, 4), slice(4, 8)])
    (cohort / "features" / f"{slides[1]}.h5").unlink()
    said = coverslip("train", cohort / "study.toml", "--set", "split.file=splits")
    assert said.code == 0, said.err
    assert f"1 of 12 listed names are not among the slides with a target and are left out: {slides[1]}" in said.out
