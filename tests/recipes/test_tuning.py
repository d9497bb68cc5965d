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


EVENTS = {"survival": "died", "survival_cox": "died", "survival_parametric": "died", "competing_risks": "cause"}
SURVIVAL = {
    kind: ("--set", f'task.kind="{kind}"', "--set", 'task.time="days"', "--set", f'task.event="{event}"')
    for kind, event in EVENTS.items()
}


def _with_times(study: Path) -> None:
    """A time, an event and a cause for each patient of the table; the target of the settings is left to the test."""
    rng = np.random.default_rng(1)
    table = pd.read_csv(study.parent / "cohort.csv")
    died = (np.arange(24) % 3 > 0).astype(int)
    days = rng.exponential(300, 24).round() + 1
    table.assign(days=days, died=died, cause=died * (1 + np.arange(24) % 2)).to_csv(
        study.parent / "cohort.csv", index=False
    )
    study.write_text(STUDY.replace('column = "lesion"\n', ""))


def _outcomes_of_the_tested_changed(study: Path, tested: list[str]) -> None:
    """Five times as long, and the other way round: what a model could take from them would show."""
    table = pd.read_csv(study.parent / "cohort.csv")
    there = table["slide"].isin(tested)
    table.loc[there, "days"] = table.loc[there, "days"] * 5 + 1000
    table.loc[there, "died"] = 1 - table.loc[there, "died"]
    table.loc[there, "cause"] = 2 - table.loc[there, "cause"]
    table.to_csv(study.parent / "cohort.csv", index=False)


@pytest.mark.parametrize("kind", SURVIVAL)
def test_other_times_of_the_tested_change_no_weight_no_choice_and_no_grid(
    kind: str, study: Path, coverslip: Callable[..., Any]
) -> None:
    _with_times(study)
    models = study.parent / "run" / "models" / "fold0"

    def learnt() -> list[Any]:
        names = ("weights.safetensors", "tuning.json", "inner.csv", "covariates.json")
        card = json.loads((models / "model.json").read_text())
        return [*((models / name).read_bytes() for name in names), card["task_arguments"], card["training"]["epochs"]]

    assert coverslip("train", study, *SURVIVAL[kind]).code == 0
    before, first = learnt(), pd.read_csv(study.parent / "run" / "predictions.csv")
    _outcomes_of_the_tested_changed(study, TESTED)
    said = coverslip("train", study, *SURVIVAL[kind])
    assert said.code == 0, said.err
    assert learnt() == before
    second = pd.read_csv(study.parent / "run" / "predictions.csv")
    stated = [name for name in first if name.startswith(("risk", "s_", "cif_"))]
    assert len(stated) > 10 and first[stated].equals(second[stated])
    assert not first["days"].equals(second["days"])


@pytest.mark.parametrize("kind", SURVIVAL)
def test_in_a_cross_validation_the_times_of_a_fold_are_none_of_its_model(
    kind: str, study: Path, coverslip: Callable[..., Any]
) -> None:
    _with_times(study)
    study.write_text(study.read_text().replace('file = "folds"', "folds = 3"))
    options = (*SURVIVAL[kind], "--set", "tune.grid={}", "--set", "evaluation.inner_folds=0")
    assert coverslip("train", study, *options).code == 0
    split = json.loads((study.parent / "run" / "split.json").read_text())
    (study.parent / "run" / "split.json").rename(study.parent / "kept.json")
    again = (*options, "--set", 'split.file="kept.json"')
    models = study.parent / "run" / "models"

    def learnt() -> list[Any]:
        folders = [models / f"fold{i}" for i in range(3)]
        cards = [json.loads((folder / "model.json").read_text()) for folder in folders]
        return [((f / "weights.safetensors").read_bytes(), c["task_arguments"]) for f, c in zip(folders, cards)]

    before, first = learnt(), pd.read_csv(study.parent / "run" / "predictions.csv")
    tested = split["folds"][0]["test"]  # patients
    _outcomes_of_the_tested_changed(study, [slide for patient in tested for slide in split["patients"][patient]])
    said = coverslip("train", study, *again)
    assert said.code == 0, said.err
    after, second = learnt(), pd.read_csv(study.parent / "run" / "predictions.csv")
    assert after[0] == before[0]
    assert after[1] != before[1] and after[2] != before[2]
    risks = [name for name in first if name.startswith("risk")]
    mine = first["fold"] == 0
    assert first.loc[mine, risks].equals(second.loc[mine, risks])


@pytest.mark.parametrize("kind", ["survival", "competing_risks"])
def test_a_cohort_without_events_is_trained_and_its_figures_are_null(
    kind: str, study: Path, coverslip: Callable[..., Any]
) -> None:
    _with_times(study)
    table = pd.read_csv(study.parent / "cohort.csv")
    table.assign(died=0, cause=0).to_csv(study.parent / "cohort.csv", index=False)
    said = coverslip("train", study, *SURVIVAL[kind], "--set", "tune.grid={}")
    assert said.code == 0, said.err
    metrics = json.loads((study.parent / "run" / "metrics.json").read_text())
    assert metrics["primary"]["c_index"]["value"] is None
    assert any("the event" in text and "hardly anything can be learnt" in text for text in metrics["warnings"])


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
