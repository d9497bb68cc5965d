"""The page of a comparison: self-contained, its figures drawn, what is said shown, no id where none may be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from coverslip.base.errors import SettingsError, StoreError
from coverslip.report import write_comparison
from coverslip.report.compared import rank_figure, render_comparison


def interval(value: float, half: float = 0.05) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "interval": "mean of folds"}


def method(name: str, folds: list[float | None], rank: float) -> dict[str, Any]:
    known = [value for value in folds if value is not None]
    value = interval(sum(known) / len(known))
    return {
        "name": name,
        "method": name.split(":")[0],
        "options": {"heads": 2} if ":" in name else {},
        "fit": {},
        "grid": {},
        "used": {"lr": [1e-3], "batch": [1, 4], "epochs": [20], "best_epoch": []},
        "run": f"runs/{name}",
        "value": value,
        "figures": {"auroc": value},
        "folds": folds,
        "rank": interval(rank, 0.5),
        "failed": {} if None not in folds else {"fold1": "slide case-07: <b>NaN</b>"},
        "cost": {
            "parameters": 1234,
            "train_seconds": 2.5,
            "train_cpu_seconds": 2.0,
            "peak_mb": None,
            "memory_of": "process",
            "seconds_per_1000_tiles": 0.01,
        },
    }


def gap(name: str, value: float, p: float | None) -> dict[str, Any]:
    return {"method": name, "value": 0.8, "difference": interval(value), "statistic": 1.0, "p": p, "p_holm": p}


@pytest.fixture
def found() -> dict[str, Any]:
    linear = method("mean+sd logistic", [0.7, 0.8], 3.0)
    linear["cost"] = {"parameters": 9, "train_seconds": 0.1, "train_cpu_seconds": 0.1}
    family = {"metric": "auroc", "test": "corrected t", "family": "2 methods against abmil on auroc"}
    return {
        "format": "coverslip.compare/1",
        "name": "lesion",
        "task": {"kind": "classification", "column": "lesion", "classes": ["0", "1"]},
        "level": "patient",
        "metric": "auroc",
        "shown": ["auroc"],
        "split": "0123456789abcdef",
        "counts": {"patients": 40, "slides": 44},
        "folds": [{"fold": i, "repeat": 0, "name": f"fold{i}", "train": 20, "test": 20} for i in range(2)],
        "methods": [
            method("abmil", [0.8, 0.9], 1.5),
            method("mean", [0.75, None], 2.5),
            method("abmil:heads=2", [0.6, 0.5], 3.0),
        ],
        "linear": linear,
        "left_out": {"transmil": "case-07: no positions"},
        "reference": {
            **family,
            "reference": {"method": "abmil", "value": 0.85},
            "methods": [gap("mean", -0.1, 0.3), gap("abmil:heads=2", -0.3, 0.01)],
        },
        "baseline": {
            **family,
            "reference": {"method": "mean+sd logistic", "value": 0.75},
            "methods": [gap("abmil", 0.1, 0.02), gap("mean", 0.0, None), gap("abmil:heads=2", -0.2, 0.3)],
        },
        "noise": "Of 2 methods tested, 1 is shown to differ.",
        "choice": {"method": "abmil", "reasons": ["abmil: the declared reference."], "others": ["mean: no."]},
        "margin": 0.02,
        "hours": {"clock": 0.5, "processor": 1.0},
        "warnings": ["case-07 was left out."],
    }


def test_the_page_shows_figures_choice_cost_and_what_failed(found: dict[str, Any]) -> None:
    page = render_comparison(found)
    for text in ("Take abmil.", "1 is shown to differ", "no positions", "Holm", "heads = 2", "1 to 4", "0.850", "1.5"):
        assert text in page, text
    assert page.count("<svg class=") == 4
    assert re.search(r'badge fail">worse', page) and re.search(r'badge ok">better', page)
    assert "no difference shown" in page


def test_the_page_is_one_file_and_escapes_what_users_wrote(found: dict[str, Any]) -> None:
    page = render_comparison(found)
    assert "<script" not in page and "http://" not in page and "src=" not in page.replace("img-src", "")
    assert "<b>NaN</b>" not in page and "&lt;b&gt;NaN" in page


def test_a_leak_stands_above_everything(found: dict[str, Any]) -> None:
    page = render_comparison({**found, "warnings": ["LEAK. Patient p1 is on both sides."]})
    assert page.index("Patients leak between training and test") < page.index("Take abmil.")


def test_nothing_ranked_is_said(found: dict[str, Any]) -> None:
    for one in (*found["methods"], found["linear"]):
        one["rank"] = None
    assert "nothing is ranked" in render_comparison(found)
    assert rank_figure([], "abmil", "linear") is None


def test_ranks_are_drawn_best_first() -> None:
    drawn = str(rank_figure([("b", interval(2.0)), ("a", interval(1.0))], "b", "linear"))
    assert drawn.index(">a<") < drawn.index(">b<")
    assert "the reference" in drawn and "a 1.0" in drawn


def test_a_pseudonymised_page_names_no_slide(found: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text(json.dumps(found))
    (tmp_path / "outcomes.csv").write_text("slide,stage,status,reason,seconds\ncase-07,features,failed,x,\n")
    page = write_comparison(tmp_path, pseudonymise=True).read_text(encoding="utf-8")
    assert "case-07" not in page and "pseudonymised" in page and "Take abmil." in page
    assert "case-07" in write_comparison(tmp_path).read_text(encoding="utf-8")


def test_a_folder_without_a_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no comparison"):
        write_comparison(tmp_path)
    (tmp_path / "compare.json").write_text('{"format": "coverslip.compare/9"}')
    with pytest.raises(StoreError, match="compare/9"):
        write_comparison(tmp_path)
