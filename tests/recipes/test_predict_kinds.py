"""`coverslip predict` for every kind of task: the columns, what is said beside them, and what is not defined."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coverslip.eval.levels import median_level
from feature_study import KINDS, kind_options, write_kinds

# The columns of predictions after slide, patient, fold and set, and which of them the models' spread is told of.
COLUMNS = {
    "classification": ["lesion", "p_0", "p_1", "calibrated_0", "calibrated_1"],
    "regression": ["amount", "value"],
    "ordinal": ["grade", "p_1", "p_2", "p_3", "calibrated_1", "calibrated_2", "calibrated_3"],
    "multilabel": ["lesion", "hole", "p_lesion", "p_hole", "calibrated_lesion", "calibrated_hole"],
    "survival": ["days", "died", "risk", "s_100", "s_200"],
    "survival_cox": ["days", "died", "risk", "s_100", "s_200"],
    "survival_parametric": ["days", "died", "risk", "s_100", "s_200"],
    "competing_risks": ["days", "cause", "risk_1", "risk_2", "cif_1_100", "cif_1_200", "cif_2_100", "cif_2_200"],
}
SETS = {
    "classification": ["prediction_set"],
    "ordinal": ["prediction_set"],
    "multilabel": ["prediction_set_lesion", "prediction_set_hole"],
    "regression": ["low", "high"],
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    write_kinds(folder, 60)
    return folder


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients that no run has seen."""
    folder = tmp_path_factory.mktemp("new")
    write_kinds(folder, 12, seed=5, start=100)
    return folder


@pytest.fixture(scope="module")
def trained(cohort: Path, coverslip: Callable[..., Any]) -> Callable[[str], Path]:
    """The run of a kind, trained when it is first asked for."""

    def run(kind: str) -> Path:
        folder = cohort / kind
        if not (folder / "metrics.json").is_file():
            options = ("--set", f"output={kind}", "--set", "fit.batch=16")
            said = coverslip("train", cohort / "study.toml", *kind_options(kind), *options)
            assert said.code == 0, said.err
        return folder

    return run


def _predict(run: Path, new: Path, out: Path, coverslip: Callable[..., Any], table: str = "cohort.csv") -> Any:
    return coverslip("predict", run, new / table, "--features", new / "features", "--out", out)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_predicted_and_says_what_its_numbers_promise(
    kind: str, trained: Callable[[str], Path], new: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    said = _predict(trained(kind), new, tmp_path, coverslip)
    assert said.code == 0, said.err
    rows, table = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("predictions", "answers"))
    assert list(rows) == ["slide", "patient", "fold", "set", *COLUMNS[kind]]
    predicted = [name for name in COLUMNS[kind] if name.startswith(("p_", "value", "risk", "s_", "cif_"))]
    assert np.isfinite(rows[predicted].to_numpy()).all()
    means = rows.groupby("patient")[predicted].mean()
    assert table.set_index("patient")[predicted].to_numpy() == pytest.approx(means.to_numpy())
    assert [name for name in table if name in ("low", "high") or name.startswith("prediction_set")] == SETS.get(
        kind, []
    )
    assert ("decision" in table) == (kind in ("classification", "ordinal", "multilabel"))
    assert {"unlike", "unlike_p"} <= set(table)
    lines = dict(line.strip().split("  ", 1) for line in said.out.splitlines() if line.startswith("  "))
    assert "answers for 12 patients by the mean of 2 models" in said.out
    assert "unlike the training slides; false alarms 0." in lines["likeness"]
    if kind == "multilabel":
        assert "CV+: at least 90%" in lines["sets"] and "hole: one class for" in lines["sets"]
    elif kind in SETS:
        assert "CV+: at least 90%" in lines["sets"] and "here they hold the truth for" in lines["sets"]
    else:
        assert lines["sets"].strip().startswith("none: no ranges of times: ")
    if kind in ("classification", "multilabel"):
        assert "(youden): sensitivity" in lines["threshold"]
    else:
        assert "threshold" in lines["threshold"] or "median level decides" in lines["threshold"]
    stated = kind in ("classification", "ordinal", "multilabel")
    assert ("none: only classes, levels and labels" in lines["recalibration"]) != stated


