"""Cohorts that are too poor for figures, through `train` and `predict`: numbers with wide intervals or null with the
reason, an error that names what is missing, never a crash and never an interval without width."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_study import KINDS, kind_options, write_kinds

QUICK = ("--set", "fit.batch=16", "--set", "audit.enabled=true", "--set", "audit.resamples=100")
TIMES = ("survival", "survival_cox", "survival_parametric", "competing_risks")


def figures(found: Any) -> Iterator[dict[str, Any]]:
    """Every figure with an interval, wherever it stands."""
    if isinstance(found, dict):
        if {"value", "low", "high"} <= set(found) and not isinstance(found["value"], list):
            yield found  # a curve has lists of limits
        for part in found.values():
            yield from figures(part)
    elif isinstance(found, list):
        for part in found:
            yield from figures(part)


def check(folder: Path) -> None:
    for name in ("metrics", "evaluation", "audit"):
        path = folder / f"{name}.json"
        for figure in figures(json.loads(path.read_text()) if path.is_file() else {}):
            low, value, high = (figure[part] for part in ("low", "value", "high"))
            # A limit may be missing on one side: the slope of classes that are separated has none above.
            if None not in (low, high):
                assert low < high, figure
            if value is not None:
                assert low is None or low <= value + 1e-9, figure
                assert high is None or high >= value - 1e-9, figure


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("poor")
    write_kinds(folder / "old", 24)
    write_kinds(folder / "new", 12, seed=5, start=100)
    return folder


def spoil(table: pd.DataFrame, how: str) -> pd.DataFrame:
    n = len(table)
    if how == "one site":
        return table.assign(site="north")
    if how == "one class in a site":
        return table.assign(site=np.where(table["lesion"] == 1, "north", "south"))
    if how == "ties":
        return table.assign(days=100.0, amount=np.where(table["lesion"] == 1, 2.0, 1.0))
    if how == "a subgroup of 1 and missing values":
        rare = ["rare"] + ["usual"] * (n - 1)
        return table.assign(age=[None, *range(40, 39 + n)], stage=rare)
    if how == "5 patients":
        return table.head(5)
    raise AssertionError(how)


@pytest.mark.parametrize(
    "kind", ["classification", "multilabel", "regression", "ordinal", "survival", "competing_risks"]
)
@pytest.mark.parametrize(
    "how", ["one site", "one class in a site", "ties", "a subgroup of 1 and missing values", "5 patients"]
)
def test_a_poor_cohort_is_predicted_without_a_false_interval(
    kind: str, how: str, cohort: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    run = cohort / f"run-{kind}"
    if not (run / "metrics.json").is_file():
        said = coverslip("train", cohort / "old" / "study.toml", *kind_options(kind), "--set", f"output={run}", *QUICK)
        assert said.code == 0, said.err
        check(run)
    spoil(pd.read_csv(cohort / "new" / "cohort.csv"), how).to_csv(tmp_path / "new.csv", index=False)
    features = cohort / "new" / "features"
    said = coverslip("predict", run, tmp_path / "new.csv", "--features", features, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    check(tmp_path / "out")


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("events", [0, 1])
def test_another_cohort_with_hardly_an_event_has_figures_without_false_intervals(
    kind: str, events: int, cohort: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    run = cohort / f"run-{kind}"
    if not (run / "metrics.json").is_file():
        said = coverslip("train", cohort / "old" / "study.toml", *kind_options(kind), "--set", f"output={run}", *QUICK)
        assert said.code == 0, said.err
    table = pd.read_csv(cohort / "new" / "cohort.csv")
    ended = [1] * events + [0] * (len(table) - events)
    table.assign(died=ended, cause=ended).to_csv(tmp_path / "new.csv", index=False)
    features = cohort / "new" / "features"
    said = coverslip("predict", run, tmp_path / "new.csv", "--features", features, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    check(tmp_path / "out")
    figure = json.loads((tmp_path / "out" / "metrics.json").read_text())["external"]["c_index"]
    if events == 0:
        assert figure["value"] is None and figure["reason"]
    else:
        assert figure["low"] is None or figure["high"] - figure["low"] > 0.3


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("patients", [5, 8])
def test_a_handful_of_patients_is_trained_on_or_refused_with_the_reason(
    kind: str, patients: int, cohort: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    table = pd.read_csv(cohort / "old" / "cohort.csv").head(patients)
    table.assign(site="north", age=[None, *range(40, 39 + patients)]).to_csv(cohort / "old" / "few.csv", index=False)
    options = (*kind_options(kind), "--set", "cohort.table=few.csv", "--set", f"output={tmp_path / 'run'}", *QUICK)
    said = coverslip("train", cohort / "old" / "study.toml", *options, "--set", 'cohort.covariates=["age"]')
    if said.code == 0:
        check(tmp_path / "run")
    else:
        assert said.code == 2 and "\nerror " in f"\n{said.err}" and "Traceback" not in said.err, said.err


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("events", [0, 1])
def test_hardly_an_event_to_learn_from_is_refused_or_has_no_false_interval(
    kind: str, events: int, cohort: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    table = pd.read_csv(cohort / "old" / "cohort.csv")
    ended = [1] * events + [0] * (len(table) - events)
    table.assign(died=ended, cause=ended).to_csv(cohort / "old" / "events.csv", index=False)
    options = (*kind_options(kind), "--set", "cohort.table=events.csv", "--set", f"output={tmp_path / 'run'}", *QUICK)
    said = coverslip("train", cohort / "old" / "study.toml", *options)
    if said.code == 0:
        check(tmp_path / "run")
    else:
        assert said.code == 2 and "\nerror " in f"\n{said.err}" and "Traceback" not in said.err, said.err
