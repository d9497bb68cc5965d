from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

GOOD = [f"case-{number:02d}" for number in range(1, 13)]


def test_the_damaged_slide_is_named_and_everything_else_is_finished(finished: Path) -> None:
    run = finished / "run"
    outcomes = pd.read_csv(run / "outcomes.csv")
    assert list(outcomes) == ["slide", "stage", "status", "reason", "seconds"]
    failed = outcomes[outcomes["status"] == "failed"]
    assert failed[["slide", "stage"]].values.tolist() == [["case-13", "check"]]
    assert "cut short" in failed["reason"].item()
    embedded = outcomes[outcomes["stage"] == "embed"]
    assert sorted(embedded["slide"]) == GOOD  # in the order in which they were finished
    assert set(embedded["status"]) == {"done"}
    assert {path.name for path in (finished / "features").iterdir()} == {f"{slide}.h5" for slide in GOOD}
    log = (run / "run.log").read_text()
    assert log.index("run begins") < log.index("case-13 fails") < log.index("fold0 trained") < log.index("run done")


def test_the_run_folder_holds_what_the_interface_promises(finished: Path) -> None:
    run = finished / "run"
    for name in ("settings.toml", "split.json", "predictions.csv", "metrics.json", "outcomes.csv", "run.log"):
        assert (run / name).is_file(), name
    for name in ("check.json", "evaluation.json", "environment.json", "report.html"):
        assert (run / name).is_file(), name
    assert sorted(path.name for path in (run / "models").iterdir()) == ["fold0", "fold1", "fold2"]
    for model in (run / "models").iterdir():
        assert {"weights.safetensors", "model.json"} <= {path.name for path in model.iterdir()}
    maps = sorted(path.stem for path in (run / "heatmaps").glob("*.png"))
    assert len(maps) == 2
    for slide in maps:
        frame = pd.read_parquet(run / "heatmaps" / f"{slide}.parquet")
        assert {"x", "y", "span", "score", "kind"} <= set(frame)
        assert json.loads((run / "heatmaps" / f"{slide}.geojson").read_text())["type"] == "FeatureCollection"
        assert len(list((run / "heatmaps" / "tiles").glob(f"{slide}_*.jpg"))) == 2
    # Nothing of the writing is left behind.
    assert not [path for path in finished.rglob("*") if path.name.endswith(".part") or path.name.startswith(".")]


def test_the_metrics_are_those_of_the_interface(finished: Path) -> None:
    metrics = json.loads((finished / "run" / "metrics.json").read_text())
    assert metrics["format"] == "coverslip.metrics/1"
    assert metrics["task"] == {"kind": "classification", "column": "lesion", "classes": ["0", "1"]}
    assert metrics["level"] == "patient"
    assert metrics["counts"] == {"patients": 12, "slides": 12, "classes": {"0": 6, "1": 6}}
    assert {"value", "low", "high", "interval"} <= set(metrics["primary"]["auroc"])
    assert "Nadeau-Bengio" in metrics["primary"]["auroc"]["interval"]
    assert metrics["baseline"]["name"] == "mean+sd logistic"
    assert {"value", "low", "high"} <= set(metrics["baseline"]["auroc"])
    assert "resampled" in metrics["pooled"]["auroc"]["interval"]
    assert [fold["fold"] for fold in metrics["folds"]] == [0, 1, 2]
    assert all(fold["patients"] == 4 and "auroc" in fold for fold in metrics["folds"])
    assert set(metrics["fold_summary"]["auroc"]) == {"mean", "sd"}
    assert any("case-13" in warning for warning in metrics["warnings"])
    assert "auroc" in metrics["localisation"]["text"].lower()


def test_every_slide_is_predicted_once_by_a_model_that_did_not_see_it(finished: Path) -> None:
    predictions = pd.read_csv(finished / "run" / "predictions.csv")
    calibrated = ["calibrated_0", "calibrated_1"]
    assert list(predictions) == ["slide", "patient", "fold", "repeat", "set", "lesion", "p_0", "p_1", *calibrated]
    assert sorted(predictions["slide"]) == GOOD
    assert set(predictions["set"]) == {"test"}
    assert ((predictions["p_0"] + predictions["p_1"] - 1).abs() < 1e-6).all()
    split = json.loads((finished / "run" / "split.json").read_text())
    for row in predictions.itertuples():
        fold = split["folds"][row.fold]
        assert row.patient in fold["test"]
        assert row.patient not in fold["train"] and row.patient not in fold["tune"]
    truth = pd.read_csv(finished / "cohort.csv").set_index("slide")
    assert predictions["lesion"].tolist() == truth.loc[predictions["slide"], "lesion"].tolist()


def test_the_report_stands_alone_and_warns_first(finished: Path) -> None:
    html = (finished / "run" / "report.html").read_text()
    assert "case-13" in html
    for outside in ('src="http', "src='http", 'href="http://', "@import", "<link "):
        assert outside not in html
    warned = html.index("case-13", html.index("<section"))
    assert html.index('id="run-1-warnings"') < warned < html.index('id="run-1-results"')


