"""`coverslip predict` asks another cohort what a run asks its own: sites, subgroups, whether tiles tell their slide."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from feature_study import KINDS, kind_options, write_kinds, write_study

QUICK = ("--set", "evaluation.inner_folds=0", "--set", "audit.enabled=true", "--set", "audit.resamples=100")


def _predicted(run: Path, new: Path, out: Path, coverslip: Callable[..., Any]) -> dict[str, Any]:
    said = coverslip("predict", run, new / "cohort.csv", "--features", new / "features", "--out", out)
    assert said.code == 0, said.err
    found: dict[str, Any] = json.loads((out / "audit.json").read_text())
    return found


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Sixty patients to learn from, sixty others of three sites to test on."""
    folder = tmp_path_factory.mktemp("audited")
    write_kinds(folder / "old", 60)
    write_kinds(folder / "new", 60, seed=5, start=100)
    table = pd.read_csv(folder / "new" / "cohort.csv")
    table.assign(site=["north", "south", "east"] * 20).to_csv(folder / "new" / "cohort.csv", index=False)
    return folder / "old", folder / "new"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("survival_")])
def test_sites_of_another_cohort_are_asked_for_every_kind(
    kind: str, cohorts: tuple[Path, Path], tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    old, new = cohorts
    said = coverslip("train", old / "study.toml", *kind_options(kind), "--set", f"output={tmp_path / 'run'}", *QUICK)
    assert said.code == 0, said.err
    audit = _predicted(tmp_path / "run", new, tmp_path / "out", coverslip)
    sites = audit["sites"]
    assert sites["reason"] is None
    assert sites["site_from_features"]["auroc"]["value"] is not None
    for name, part in (sites.get("labels") or {kind: sites}).items():
        probe, within = part["label_from_site"], part["within_sites"]
        assert probe["value"] is not None or probe["reason"], name
        assert within["within"] is None or within["within"]["value"] > 0.5, name
        assert within["within"] is not None or within["reason"], name
    assert sites.get("labels", {}).keys() == ({"lesion", "hole"} if kind == "multilabel" else set())
    assert audit["collapse"]["accuracy"] is not None and audit["collapse"]["slides"] == 60
    page = coverslip("report", tmp_path / "out")
    assert page.code == 0, page.err
    text = (tmp_path / "out" / "report.html").read_text()
    assert "features tell the site" in text and "p 0.000" not in text


def test_a_declared_covariate_with_the_name_of_an_outcome_is_a_covariate_of_another_cohort_too(
    tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    columns: dict[str, list[Any]] = {"prior_relapse": ["no", "no", "yes", "yes"], "died": [0, 0, 1, 1]}
    write_study(tmp_path / "old", 40, **columns)
    write_study(tmp_path / "new", 48, **columns)
    table = pd.read_csv(tmp_path / "new" / "cohort.csv")
    table.assign(patient="new-" + table["patient"]).to_csv(tmp_path / "new" / "cohort.csv", index=False)
    declared = ("--set", 'cohort.covariates=["prior_relapse"]', "--set", "audit.enabled=true")
    assert coverslip("train", tmp_path / "old" / "study.toml", *declared).code == 0
    groups = _predicted(tmp_path / "old" / "run", tmp_path / "new", tmp_path / "out", coverslip)["subgroups"]
    assert [one["attribute"] for one in groups["attributes"]] == ["prior_relapse"]
    assert [one["column"] for one in groups["skipped"]] == ["died"]


def test_without_outcomes_or_sites_the_reason_stands_there(
    cohorts: tuple[Path, Path], tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    old, new = cohorts
    run = tmp_path / "run"
    options = (*kind_options("regression"), "--set", f"output={run}", *QUICK)
    assert coverslip("train", old / "study.toml", *options).code == 0
    table = pd.read_csv(new / "cohort.csv")
    for name, dropped, reason in (("bare", ["amount"], "no outcome is known"), ("one", ["site"], "no column 'site'")):
        table.drop(columns=dropped).to_csv(new / f"{name}.csv", index=False)
        said = coverslip("predict", run, new / f"{name}.csv", "--features", new / "features", "--out", tmp_path / name)
        assert said.code == 0, said.err
        audit = json.loads((tmp_path / name / "audit.json").read_text())
        assert reason in audit["sites"]["reason"]
        assert audit["collapse"]["accuracy"] is not None