def test_the_decided_level_is_the_median_as_in_the_figures(
    trained: Callable[[str], Path], new: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    assert _predict(trained("ordinal"), new, tmp_path, coverslip).code == 0
    table = pd.read_csv(tmp_path / "answers.csv")
    median = median_level(table[["p_1", "p_2", "p_3"]].to_numpy())
    assert (table["decision"] == 1 + median).all()
    told = json.loads((tmp_path / "evaluation.json").read_text())["confusion"]
    assert np.sum(told["counts"], axis=0).tolist() == [int((table["decision"] == k).sum()) for k in (1, 2, 3)]


@pytest.mark.parametrize(
    ("kind", "column", "value", "words"),
    [
        ("survival", "days", 0, "row 4, column 'days': 0 is not over 0"),
        ("survival", "died", 2, "row 4, column 'died': 2 is neither 0 nor 1"),
        ("competing_risks", "cause", 7, "row 4, column 'cause': 7 is no cause (1, 2)"),
        ("regression", "amount", "much", "row 4, column 'amount': 'much' is not a number"),
        ("multilabel", "hole", 2, "row 4, column 'hole': 2 is neither 0 nor 1"),
    ],
)
def test_an_outcome_that_is_none_is_refused_with_its_row(
    kind: str,
    column: str,
    value: Any,
    words: str,
    trained: Callable[[str], Path],
    new: Path,
    tmp_path: Path,
    coverslip: Callable[..., Any],
) -> None:
    table = pd.read_csv(new / "cohort.csv", dtype=object)
    table.loc[2, column] = value
    table.to_csv(new / "wrong.csv", index=False)
    said = _predict(trained(kind), new, tmp_path, coverslip, "wrong.csv")
    assert said.code == 2 and words in said.err


def test_a_level_that_the_run_does_not_know_is_predicted_and_told(
    trained: Callable[[str], Path], new: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    table = pd.read_csv(new / "cohort.csv", dtype=object)
    table.loc[2, "grade"] = 9
    table.to_csv(new / "ninth.csv", index=False)
    said = _predict(trained("ordinal"), new, tmp_path, coverslip, "ninth.csv")
    assert said.code == 0, said.err
    assert "1 slide is predicted but not in the figures; s102: " in said.out
    assert len(pd.read_csv(tmp_path / "answers.csv")) == 12


@pytest.mark.parametrize("kind", KINDS)
def test_the_run_s_baseline_stands_beside_the_model_and_the_cohort_is_audited(
    kind: str, trained: Callable[[str], Path], new: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained(kind), run)
    settings = run / "settings.toml"
    settings.write_text(settings.read_text().replace("[audit]\nenabled = false", "[audit]\nenabled = true"))
    said = _predict(run, new, tmp_path, coverslip)
    assert said.code == 0, said.err
    external = json.loads((tmp_path / "metrics.json").read_text())["external"]
    names = [name for name in external if name not in ("counts", "baseline", "versus_baseline")]
    for name in names:
        ours, theirs, gap = external[name], external["baseline"][name], external["versus_baseline"][name]
        if None not in (ours["value"], theirs["value"]):
            assert gap["value"] == pytest.approx(ours["value"] - theirs["value"], abs=1e-9), name
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert audit["set"] == "external" and audit["leaks"]["findings"] == []
    # Feature files of another tool: nobody has seen the slides.
    assert set(audit["leaks"]["not_compared"]) == {"files of slides", "looks of slides"}
    assert "Not compared with the run's cohort: looks of slides" in said.out
    assert audit["subgroups"]["attributes"]
    for attribute in audit["subgroups"]["attributes"]:
        assert sum(level["units"] for level in attribute["levels"]) == 12


def test_an_older_run_without_baseline_and_contents_says_what_is_missing(
    trained: Callable[[str], Path], new: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(trained("survival"), old)
    (old / "contents.json").unlink()
    for path in old.glob("models/*/baseline.json"):
        path.unlink()
    settings = old / "settings.toml"
    settings.write_text(re.sub(r"(?m)^store = .*$", 'store = "gone"', settings.read_text()))
    said = _predict(old, new, tmp_path / "out", coverslip)
    assert said.code == 0, said.err
    assert "baseline" not in json.loads((tmp_path / "out" / "metrics.json").read_text())["external"]
    assert "The run has kept no baseline" in said.out
    missed = json.loads((tmp_path / "out" / "audit.json").read_text())["leaks"]["not_compared"]
    assert set(missed) == {"files of slides", "looks of slides", "features by digest", "features tile by tile"}


def test_a_copied_feature_file_under_another_name_is_told_even_where_the_run_s_own_have_gone(
    trained: Callable[[str], Path], cohort: Path, new: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(trained("regression"), old)
    settings = old / "settings.toml"
    settings.write_text(re.sub(r"(?m)^store = .*$", 'store = "gone"', settings.read_text()))
    shutil.copytree(new, tmp_path / "new")
    shutil.copy(cohort / "features" / "s003.npz", tmp_path / "new" / "features" / "s104.npz")
    said = _predict(old, tmp_path / "new", tmp_path / "out", coverslip)
    assert said.code == 0, said.err
    audit = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert [(one["code"], one["cases"]) for one in audit["leaks"]["findings"]] == [
        ("shared_features", ["s104 is s003"])
    ]
    assert audit["warnings"][0]["gravity"] == "leak"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"drop": "died"}, "none: the table has no column 'died'"),
        ({"empty": "died"}, "none: the table has no value in column 'died'"),
    ],
)
def test_without_outcomes_there_are_answers_and_the_reason_why_there_are_no_figures(
    change: dict[str, str],
    words: str,
    trained: Callable[[str], Path],
    new: Path,
    tmp_path: Path,
    coverslip: Callable[..., Any],
) -> None:
    table = pd.read_csv(new / "cohort.csv")
    table = table.drop(columns=change["drop"]) if "drop" in change else table.assign(**{change["empty"]: None})
    table.to_csv(new / "bare.csv", index=False)
    said = _predict(trained("survival"), new, tmp_path, coverslip, "bare.csv")
    assert said.code == 0, said.err
    assert words in said.out and not (tmp_path / "metrics.json").exists()
    assert len(pd.read_csv(tmp_path / "answers.csv")) == 12


