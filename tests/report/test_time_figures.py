"""What is drawn of times: each figure of evaluation.json with a sentence, at the places that its numbers have."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coverslip.eval.kinds import KINDS
from coverslip.eval.reduce import Units
from coverslip.eval.survival import round_up
from coverslip.eval.truth import Task
from coverslip.report import time_calibration
from coverslip.report.contents import RunContents
from coverslip.report.figures import reliability
from coverslip.report.sections import SECTIONS
from coverslip.report.sections.warnings import cautions
from coverslip.report.time_figures import time_figures
from coverslip.report.wording import metric_label

GRID = (100.0, 200.0, 300.0)


def units_of(kind: str, n: int = 60) -> tuple[Units, Task]:
    """Patients whose first cause comes early where their predicted risk of it is high."""
    rng = np.random.default_rng(0)
    risk = rng.uniform(size=n)
    time, end = rng.exponential(200 * np.exp(1 - 2 * risk)), rng.uniform(150, 400, n)
    event = (time < end) * (1 + (rng.uniform(size=n) < 0.3) * (kind == "competing_risks"))
    gone = 1 - np.exp(-np.outer(np.exp(2 * risk - 1) / 200, GRID))
    y = np.stack([np.minimum(time, end), event], axis=1).astype(float)
    if kind == "competing_risks":
        p = np.concatenate([risk[:, None], 1 - risk[:, None], gone / 2, gone / 2], axis=1)
        task = Task(kind, "cause", ("cancer", "2"), ("days", "cause"), GRID)
    else:
        p = np.concatenate([risk[:, None], 1 - gone], axis=1)
        task = Task(kind, "died", (), ("days", "died"), GRID)
    names = np.array([f"p{i}" for i in range(n)])
    return Units(names, names, y, p), task


def run_of(kind: str) -> RunContents:
    units, task = units_of(kind)
    return RunContents("r", Path("nowhere"), evaluation=KINDS[kind].curves(units, task))


def circles(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]


def test_survival_has_its_curves_its_ranking_and_its_calibration_at_fixed_times() -> None:
    run = run_of("survival")
    found = {one["title"]: one for one in time_figures(run)}
    assert list(found) == ["Survival by risk", "AUROC by time", *(f"Calibration at {t:g}" for t in GRID)]
    assert all(one["caption"].endswith(".") and "Patient level" in one["caption"] for one in found.values())
    ranks = run.evaluation["auroc_at"]  # type: ignore[index]
    places = circles(found["AUROC by time"]["svg"])
    assert [x for x, _ in places] == pytest.approx([46 + 280 * t / 300 for t in GRID], abs=0.1)
    assert [y for _, y in places] == pytest.approx([14 + 280 * (1 - one["auroc"]) for one in ranks], abs=0.1)
    assert f"{ranks[0]['events']} events" in found["AUROC by time"]["caption"]
    bins = run.evaluation["calibration_at"][1]["bins"]  # type: ignore[index]
    assert len(circles(found["Calibration at 200"]["svg"])) == len(bins)
    assert f"stated {bins[0]['stated']:.2f}, observed {bins[0]['observed']:.2f}" in found["Calibration at 200"]["svg"]


def test_those_followed_are_counted_under_the_ticks_of_the_axis() -> None:
    svg = time_figures(run_of("survival"))[0]["svg"]
    ticks = re.findall(r'<text x="([\d.]+)" y="309" class="tick"', svg)
    counted = re.findall(r'<text x="([\d.]+)" y="358" class="tick"', svg)
    assert len(ticks) == 6 and counted == ticks


def test_competing_risks_have_the_incidence_of_each_cause() -> None:
    found = time_figures(run_of("competing_risks"))
    assert [one["title"] for one in found] == ["Incidence of cancer by its risk", "Incidence of cause 2 by its risk"]
    assert "has had cause 2" in found[1]["svg"] and "stays counted" in found[1]["caption"]
    assert found[0]["svg"].count("with the event") == 4  # two groups, in the legend and in the words for who cannot see


def test_other_kinds_and_groups_that_nobody_was_followed_in_draw_nothing() -> None:
    empty = {"groups": [{"name": "lower risk", "patients": 0, "events": 0, "time": [0.0], "value": [1.0]}]}
    run = run_of("survival")
    assert time_figures(replace(run, evaluation={"confusion": {}})) == []
    assert time_figures(replace(run, evaluation={"risk_groups": empty, "auroc_at": [{"auroc": None}]})) == []


def test_numbers_over_crowded_points_do_not_touch() -> None:
    bins: list[dict[str, Any]] = [{"n": 12, "stated": 0.5 + 0.004 * i, "observed": 0.5} for i in range(5)]
    places = [
        float(x)
        for x in re.findall(r'<text x="([\d.]+)" y="19" class="tick" text-anchor="middle"', reliability(bins, ""))
    ]
    assert np.diff(places) == pytest.approx(np.full(4, 17.0), abs=0.11)
    assert np.mean(places) == pytest.approx(46 + 268 * 0.508, abs=0.2)


@pytest.mark.parametrize(("value", "end"), [(376.2, 400), (3000, 3000), (0.12, 0.15), (9.1, 10), (0, 1)])
def test_an_axis_ends_at_a_round_number(value: float, end: float) -> None:
    assert round_up(value) == pytest.approx(end)


def test_a_figure_of_one_class_or_cause_says_which() -> None:
    assert metric_label("c_index_heart_failure") == "C-index, heart failure"
    assert metric_label("auroc_from_3") == "AUROC, from 3"
    assert metric_label("auroc_time") == "Time-dependent AUROC"
    assert metric_label("auroc_time_2") == "Time-dependent AUROC, 2"
    assert metric_label("own_figure") == "own figure"


def test_curves_have_bands_and_points_of_ranking_have_intervals() -> None:
    run = run_of("survival")
    found = {one["title"]: one for one in time_figures(run)}
    assert found["Survival by risk"]["svg"].count('class="band hue') == 2
    assert "band model" in found["AUROC by time"]["svg"] and "Newcombe" in found["AUROC by time"]["caption"]
    assert run.evaluation is not None
    old = dict(run.evaluation["risk_groups"])
    old["groups"] = [{k: v for k, v in g.items() if k not in ("low", "high")} for g in old["groups"]]
    assert "band" not in time_figures(replace(run, evaluation={"risk_groups": old}))[0]["svg"]


def block(*groups: tuple[float, float | None, float | None, float | None], overall: Any = None) -> dict[str, Any]:
    made = [{"n": 50, "stated": s, "observed": o, "low": low, "high": high} for s, o, low, high in groups]
    return {"time": 365.0, "of": "the event by 365", "interval": "Kaplan-Meier, 95%", "overall": overall, "bins": made}


def test_calibration_that_is_off_is_said_in_a_sentence_and_a_warning() -> None:
    off = {"n": 100, "stated": 0.003, "observed": 0.04, "low": 0.02, "high": 0.08}
    run = RunContents(
        "r", Path("nowhere"), evaluation={"calibration_at": [block((0.003, 0.04, 0.02, 0.08), overall=off)]}
    )
    (said,) = time_calibration.summary(run)
    assert "0.003 on average, 0.040 had it (0.020 to 0.080): stated too low" in said and "1 too low" in said
    assert [c.headline for c in cautions(run) if "come true" in c.headline]
    page = SECTIONS.load("trust").build(run)
    assert isinstance(page, dict) and "do not come true" in page["verdict"]


def test_calibration_says_no_more_than_its_limits() -> None:
    fine = RunContents(
        "r", Path("x"), evaluation={"calibration_at": [block((0.1, 0.1, 0.05, 0.2), (0.3, 0.5, 0.2, 0.7))]}
    )
    assert not time_calibration.is_off(fine) and "Nothing speaks against" in time_calibration.verdict(fine)
    silent = RunContents("r", Path("x"), evaluation={"calibration_at": [block((0.1, 0.0, None, None))]})
    assert "cannot be judged" in time_calibration.verdict(silent)
    assert "1 group cannot be judged" in time_calibration.summary(silent)[0]
