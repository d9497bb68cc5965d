from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd


def _audit(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / "audit.json").read_text())
    return found


def test_a_run_is_audited_and_the_report_shows_it(finished: Path) -> None:
    audit = _audit(finished)
    assert audit["leaks"]["findings"] == [] and audit["leaks"]["feature_twins"] == []
    assert audit["collapse"]["accuracy"] is not None
    assert audit["pretraining"]["seen"] == []  # the texture descriptor has learnt from nothing
    assert audit["subgroups"]["overall"]["value"] is not None
    assert "Nobody asked: the run" not in (finished / "run" / "report.html").read_text()


def test_features_under_another_name_are_told_as_a_leak(cohort: Path, coverslip: Callable[..., Any]) -> None:
    table = pd.read_csv(cohort / "cohort.csv")
    one, other = table["slide"][0], table["slide"][len(table) - 1]
    shutil.rmtree(cohort / "slides")
    features = cohort / "theirs"
    features.mkdir()
    for path in (cohort / "features").glob("*.h5"):
        shutil.copy(path, features / path.name)
    shutil.copy(features / f"{one}.h5", features / f"{other}.h5")
    said = coverslip("train", cohort / "study.toml", "--set", "features.store=theirs")
    # A file may be renamed, so that it says it is another slide's is no mistake by itself.
    assert said.code == 0, said.err
    twins = _audit(cohort)["leaks"]["feature_twins"]
    assert [sorted(pair) for pair in twins] == [sorted([one, other])]


def test_a_table_without_sites_and_covariates_is_said_and_audits_can_be_left_out(
    cohort: Path, coverslip: Callable[..., Any]
) -> None:
    table = pd.read_csv(cohort / "cohort.csv")
    table[["slide", "patient", "path", "lesion"]].to_csv(cohort / "cohort.csv", index=False)
    assert coverslip("train", cohort / "study.toml").code == 0
    audit = _audit(cohort)
    assert "no column 'site'" in audit["sites"]["reason"]
    assert audit["subgroups"]["attributes"] == []
    assert coverslip("train", cohort / "study.toml", "--set", "audit.enabled=false").code == 0
    assert not (cohort / "run" / "audit.json").exists()
    wrong = coverslip("train", cohort / "study.toml", "--set", 'audit.columns=["agee"]')
    assert wrong.code == 2 and "audit.columns" in wrong.err


def test_a_new_cohort_with_features_of_a_training_slide_is_told(cohort: Path, coverslip: Callable[..., Any]) -> None:
    assert coverslip("train", cohort / "study.toml").code == 0
    table = pd.read_csv(cohort / "cohort.csv").head(6)
    new = cohort / "new"
    (new / "features").mkdir(parents=True)
    for slide in table["slide"]:
        shutil.copy(cohort / "features" / f"{slide}.h5", new / "features" / f"{slide}.h5")
    table.to_csv(new / "table.csv", index=False)
    said = coverslip("predict", cohort / "run", new / "table.csv", "--features", new / "features")
    assert said.code == 0, said.err
    metrics = json.loads(next((cohort / "run" / "external").rglob("metrics.json")).read_text())
    assert any("Patients of the new cohort that the training cohort has too" in text for text in metrics["warnings"])


def test_outcomes_beside_the_target_are_no_subgroups_and_are_told(cohort: Path, coverslip: Callable[..., Any]) -> None:
    table = pd.read_csv(cohort / "cohort.csv")
    table["pfi"], table["os_days"] = [i % 2 for i in range(len(table))], range(100, 100 + len(table))
    table["sex"] = ["F" if i % 3 else "M" for i in range(len(table))]
    table.to_csv(cohort / "cohort.csv", index=False)
    assert coverslip("train", cohort / "study.toml").code == 0
    audit = _audit(cohort)
    names = {one["attribute"] for one in audit["subgroups"]["attributes"]}
    assert "sex" in names and not names & {"pfi", "os_days"}
    assert any("pfi, os_days" in one["text"] for one in audit["warnings"])
    assert {"pfi", "os_days"} <= {one["column"] for one in audit["subgroups"]["skipped"]}
    assert coverslip("train", cohort / "study.toml", "--set", 'audit.columns=["pfi"]').code == 0
    assert _audit(cohort)["subgroups"]["attributes"][0]["attribute"] == "pfi"
