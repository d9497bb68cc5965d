"""Figures: well-formed SVG whose marks lie where the numbers say."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from coverslip.report import figures
from coverslip.report.figures import Curve, History, Row


def parsed(svg: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(str(svg))


def marks(svg: Markup, cls: str, tag: str = "circle") -> list[dict[str, str]]:
    return [e.attrib for e in parsed(svg).iter(tag) if e.attrib.get("class") == cls]


def test_a_label_with_markup_stays_text() -> None:
    svg = figures.roc([Curve([0, 1], [0, 1], "model", '<b>"&')], '<script>"&')
    assert parsed(svg).attrib["aria-label"] == '<script>"&'
    assert "<script>" not in svg and "<b>" not in svg


def test_the_corners_of_a_perfect_roc_curve_lie_in_the_corners() -> None:
    svg = figures.roc([Curve([0, 0, 1], [0, 1, 1], "model")], "x")
    square = figures.Square()
    path = marks(svg, "curve model", "path")[0]["d"]
    wanted = [square.at(0, 0), square.at(0, 1), square.at(1, 1)]
    assert path == "M" + "L".join(f"{x:g} {y:g}" for x, y in wanted)


def test_precision_is_drawn_in_steps_as_its_area_is_computed() -> None:
    svg = figures.precision_recall([Curve([0.5, 1.0], [1.0, 0.6], "model")], 0.5, "x")
    square = figures.Square()
    path = marks(svg, "curve model", "path")[0]["d"]
    wanted = [square.at(0, 1), square.at(0.5, 1), square.at(0.5, 0.6), square.at(1, 0.6)]
    assert path == "M" + "L".join(f"{x:g} {y:g}" for x, y in wanted)


def test_a_reliability_point_grows_with_those_behind_it() -> None:
    bins = [
        {"from": 0.1, "to": 0.2, "stated": 0.15, "observed": 0.1, "n": 40, "low": 0.05, "high": 0.2},
        {"from": 0.8, "to": 0.9, "stated": 0.85, "observed": 0.9, "n": 5, "low": 0.5, "high": 0.99},
    ]
    sizes = [float(dot["r"]) for dot in marks(figures.reliability(bins, "x"), "dot model")]
    assert sizes[0] > sizes[1] > 2


@pytest.mark.parametrize("k", [2, 3, 5, 12])
def test_a_confusion_matrix_shows_every_count(k: int) -> None:
    counts = [[100 * i + j for j in range(k)] for i in range(k)]
    texts = {e.text for e in parsed(figures.confusion(counts, [f"class {i}" for i in range(k)], "x")).iter("text")}
    assert {f"{n:,}".replace(",", "\u202f") for row in counts for n in row} <= texts


def test_an_empty_true_class_divides_by_nothing() -> None:
    assert "–" in figures.confusion([[3, 1], [0, 0]], ["0", "1"], "x")


numbers = st.floats(-1, 1, allow_nan=False)


@given(st.lists(st.tuples(numbers, numbers, numbers, st.lists(numbers, max_size=6)), min_size=1, max_size=6))
def test_nothing_in_a_forest_lies_outside_its_axis(rows: list[tuple[float, float, float, list[float]]]) -> None:
    drawn = [
        Row(f"r{i}", "n", {"value": sorted(v)[1], "low": min(v), "high": max(v)}, "model", points)
        for i, (*v, points) in enumerate(rows)
    ]
    svg = figures.forest(drawn, "x", title="t", reference=0.5, width=760, label_width=190)
    for circle in marks(svg, "fold model"):
        assert 190 - 0.1 <= float(circle["cx"]) <= 630.1
    for line in marks(svg, "whisker model", "line"):
        assert 190 - 0.1 <= float(line["x1"]) <= float(line["x2"]) + 0.1 <= 630.3


@pytest.mark.parametrize("figure", [None, {}, {"value": None}, {"value": math.nan}, {"value": 0.7, "low": None}])
def test_a_row_without_a_number_or_an_interval_is_drawn_all_the_same(figure: Any) -> None:
    svg = figures.forest([Row("north", "n = 3", figure, absent="too few")], "x", reference=0.5)
    assert ("too few" in svg) == (not (figure or {}).get("value") or math.isnan(figure["value"]))


def test_equal_folds_step_aside_and_are_seen_as_several() -> None:
    svg = figures.forest([Row("m", "", {"value": 0.8}, "model", [0.8, 0.8, 0.8, 0.6])], "x")
    places = {(dot["cx"], dot["cy"]) for dot in marks(svg, "fold model")}
    assert len(places) == 4


def test_a_history_marks_the_epoch_that_was_kept() -> None:
    tune = [(0, 0.7), (1, 0.5), (2, 0.6)]
    svg = figures.history(History("fold 1", [(0, 0.7), (1, 0.4), (2, 0.2)], tune, 1))
    assert len(marks(svg, "dot model")) == 1
    assert "tuning loss 0.500 at epoch 1" in parsed(svg).attrib["aria-label"]
    assert not marks(figures.history(History("fold 1", [], tune, None)), "dot model")
