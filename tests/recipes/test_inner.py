"""Inner out-of-fold predictions: every training patient once, by a model that has not seen them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coverslip.recipes import inner as recipe
from coverslip.store import Run
from feature_study import write_study


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_every_training_patient_is_predicted_once_by_a_model_that_has_not_seen_them(
    tmp_path: Path, coverslip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, 24, slides=2)
    seen: list[tuple[set[str], set[str]]] = []
    fit = recipe.fit_fold

    def watched(study: Any, data: Any, fold: Any, **more: Any) -> Any:
        seen.append(({s[:4] for s in (*fold.train, *fold.tune)}, {s[:4] for s in fold.test}))
        return fit(study, data, fold, **more)

    monkeypatch.setattr(recipe, "fit_fold", watched)
    assert coverslip("train", study).code == 0
    assert len(seen) == 4 and all(not learnt & tested for learnt, tested in seen)
    run = Run.open(tmp_path / "run")
    for fold in run.split.folds:
        table = pd.read_csv(run.files.model(fold.name) / "inner.csv")
        assert sorted(table["slide"]) == sorted((*fold.train, *fold.tune))
        assert (table.groupby("patient")["fold"].nunique() == 1).all()
        assert not set(table["slide"]) & set(fold.test)
    assert not list((tmp_path / "run").glob("models/*/inner/*"))


def test_what_was_predicted_is_used_again_and_what_a_kill_left_is_gone_on_with(
    tmp_path: Path, coverslip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, 24)
    fit, trained = recipe.fit_fold, []

    def counted(study: Any, data: Any, fold: Any, **more: Any) -> Any:
        trained.append(fold.label)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return fit(study, data, fold, **more)

    monkeypatch.setattr(recipe, "fit_fold", counted)
    assert coverslip("train", study).code == 130
    assert coverslip("train", study).code == 0
    assert len(trained) == 3 + 2  # the third was stopped; it and the fourth are trained again
    assert coverslip("train", study).code == 0
    assert len(trained) == 5
    assert coverslip("train", study, "--set", "fit.fixed_epochs=3").code == 0
    assert len(trained) == 9


def test_without_inner_folds_nothing_is_kept_of_them(tmp_path: Path, coverslip: Callable[..., Any]) -> None:
    study = write_study(tmp_path, 24)
    assert coverslip("train", study).code == 0
    assert coverslip("train", study, "--set", "evaluation.inner_folds=0").code == 0
    names = {path.name for path in (tmp_path / "run" / "models" / "fold0").iterdir()}
    assert names == {"weights.safetensors", "model.json", "made_from.json", "baseline.json"}
    metrics = _json(tmp_path / "run" / "metrics.json")
    assert metrics["operating_points"] == {"points": [], "reason": "no inner folds"}
    assert "calibrated_1" not in pd.read_csv(tmp_path / "run" / "predictions.csv")


def test_one_inner_fold_is_refused(tmp_path: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("train", write_study(tmp_path, 8), "--set", "evaluation.inner_folds=1")
    assert said.code == 2
    assert "inner_folds" in said.err


def test_too_few_patients_for_inner_folds_is_a_reason_and_no_crash(
    tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    study = write_study(tmp_path, 5, age=[50.0, None, 70.0])
    said = coverslip("train", study, "--set", 'cohort.covariates=["age"]')
    assert said.code == 0, said.err
    metrics = _json(tmp_path / "run" / "metrics.json")
    assert "too few" in metrics["inner"]["without"]["fold0"]
    assert metrics["operating_points"]["points"] == []
    assert "tissue_covariates" not in metrics["covariates"]
    assert "could not be computed" in metrics["covariates"]["sentence"]
    block = _json(tmp_path / "run" / "evaluation.json")["recalibration"]
    assert block["folds"][0]["of"]["lesion"]["method"] == "none"
    assert block["before"] == block["after"]
    said = coverslip("predict", tmp_path / "run", tmp_path / "cohort.csv", "--features", tmp_path / "features")
    assert said.code == 0, said.err
    table = pd.read_csv(tmp_path / "run" / "external" / "cohort" / "answers.csv")
    assert (table["prediction_set"] == "0; 1").all()  # under 19 of each class: no class can be left out
    assert (table["p_1"] == table["calibrated_1"]).all()


def test_an_inner_model_that_cannot_be_trained_is_a_reason(
    tmp_path: Path, coverslip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **more: Any) -> Any:
        raise recipe.CoverslipError("the loss is not a finite number")

    monkeypatch.setattr(recipe, "fit_fold", fail)
    assert coverslip("train", write_study(tmp_path, 24)).code == 0
    metrics = _json(tmp_path / "run" / "metrics.json")
    assert metrics["inner"]["without"]["fold1"] == "fold1, inner 1: the loss is not a finite number"
    assert not list((tmp_path / "run").glob("models/*/inner*"))