def test_sets_of_levels_have_no_gaps_and_each_label_has_sets_of_its_own(
    trained: Callable[[str], Path], new: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    assert _predict(trained("ordinal"), new, tmp_path / "levels", coverslip).code == 0
    sets = pd.read_csv(tmp_path / "levels" / "answers.csv", dtype=str, keep_default_na=False)["prediction_set"]
    assert set(sets) <= {"", "1", "2", "3", "1; 2", "2; 3", "1; 2; 3"}
    assert _predict(trained("multilabel"), new, tmp_path / "labels", coverslip).code == 0
    told = json.loads((tmp_path / "labels" / "answers.json").read_text())["sets"]
    assert "each label by itself" in told["promise"] and told["coverage"] is None
    # Every fifth patient does not know whether there is a hole: 48 of 60 calibrate, 9 of 12 (100, 105, 110) test.
    lesion, hole = (told["labels"][name] for name in ("lesion", "hole"))
    assert (lesion["calibration"], hole["calibration"]) == (60, 48)
    assert sum(told["labels"]["hole"]["counts"].values()) == 48
    answers = pd.read_csv(tmp_path / "labels" / "answers.csv", dtype=str, keep_default_na=False)
    truth = pd.read_csv(new / "cohort.csv").set_index("patient")["hole"].dropna().astype(int).astype(str)
    held = answers.set_index("patient")["prediction_set_hole"].loc[truth.index]
    assert hole["coverage"]["value"] == pytest.approx(np.mean([t in s for t, s in zip(truth, held)]))