def test_a_second_run_reuses_everything(finished: Path, cohort: Path, coverslip: Callable[..., Any]) -> None:
    shutil.copytree(finished / "run", cohort / "run")
    before = {path: path.stat().st_mtime_ns for path in (cohort / "features").iterdir()}
    models = {path: path.stat().st_mtime_ns for path in (cohort / "run" / "models").rglob("*.safetensors")}
    predictions = (cohort / "run" / "predictions.csv").read_bytes()
    (cohort / "cohort.csv").write_text((finished / "cohort.csv").read_text())
    shutil.copy(finished / "slides" / "case-13.tif", cohort / "slides")
    said = coverslip("run", cohort / "study.toml")
    assert said.code == 1
    assert {path: path.stat().st_mtime_ns for path in (cohort / "features").iterdir()} == before
    assert {path: path.stat().st_mtime_ns for path in (cohort / "run" / "models").rglob("*.safetensors")} == models
    assert (cohort / "run" / "predictions.csv").read_bytes() == predictions
    outcomes = pd.read_csv(cohort / "run" / "outcomes.csv")
    assert set(outcomes[outcomes["stage"] == "embed"]["status"]) == {"reused"}
    assert "failed\tcase-13\t" in said.err


def test_running_the_resolved_settings_repeats_the_predictions(
    finished: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    again = tmp_path / "again"
    said = coverslip("train", finished / "run" / "settings.toml", "--set", f'output="{again}"')
    assert said.code == 0
    assert (again / "predictions.csv").read_bytes() == (finished / "run" / "predictions.csv").read_bytes()
    repeated = (again / "models" / "fold1" / "weights.safetensors").read_bytes()
    assert repeated == (finished / "run" / "models" / "fold1" / "weights.safetensors").read_bytes()


def test_a_table_without_paths_begins_from_the_features(cohort: Path, coverslip: Callable[..., Any]) -> None:
    table = cohort / "cohort.csv"
    pd.read_csv(table).drop(columns="path").to_csv(table, index=False)
    shutil.rmtree(cohort / "slides")
    said = coverslip("run", cohort / "study.toml")
    assert said.code == 0
    assert (cohort / "run" / "report.html").is_file()
    assert not (cohort / "run" / "check.json").exists()
    assert not list((cohort / "run" / "heatmaps").glob("*"))


def test_a_slide_may_have_another_name_than_its_file(cohort: Path, coverslip: Callable[..., Any]) -> None:
    table = pd.read_csv(cohort / "cohort.csv")
    table["slide"] = [f"S {number}" for number in range(len(table))]
    table["path"] = [f"slides/Fäll µ {number}.tif" for number in range(len(table))]
    for number in range(len(table)):
        (cohort / "slides" / f"{GOOD[number]}.tif").rename(cohort / "slides" / f"Fäll µ {number}.tif")
    table.to_csv(cohort / "cohort.csv", index=False)
    said = coverslip("run", cohort / "study.toml", "--set", "features.store=ours", "--set", "heatmaps.slides=1")
    assert said.code == 0, said.err
    assert sorted(path.stem for path in (cohort / "ours").iterdir()) == sorted(table["slide"])
    outcomes = pd.read_csv(cohort / "run" / "outcomes.csv")
    assert set(outcomes["slide"]) == set(table["slide"])
    check = json.loads((cohort / "run" / "check.json").read_text())
    assert [slide["slide"] for slide in check["slides"]] == table["slide"].tolist()


def test_three_classes_run_to_the_end(cohort: Path, coverslip: Callable[..., Any]) -> None:
    table = pd.read_csv(cohort / "cohort.csv")
    table["grade"] = ["low", "middle", "high"] * 4
    table.to_csv(cohort / "cohort.csv", index=False)
    said = coverslip("run", cohort / "study.toml", "--set", "task.column=grade", "--set", "heatmaps.slides=1")
    assert said.code == 0
    metrics = json.loads((cohort / "run" / "metrics.json").read_text())
    assert metrics["task"]["classes"] == ["high", "low", "middle"]
    predictions = pd.read_csv(cohort / "run" / "predictions.csv")
    p = predictions[["p_high", "p_low", "p_middle"]]
    assert ((p.sum(axis=1) - 1).abs() < 1e-6).all()
    assert predictions["grade"].tolist() == table.set_index("slide").loc[predictions["slide"], "grade"].tolist()


@pytest.mark.parametrize(("slides", "drawn"), [("none", 0), ("3", 3)])
def test_as_many_maps_as_asked_for(slides: str, drawn: int, cohort: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("run", cohort / "study.toml", "--set", f"heatmaps.slides={slides}")
    assert said.code == 0
    assert len(list((cohort / "run" / "heatmaps").glob("*.png"))) == drawn
