"""A run folder says what it is and what it lacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coverslip.base.errors import SettingsError
from coverslip.base.settings import parse
from coverslip.base.study import Study, load_study
from coverslip.cohort import Fold, Split
from coverslip.store import OutcomeLog, Run, RunFolder, save_settings


@pytest.fixture
def study(tmp_path: Path) -> Study:
    tables = {
        "name": "prostate",
        "output": str(tmp_path / "run"),
        "cohort": {"table": str(tmp_path / "cohort.csv"), "root": str(tmp_path)},
        "features": {"store": str(tmp_path / "features")},
        "task": {"column": "cancer"},
        "tiles": {"mpp": 0.5},
    }
    return parse(Study, tables, source="test")


@pytest.fixture
def run_folder(tmp_path: Path, study: Study) -> RunFolder:
    files = RunFolder(tmp_path / "run").create()
    save_settings(files.settings, study)
    fold = Fold(0, 0, ("a",), ("b",), ("c",))
    split = Split((fold,), {"a": "1", "b": "2", "c": "3"}, "made here")
    files.split.write_text(json.dumps(split.to_json()))
    files.predictions.write_text("slide,patient,fold,set,cancer,p_0,p_1\nc,3,0,test,1,0.25,0.75\n")
    files.metrics.write_text(json.dumps({"format": "coverslip.metrics/1", "level": "patient"}))
    files.evaluation.write_text("{}")
    files.environment.write_text(json.dumps({"host": "h"}))
    OutcomeLog(files.outcomes).record("a", "embed", "done")
    model = files.model(fold.name)
    model.mkdir(parents=True)
    (model / "weights.safetensors").write_bytes(b"x")
    (model / "model.json").write_text("{}")
    return files


def test_a_finished_run_gives_its_parts(run_folder, study) -> None:
    run = Run.open(str(run_folder.folder))
    assert run.settings == study
    assert run.split.folds[0].test == ("c",)
    assert run.predictions["cancer"].tolist() == ["1"]
    assert run.predictions["p_1"].tolist() == [0.75]
    assert run.metrics["level"] == "patient"
    assert run.outcomes["status"].tolist() == ["done"]
    assert run.check is None
    assert run.environment["host"] == "h"
    assert [path.parent.name for path in run.models()] == ["models"]


def test_saved_settings_are_read_back_as_the_same_study(tmp_path, study) -> None:
    save_settings(tmp_path / "settings.toml", study)
    assert load_study(tmp_path / "settings.toml") == study


def test_a_folder_that_is_no_run_is_refused(tmp_path) -> None:
    with pytest.raises(SettingsError, match="no run folder"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match=r"is no run: it has no settings\.toml"):
        Run.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="no run folder"):
        Run.open(tmp_path / "file")


@pytest.mark.parametrize("lost", ["split.json", "predictions.csv", "metrics.json"])
def test_an_unfinished_run_says_what_lacks_and_how_it_goes_on(run_folder, lost) -> None:
    (run_folder.folder / lost).unlink()
    with pytest.raises(SettingsError, match=rf"not finished: it has no {lost}.*coverslip run"):
        Run.open(run_folder.folder)
    assert Run.open(run_folder.folder, finished=False).settings.name == "prostate"


def test_a_run_without_models_is_unfinished(run_folder) -> None:
    next(run_folder.models.glob("*/weights.safetensors")).unlink()
    with pytest.raises(SettingsError, match="it has no models/"):
        Run.open(run_folder.folder)


def test_a_model_without_its_description_is_named(run_folder) -> None:
    next(run_folder.models.glob("*/model.json")).unlink()
    with pytest.raises(SettingsError, match=r"not whole: it has no model\.json"):
        Run.open(run_folder.folder).models()


def test_a_damaged_result_is_named(run_folder) -> None:
    run_folder.metrics.write_text("{")
    with pytest.raises(SettingsError, match=r"metrics\.json is damaged"):
        _ = Run.open(run_folder.folder).metrics
    run_folder.metrics.write_text("[]")
    with pytest.raises(SettingsError, match="no JSON object"):
        _ = Run.open(run_folder.folder).metrics
