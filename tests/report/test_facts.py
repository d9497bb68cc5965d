"""What is said of a slide beside its map, for tasks where a class is decided and for those where none is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coverslip.report.contents import Map, RunContents
from coverslip.report.facts import slide_results, slide_values
from coverslip.report.sections.heatmaps import groups

ROWS = {"slide": ["a", "b"], "patient": ["p", "q"], "fold": [0, 1]}
OTHER = ("other at 120", "risk cancer 0.20, risk other 0.50")
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], list[tuple[str, str]]]] = {
    "regression": (
        {"column": "ki67", "classes": []},
        {"ki67": ["12", "40.5"], "value": [15.0, 30.0]},
        [("40.5", "value 30.00"), ("12", "value 15.00")],
    ),
    "multilabel": (
        {"column": "er, pr", "columns": ["er", "pr"], "classes": ["er", "pr"]},
        {"er": [1.0, 0.0], "pr": [float("nan"), 1.0], "p_er": [0.9, 0.2], "p_pr": [0.4, 0.6]},
        [("er, pr unknown", "er 0.90, pr 0.40"), ("no er, pr", "er 0.20, pr 0.60")],
    ),
    "survival": (
        {"column": "died", "columns": ["days", "died"], "classes": [], "grid": [100]},
        {"days": [120.0, 80.5], "died": ["0", "1"], "risk": [0.2, 0.7], "s_100": [0.8, 0.3]},
        [("event at 80.5", "risk 0.70"), ("no event up to 120", "risk 0.20")],
    ),
    "competing_risks": (
        {"column": "cause", "columns": ["days", "cause"], "classes": ["cancer", "other"], "grid": [100]},
        {"days": [120.0, 80.5], "cause": ["other", "0"], "risk_cancer": [0.2, 0.7], "risk_other": [0.5, 0.1]},
        [
            ("no event up to 80.5", "risk cancer 0.70, risk other 0.10"),
            ("other at 120", "risk cancer 0.20, risk other 0.50"),
        ],
    ),
}


def run_of(kind: str, task: dict[str, Any], columns: dict[str, Any]) -> RunContents:
    run = RunContents("r", Path("nowhere"), metrics={"task": {"kind": kind, **task}})
    maps = (Map("a", None, "evidence", "higher"), Map("b", None, "evidence", "higher"))
    return replace(run, predictions=pd.DataFrame({**ROWS, **columns}), maps=maps)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_what_is_no_class_say_what_was_true_and_what_was_predicted(kind: str) -> None:
    task, columns, expected = KINDS[kind]
    run = run_of(kind, task, columns)
    assert slide_results(run) == {}
    found = sorted(slide_values(run).values(), key=lambda one: -one.order)
    assert [(one.true, one.predicted) for one in found] == expected
    (group,), hidden = groups(run)
    assert (group.title, group.wrong, hidden) == ("From the highest prediction to the lowest (2)", False, 0)
    assert [card.value for card in group.cards] == found
    assert group.cards[0].target == "higher"


def test_of_levels_the_median_is_decided() -> None:
    p = {"p_1": [0.4, 0.3], "p_2": [0.15, 0.1], "p_3": [0.45, 0.6]}
    run = run_of("ordinal", {"column": "grade", "classes": ["1", "2", "3"]}, {"grade": ["2", "1"], **p})
    assert [(one.decided, one.right) for one in slide_results(run).values()] == [("2", True), ("3", False)]
    assert slide_values(run) == {}
    assert [group.wrong for group in groups(run)[0]] == [True, False]
