"""The sections of what inner predictions taught: what tissue adds, recalibration, operating points; or why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from coverslip.report import write_report


def _figure(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "interval": "mean of folds, Nadeau-Bengio, 95%"}


def _section(folder: Path, name: str) -> str:
    html = write_report([folder]).read_text()
    start = html.index(f'id="run-1-{name}"')
    return html[start : html.index("<section", start)]


def test_what_tissue_adds_is_a_sentence_and_three_figures(
    copy_of: Callable[..., Path], edit: Callable[..., Any]
) -> None:
    folder = copy_of()
    block = {
        "names": ["age", "stage"],
        "folds": 5,
        "reason": None,
        "tissue": {"auroc": _figure(0.71, 0.6, 0.8)},
        "covariates": {"auroc": _figure(0.72, 0.6, 0.8)},
        "tissue_covariates": {"auroc": _figure(0.73, 0.6, 0.8)},
        "adds": {"auroc": _figure(0.01, -0.02, 0.04)},
        "sentence": "Tissue adds little to age, stage: auroc +0.01 (-0.02 to +0.04).",
        "unseen": {"stage": 2},
    }
    edit(folder / "metrics.json", lambda metrics: metrics.update(covariates=block))
    said = _section(folder, "covariates")
    assert "Tissue adds little to age, stage" in said
    assert all(number in said for number in ("0.71", "0.72", "0.73", "0.01"))
    assert "stage (2)" in said


def test_calibration_before_and_after_and_the_thresholds_stand_together(
    copy_of: Callable[..., Path], edit: Callable[..., Any]
) -> None:
    folder = copy_of()
    entry = {"of": "p(1)", "n": 20, "came_true": 9, "ece": 0.31, "brier": {"brier": 0.2}}
    before = {**entry, "slope": _figure(0.4, 0.1, 0.8), "intercept": _figure(0.0)}
    after = {**entry, "slope": _figure(0.9, 0.2, 1.9), "intercept": _figure(0.1), "ece": 0.12}
    method = {"method": "none", "n": 16, "reason": "under 20 patients: nothing learnt"}
    block = {"folds": [{"fold": 0, "of": {"x": method}}], "before": [before], "after": [after]}
    edit(folder / "evaluation.json", lambda curves: curves.update(recalibration=block))
    rates = {name: _figure(0.77, 0.5, 0.9) for name in ("sensitivity", "specificity", "ppv", "npv")}
    point = {"of": "1", "rule": "sensitivity", "aim": 0.9, "thresholds": [0.25, None, 0.35], **rates}
    points = {"decides": "youden", "points": [point], "reason": None}
    inner = {"folds": 3, "without": {"fold1": "too few patients."}}
    edit(folder / "metrics.json", lambda metrics: metrics.update(operating_points=points, inner=inner))
    said = _section(folder, "thresholds")
    assert all(text in said for text in ("0.310", "0.120", "nothing (1 time)", "0.25 to 0.35", "0.77"))
    assert "fold1: too few patients" in said


def test_a_run_without_either_says_why(copy_of: Callable[..., Path], edit: Callable[..., Any]) -> None:
    folder = copy_of()
    edit(folder / "metrics.json", lambda metrics: metrics.update(covariates=None, operating_points=None))
    edit(folder / "evaluation.json", lambda curves: curves.update(recalibration=None))
    assert "names no covariates" in _section(folder, "covariates")
    assert "evaluation.inner_folds" in _section(folder, "thresholds")
