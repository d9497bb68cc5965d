"""Nothing reads the outer test fold before the end: not training, not the choice of settings, not what is learnt on
inner predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coverslip.base.errors import SettingsError
from coverslip.base.study import load_study
from coverslip.mil import BagSource
from coverslip.recipes import train as recipe
from coverslip.recipes.tuning import candidates

STUDY = """\
format = "coverslip.study/1"
output = "run"
[cohort]
table = "cohort.csv"
covariates = ["site"]
[task]
column = "lesion"
[split]
file = "folds"
[fit]
epochs = 2
fixed_epochs = 2
[audit]
resamples = 100
[tune]
grid = {"aggregator.name" = ["mean", "abmil"], "fit.lr" = [1e-3, 1e-2]}
folds = 2
[evaluation]
resamples = 100
inner_folds = 2
"""
TESTED = [f"s{i:02}" for i in range(18, 24)]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """24 patients in one fold made by hand: 18 to learn from, 6 to test."""
    rng = np.random.default_rng(0)
    rows = []
    (tmp_path / "features").mkdir()
    for i in range(24):
        x = rng.normal(size=(20, 8)) + (i % 2) * (np.arange(8) == 0)
        np.savez(tmp_path / "features" / f"s{i:02}.npz", features=x.astype(np.float16))
        rows.append({"slide": f"s{i:02}", "patient": f"p{i:02}", "lesion": i % 2, "site": "ab"[i % 3 == 0]})
    pd.DataFrame(rows).to_csv(tmp_path / "cohort.csv", index=False)
    (tmp_path / "folds").mkdir()
    learnt = [f"s{i:02}" for i in range(18)]
    sets = {"train": learnt[:14], "val": learnt[14:] + [""] * 10, "test": TESTED + [""] * 8}
    pd.DataFrame(sets).to_csv(tmp_path / "folds" / "splits_0.csv", index=False)
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def _learnt(folder: Path) -> dict[str, bytes]:
    """What came of training and of choosing, byte by byte."""
    models = folder / "run" / "models" / "fold0"
    names = ("weights.safetensors", "tuning.json", "inner.csv", "recalibration.json", "operating_points.json")
    return {name: (models / name).read_bytes() for name in (*names, "covariates.json")}


def test_other_labels_of_the_tested_change_no_weight_and_no_choice(study: Path, coverslip: Callable[..., Any]) -> None:
    assert coverslip("train", study).code == 0
    before = _learnt(study.parent)
    table = pd.read_csv(study.parent / "cohort.csv")
    tested = table["slide"].isin(TESTED)
    table.loc[tested, "lesion"] = 1 - table.loc[tested, "lesion"]
    table.to_csv(study.parent / "cohort.csv", index=False)
    first = pd.read_csv(study.parent / "run" / "predictions.csv")
    assert coverslip("train", study).code == 0
    assert _learnt(study.parent) == before
    second = pd.read_csv(study.parent / "run" / "predictions.csv")
    assert (first["p_1"] == second["p_1"]).all()
    assert (first["lesion"] != second["lesion"]).all()


def test_other_features_of_the_tested_change_no_weight_and_no_choice(
    study: Path, coverslip: Callable[..., Any]
) -> None:
    assert coverslip("train", study).code == 0
    before = _learnt(study.parent)
    for slide in TESTED:
        path = study.parent / "features" / f"{slide}.npz"
        np.savez(path, features=np.full((20, 8), 1e4, np.float16))
    assert coverslip("train", study, "--set", "output=other").code == 0
    (study.parent / "run").rename(study.parent / "first")
    (study.parent / "other").rename(study.parent / "run")
    assert _learnt(study.parent) == before


def test_rows_of_the_tested_are_first_read_when_every_model_is_made(
    study: Path, coverslip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = False
    asked: list[str] = []
    bags = BagSource.bags
    predict = recipe._out_of_fold

    def trip(self: BagSource, index: Any, **more: Any) -> Any:
        places = list(index)
        read = {self.names[place] for place in places} & set(TESTED)
        if read and not made:
            asked.extend(sorted(read))
        return bags(self, places, **more)

    def out_of_fold(*arguments: Any) -> Any:
        nonlocal made
        made = True
        return predict(*arguments)

    monkeypatch.setattr(BagSource, "bags", trip)
    monkeypatch.setattr(recipe, "_out_of_fold", out_of_fold)
    said = coverslip("train", study)
    assert said.code == 0, said.err
    assert made and asked == []


def test_what_was_tried_and_chosen_is_kept_and_used_again(study: Path, coverslip: Callable[..., Any]) -> None:
    assert coverslip("train", study).code == 0
    told = json.loads((study.parent / "run" / "tuning.json").read_text())
    (fold,) = told["folds"]
    assert len(fold["candidates"]) == 4
    means = [np.mean(one["scores"]) for one in fold["candidates"]]
    assert fold["chosen"] == fold["candidates"][int(np.argmax(means))]["settings"]
    card = json.loads((study.parent / "run" / "models" / "fold0" / "model.json").read_text())
    assert fold["chosen"]["aggregator.name"] in json.dumps(card)


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ({"task.column": ["a"]}, "'task.column' cannot be tuned"),
        ({"fit": ["a"]}, "'fit' cannot be tuned"),
        ({"fit.lr": []}, "has no value to try"),
        ({"fit.lrr": [1.0]}, "fit.lrr"),
        ({"fit.lr": ["high"]}, "fit.lr"),
        ({"aggregator.name": ["abmli"]}, "abmil"),
    ],
)
def test_a_grid_that_cannot_be_tried_is_told(study: Path, grid: dict[str, Any], told: str) -> None:
    base = load_study(study)
    with pytest.raises(SettingsError) as caught:
        candidates(base.model_copy(update={"tune": base.tune.model_copy(update={"grid": grid})}))
    assert told in str(caught.value)
