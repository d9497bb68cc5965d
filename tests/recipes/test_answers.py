"""What a run says of new patients: decisions, sets, spread, likeness and covariates, whatever the new table lacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_study import write_study


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, coverslip: Callable[..., Any]) -> Path:
    """A run of 60 patients with an age that tells, a stage with holes, and a covariate that never varies."""
    folder = tmp_path_factory.mktemp("trained")
    study = write_study(folder, 60, age=[50.0, 60.0, None, 61.0, 52.0, 63.0], stage=["I", None, "II"], always=["same"])
    said = coverslip("train", study, "--set", 'cohort.covariates=["age", "stage", "always"]')
    assert said.code == 0, said.err
    return folder


@pytest.fixture
def new(trained: Path, tmp_path: Path) -> Path:
    """Ten patients of two slides each, the last of them like nothing that was seen; the folder of their table."""
    write_study(tmp_path / "new", 10, slides=2, age=[None, 70.0], stage=["IV"], always=["other"])
    path = tmp_path / "new" / "features" / "s009-1.npz"
    np.savez(path, features=np.full((10, 4), 40.0, np.float16))
    table = pd.read_csv(tmp_path / "new" / "cohort.csv")
    table.assign(patient="new-" + table["patient"]).to_csv(tmp_path / "new" / "cohort.csv", index=False)
    return tmp_path / "new"


def _predict(trained: Path, new: Path, coverslip: Callable[..., Any]) -> tuple[pd.DataFrame, dict[str, Any]]:
    said = coverslip(
        *("predict", trained / "run", new / "cohort.csv", "--features", new / "features", "--out", new / "out")
    )
    assert said.code == 0, said.err
    return pd.read_csv(new / "out" / "answers.csv"), json.loads((new / "out" / "answers.json").read_text())


def test_each_patient_has_one_answer_that_the_models_add_up_to(
    trained: Path, new: Path, coverslip: Callable[..., Any]
) -> None:
    table, told = _predict(trained, new, coverslip)
    assert len(table) == 10 and (table["slides"] == 2).all()
    rows = pd.read_csv(new / "out" / "predictions.csv")
    by_model = rows.groupby(["patient", "fold"])["p_1"].mean().unstack()
    assert table["p_1"].to_numpy() == pytest.approx(by_model.mean(axis=1).to_numpy())
    assert table["sd_p_1"].to_numpy() == pytest.approx(by_model.std(axis=1, ddof=1).to_numpy())
    thresholds = []
    for fold in ("fold0", "fold1"):
        kept = json.loads((trained / "run" / "models" / fold / "operating_points.json").read_text())
        thresholds.append(kept["points"]["1"]["youden"]["threshold"])
    assert (table["decision"] == (table["p_1"] >= np.mean(thresholds)).astype(int)).all()
    own = by_model.to_numpy() >= np.array(thresholds)
    assert table["disagreement"].to_numpy() == pytest.approx((own != table[["decision"]].to_numpy()).mean(axis=1))
    points = {point["rule"]: point for point in told["operating_points"]["points"]}
    called, true = table["decision"] == 1, np.arange(10) % 2 == 1
    assert points["youden"]["sensitivity"]["value"] == pytest.approx((called & true).sum() / 5)
    assert points["youden"]["ppv"]["interval"] == "Wilson, 95%"
    assert told["sets"]["calibration"] == 60 and "at least 90%" in told["sets"]["promise"]


def test_a_patient_unlike_all_others_is_flagged_and_the_rate_of_false_alarms_said(
    trained: Path, new: Path, coverslip: Callable[..., Any]
) -> None:
    table, told = _predict(trained, new, coverslip)
    assert table.set_index("patient")["unlike"].to_dict()["new-p009"]
    assert told["unlike"]["flagged"] == table["unlike"].sum() < 5
    assert told["unlike"]["false_alarms"]["high"] is not None


def test_covariates_with_holes_and_new_values_are_answered(
    trained: Path, new: Path, coverslip: Callable[..., Any]
) -> None:
    table, told = _predict(trained, new, coverslip)
    assert np.isfinite(table[["covariates_p_1", "tissue_covariates_p_1"]].to_numpy()).all()
    assert told["covariates"]["unseen"] == {"stage": 10, "always": 10}
    assert "mean of 2 fitted models" in told["covariates"]["tissue_covariates"]["auroc"]["interval"]
    assert told["covariates"]["adds"]["reference"]["method"] == "covariates"


def test_a_table_without_covariates_and_labels_is_answered_all_the_same(
    trained: Path, new: Path, coverslip: Callable[..., Any]
) -> None:
    table = pd.read_csv(new / "cohort.csv")
    table[["slide", "patient", "stage"]].to_csv(new / "cohort.csv", index=False)
    answers, told = _predict(trained, new, coverslip)
    assert told["covariates"]["reason"] == "the table has no column 'age', 'always'"
    assert "decision" in answers and "covariates_p_1" not in answers
    assert told["sets"]["coverage"]["value"] is None
    points = told["operating_points"]["points"]
    assert {point["rule"] for point in points} == {"youden", "sensitivity", "specificity"}
    assert all(point["threshold"] > 0 and point["sensitivity"]["value"] is None for point in points)


def test_a_damaged_likeness_is_named(trained: Path, new: Path, coverslip: Callable[..., Any]) -> None:
    path = trained / "run" / "likeness.npz"
    kept = path.read_bytes()
    path.write_bytes(kept[: len(kept) // 2])
    said = coverslip("predict", trained / "run", new / "cohort.csv", "--features", new / "features")
    path.write_bytes(kept)
    assert said.code == 2 and "likeness.npz cannot be read" in said.err


def test_a_covariate_that_is_not_there_is_told_before_anything_is_trained(
    trained: Path, coverslip: Callable[..., Any]
) -> None:
    for name, words in (("agee", "Did you mean 'age'?"), ("lesion", "is the target")):
        options = ("--set", f'cohort.covariates=["{name}"]', "--set", "output=other")
        said = coverslip("train", trained / "study.toml", *options)
        assert said.code == 2 and words in said.err
    assert not (trained / "other" / "models").exists()


def test_recalibrated_probabilities_are_measured_on_the_new_patients(
    trained: Path, new: Path, coverslip: Callable[..., Any]
) -> None:
    _predict(trained, new, coverslip)
    found = json.loads((new / "out" / "evaluation.json").read_text())
    before, after = (found["recalibration"][key][0] for key in ("before", "after"))
    table = pd.read_csv(new / "out" / "predictions.csv")
    for entry, column in ((before, "p_1"), (after, "calibrated_1")):
        stated = table.groupby("patient")[column].mean()
        known = table.groupby("patient")["lesion"].first()
        assert entry["brier"]["brier"] == pytest.approx(((stated - known) ** 2).mean())
    own = json.loads((trained / "run" / "evaluation.json").read_text())["trust"]
    assert {found["trust"]["probabilities"], own["probabilities"]} == {"recalibrated"}
