"""The control: other patients' outcomes give nothing to find, a leak is found in them too, nothing is done twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coverslip.base.random import stream
from coverslip.base.study import Study, load_study
from coverslip.cohort import load_cohort, make_targets
from coverslip.eval import FoldSize
from coverslip.recipes import train as recipe
from coverslip.recipes.control import permuted_targets
from coverslip.recipes.training_data import TrainingData
from coverslip.store import RunFolder

STUDY = """\
format = "coverslip.study/1"
output = "run"
[cohort]
table = "cohort.csv"
[task]
{task}
[aggregator]
name = "mean"
[split]
folds = 3
[fit]
fixed_epochs = 6
batch = 8
least_tuning = 50
lr = 1e-2
[audit]
enabled = false
[evaluation]
resamples = 100
inner_folds = 0
"""


def cohort(folder: Path, rows: list[dict[str, Any]], x: np.ndarray, task: str = 'column = "lesion"') -> Path:
    (folder / "features").mkdir()
    for row, mine in zip(rows, x):
        np.savez(folder / "features" / f"{row['slide']}.npz", features=mine.astype(np.float16))
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    path = folder / "study.toml"
    path.write_text(STUDY.format(task=task))
    return path


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """30 patients whose features tell the lesion."""
    rng = np.random.default_rng(0)
    rows = [{"slide": f"s{i:02}", "patient": f"p{i:02}", "lesion": i % 2} for i in range(30)]
    x = rng.normal(size=(30, 6, 8)) + 2 * np.array([[row["lesion"]] for row in rows])[:, :, None]
    return cohort(tmp_path, rows, x)


def told(study: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((study.parent / "run" / "control.json").read_text())
    return found


def guessing(study: Study, run: RunFolder, data: TrainingData) -> tuple[pd.DataFrame, list[FoldSize]]:
    """In place of training: predictions that depend on the outcomes of this permutation and on nothing else."""
    tables = []
    for fold in data.split.folds:
        names = pd.DataFrame({"slide": fold.test, "patient": [data.split.patients[slide] for slide in fold.test]})
        p = stream(0, data.targets.digest, fold.index).uniform(size=len(fold.test))
        known = data.targets.shown.loc[list(fold.test)].reset_index(drop=True)
        values = pd.DataFrame({"p_0": 1 - p, "p_1": p})
        tables.append(pd.concat([names.assign(fold=fold.index, repeat=0, set="test"), known, values], axis=1))
    return pd.concat(tables), [FoldSize(fold.index, len(fold.train), len(fold.test)) for fold in data.split.folds]


@pytest.mark.slow
def test_what_is_there_is_found_and_nothing_where_nothing_is(study: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("train", study, "--control", 20)
    assert said.code == 0, said.err
    control = told(study)
    assert control["headline"]["p"] == pytest.approx(1 / 21)
    metrics = json.loads((study.parent / "run" / "metrics.json").read_text())
    assert control["headline"]["observed"] == metrics["primary"]["auroc"]["value"] > 0.9
    assert 0.3 < control["headline"]["permuted"]["mean"] < 0.7
    assert not control["above_chance"]
    assert "no leak shows" in control["sentence"] and "no leak shows" in said.err.replace("\n", " ")


def test_a_permutation_that_is_done_is_not_done_again(
    study: Path, coverslip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[str] = []
    monkeypatch.setattr(
        recipe, "cross_validate", lambda s, run, data: times.append(run.folder.name) or guessing(s, run, data)
    )
    assert coverslip("train", study, "--control", 20).code == 0
    first = told(study)["headline"]["permuted"]["values"]
    assert len(set(first)) > 10, "each permutation has outcomes of its own"
    done = sorted((study.parent / "run" / "control").iterdir())
    assert [path.name for path in done] == [f"{i:04}.json" for i in range(20)]
    done[7].unlink()
    times.clear()
    assert coverslip("train", study, "--control", 22).code == 0
    assert times == ["0007", "0020", "0021"]
    assert told(study)["headline"]["permuted"]["values"][:20] == first
    times.clear()
    assert coverslip("train", study, "--control", 20, "--set", "fit.lr=2e-2").code == 0
    assert len(times) == 20, "with other settings nothing is the same"
    assert coverslip("train", study).code == 0
    assert not (study.parent / "run" / "control.json").exists(), "who did not ask is not told an old answer"


def test_folds_are_drawn_by_the_outcomes_of_the_permutation(
    study: Path, coverslip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    def look(s: Study, run: RunFolder, data: TrainingData) -> tuple[pd.DataFrame, list[FoldSize]]:
        seen.extend(sorted(Counter(data.targets.y_of[slide] for slide in f.test).values()) for f in data.split.folds)
        return guessing(s, run, data)

    monkeypatch.setattr(recipe, "cross_validate", look)
    assert coverslip("train", study, "--control", 20).code == 0
    assert seen == [[5, 5]] * 60


@pytest.mark.slow
def test_a_leak_is_found_in_outcomes_of_other_patients_too(tmp_path: Path, coverslip: Callable[..., Any]) -> None:
    rng = np.random.default_rng(1)
    mine = rng.normal(size=(16, 1, 24)) * 3
    rows = [{"slide": f"s{i:02}{k}", "patient": f"p{i:02}", "lesion": i % 2} for i in range(16) for k in "ab"]
    x = np.repeat(mine, 2, axis=0) + rng.normal(size=(32, 6, 24)) * 0.1
    study = cohort(tmp_path, rows, x)
    (tmp_path / "folds").mkdir()
    sets = {"train": [f"s{i:02}a" for i in range(16)], "val": "", "test": [f"s{i:02}b" for i in range(16)]}
    pd.DataFrame(sets).to_csv(tmp_path / "folds" / "splits_0.csv", index=False)
    leaking = ["--set", "split.file=folds", "--set", "split.allow_leaks=true", "--set", "fit.fixed_epochs=20"]
    assert coverslip("train", study, "--control", 20, *leaking).code == 0
    control = told(study)
    assert control["above_chance"]
    assert control["headline"]["p"] > 0.05, "the figure is no better than what the leak alone gives"
    assert "leaks" in control["sentence"]


@pytest.mark.slow
def test_survival_has_a_p_for_its_groups_of_risk(tmp_path: Path, coverslip: Callable[..., Any]) -> None:
    rng = np.random.default_rng(2)
    risk = rng.normal(size=45)
    time = rng.exponential(np.exp(-1.5 * risk)) * 100 + 1
    rows = [
        {"slide": f"s{i:02}", "patient": f"p{i:02}", "days": float(t), "os": int(i % 4 > 0)} for i, t in enumerate(time)
    ]
    x = rng.normal(size=(45, 6, 4)) * 0.3 + risk[:, None, None]
    study = cohort(tmp_path, rows, x, 'kind = "survival"\ntime = "days"\nevent = "os"')
    assert coverslip("train", study, "--control", 20).code == 0
    control = told(study)
    assert control["logrank"]["p"] == pytest.approx(1 / 21)
    assert control["logrank"]["observed"] > max(control["logrank"]["permuted"]["values"])
    groups = json.loads((study.parent / "run" / "evaluation.json").read_text())["risk_groups"]
    assert groups["cut"] == "median risk of each fold's training patients"
    assert groups["logrank"]["z"] == control["logrank"]["observed"]
    assert "p" not in groups["logrank"]
    for group in groups["groups"]:
        assert group["at_risk"][0] == group["patients"] and len(group["at_risk"]) == len(groups["at_risk_at"])


def test_under_20_permutations_are_refused(study: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("train", study, "--control", 5)
    assert said.code == 2
    assert "20" in said.err


def targets_of(folder: Path, rows: list[dict[str, Any]], task: str) -> Any:
    (folder / "study.toml").write_text(STUDY.format(task=task))
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    study = load_study(folder / "study.toml")
    return make_targets(load_cohort(study.cohort, need_paths=False), study.task)


def test_slides_follow_their_patient_and_a_time_goes_with_its_event(tmp_path: Path) -> None:
    rows = [
        {"slide": f"s{i:02}{k}", "patient": f"p{i:02}", "days": 10.0 + i, "os": int(i % 3 == 0)}
        for i in range(12)
        for k in range(1 + i % 3)
    ]
    real = targets_of(tmp_path, rows, 'kind = "survival"\ntime = "days"\nevent = "os"')
    for number in range(5):
        dealt = permuted_targets(real, 0, number).frame
        assert dealt["slide"].tolist() == real.frame["slide"].tolist()
        assert (dealt.groupby("patient")[["y", "event"]].nunique() == 1).all(axis=None)
        pairs = dealt.drop_duplicates("patient")[["y", "event"]]
        assert sorted(map(tuple, pairs.to_numpy())) == [(10.0 + i, float(i % 3 == 0)) for i in range(12)]
        assert not np.array_equal(dealt["y"], real.frame["y"])


def test_slides_with_outcomes_of_their_own_go_to_patients_with_as_many(tmp_path: Path) -> None:
    rows = [
        {"slide": f"s{i:02}{k}", "patient": f"p{i:02}", "lesion": int((i // 2 + k) % 2)}
        for i in range(12)
        for k in range(1 + i % 2)
    ]
    real = targets_of(tmp_path, rows, 'column = "lesion"\nlevel = "slide"')
    dealt = permuted_targets(real, 0, 1)
    for size in (1, 2):
        before, after = (
            sorted(tuple(mine["y"]) for _, mine in one.frame.groupby("patient") if len(mine) == size)
            for one in (real, dealt)
        )
        assert before == after
    assert not np.array_equal(dealt.frame["y"], real.frame["y"])
