from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import coverslip as cs
from coverslip.cohort import Fold, Split
from coverslip.recipes.predict import unseen
from coverslip.synthetic import make_cohort


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slides that the run has not seen."""
    folder = tmp_path_factory.mktemp("new")
    make_cohort(folder, slides=4, damaged=0, side_px=512, seed=7)
    table = pd.read_csv(folder / "cohort.csv")
    table.assign(slide="new-" + table["slide"], patient="new-" + table["patient"]).to_csv(
        folder / "cohort.csv", index=False
    )
    return folder


def test_new_slides_are_embedded_predicted_and_measured(
    finished: Path, new: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    said = coverslip("predict", finished / "run", new / "cohort.csv", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert f"predictions  {tmp_path / 'out' / 'predictions.csv'}" in said.out
    predictions = pd.read_csv(tmp_path / "out" / "predictions.csv")
    columns = ["slide", "patient", "fold", "set", "lesion", "p_0", "p_1", "calibrated_0", "calibrated_1"]
    assert list(predictions) == columns
    assert set(predictions["set"]) == {"external"}
    assert (predictions["slide"].value_counts() == 3).all()  # one row a fold's model
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["external"]["counts"] == {"patients": 4, "slides": 4, "classes": {"0": 2, "1": 2}}
    auroc = metrics["external"]["auroc"]
    assert "mean of 3 fitted models" in auroc["interval"]
    assert f"external auroc  {auroc['value']:.3f} (" in said.out
    assert "–" not in said.out
    # The same again from the feature files alone.
    again = tmp_path / "again"
    said = coverslip(
        *("predict", finished / "run", new / "cohort.csv", "--features", tmp_path / "out" / "features", "--out", again)
    )
    assert said.code == 0, said.err
    assert (again / "predictions.csv").read_bytes() == (tmp_path / "out" / "predictions.csv").read_bytes()


def test_a_new_slide_that_cannot_be_read_is_named(
    finished: Path, new: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    folder = tmp_path / "new"
    shutil.copytree(new, folder)
    (folder / "slides" / "case-02.tif").write_text("no slide")
    said = coverslip("predict", finished / "run", folder / "cohort.csv", "--out", tmp_path / "out")
    assert said.code == 1
    assert "failed\tnew-case-02\tNo reader knows this file" in said.err
    assert pd.read_csv(tmp_path / "out" / "predictions.csv")["slide"].nunique() == 3


def test_a_table_without_labels_gets_predictions_and_no_metrics(
    finished: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    table = tmp_path / "new.csv"
    pd.read_csv(finished / "cohort.csv")[["slide", "patient"]].iloc[:3].to_csv(table, index=False)
    said = coverslip(
        *("predict", finished / "run", table, "--features", finished / "features", "--out", tmp_path / "out")
    )
    assert said.code == 0, said.err
    predictions = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(predictions) == ["slide", "patient", "fold", "set", "p_0", "p_1", "calibrated_0", "calibrated_1"]
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_patients_that_the_run_has_learnt_from_are_told(
    finished: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    said = coverslip(
        *("predict", finished / "run", finished / "cohort.csv", "--features", finished / "features"),
        *("--out", tmp_path / "out"),
    )
    assert said.code == 1  # case-13 has no features
    assert "failed\tcase-13\t" in said.err
    warnings = " ".join(json.loads((tmp_path / "out" / "metrics.json").read_text())["warnings"])
    assert "Patients of the new cohort that the training cohort has too: 12. patient-01" in warnings


def test_features_of_another_encoder_are_refused(finished: Path, tmp_path: Path, coverslip: Callable[..., Any]) -> None:
    table = tmp_path / "new.csv"
    table.write_text("slide,patient,lesion\na,p,0\nb,q,1\n")
    for slide in "ab":
        np.savez(tmp_path / f"{slide}.npz", features=np.ones((5, 32), np.float32))
    said = coverslip("predict", finished / "run", table, "--features", tmp_path, "--out", tmp_path / "out")
    assert said.code == 2
    assert "32" in said.err and "137" in said.err
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_features_of_other_tiles_are_refused(
    finished: Path, cohort: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    options = ("--set", "features.store=larger", "--set", "tiles.size_px=96")
    assert coverslip("embed", cohort / "study.toml", *options).code == 0
    said = coverslip(
        *("predict", finished / "run", cohort / "cohort.csv", "--features", cohort / "larger"),
        *("--out", tmp_path / "out"),
    )
    assert said.code == 2
    assert "96" in said.err and "64" in said.err


def test_the_run_itself_is_never_written_over(finished: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("predict", finished / "run", finished / "cohort.csv", "--out", finished / "run")
    assert said.code == 2
    assert "the run's own folder" in said.err


@pytest.mark.parametrize("missing", ["features", "table"])
def test_what_is_not_there_is_named(
    missing: str, finished: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    table = tmp_path / "gone.csv" if missing == "table" else finished / "cohort.csv"
    features = tmp_path / "gone" if missing == "features" else finished / "features"
    said = coverslip("predict", finished / "run", table, "--features", features, "--out", tmp_path / "out")
    assert said.code == 2
    assert str(tmp_path / "gone") in said.err


def test_a_slide_of_the_run_is_predicted_in_python_by_the_fold_that_tested_it(finished: Path) -> None:
    run = cs.Run.open(finished / "run")
    bag = cs.read_features(finished / "features" / "case-04.h5")
    predicted = cs.predict(run, bag)
    row = run.predictions.set_index("slide").loc["case-04"]
    assert predicted["patient"].unique().tolist() == [row["patient"]]
    assert row["p_1"] in predicted["p_1"].round(9).tolist() or np.isclose(predicted["p_1"], row["p_1"]).any()


def _unseen(split: Split, slide: str) -> list[str]:
    return [fold.name for fold in unseen(split, slide)]


def test_a_slide_is_seen_by_the_models_that_did_not_learn_from_its_patient() -> None:
    folds = (
        Fold(0, 0, ("a", "b"), ("c",), ("d",)),
        Fold(1, 0, ("c", "d"), ("b",), ("a",)),
        Fold(2, 0, ("a", "d"), ("b",), ("c",)),
    )
    split = Split(folds, {slide: slide.upper() for slide in "abcd"}, "by hand")
    assert _unseen(split, "a") == ["fold1"]
    assert _unseen(split, "d") == ["fold0"]
    assert _unseen(split, "new") == ["fold0", "fold1", "fold2"]
    leaking = Split((Fold(0, 0, ("a", "b"), (), ("a",)), Fold(1, 0, ("a", "b"), (), ("b",))), split.patients, "x")
    assert _unseen(leaking, "a") == ["fold0"]
