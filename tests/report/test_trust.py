"""The section on probabilities: what it draws and says, and that it is silent where nothing is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.special import softmax

from coverslip.base.files import finite
from coverslip.eval.kinds import KINDS
from coverslip.eval.reduce import Units
from coverslip.eval.trust import trust
from coverslip.eval.truth import Task
from coverslip.report import trust_figures
from coverslip.report.contents import RunContents
from coverslip.report.page import environment
from coverslip.report.sections import Absent
from coverslip.report.sections.trust import SECTION, _useful

NOTHING = RunContents("r", Path("nowhere"))


def run_of(n: int, k: int = 2) -> RunContents:
    rng = np.random.default_rng(0)
    y = np.arange(n) % k
    p = softmax(rng.normal(size=(n, k)) + 2 * np.eye(k)[y], axis=1)
    ids = np.arange(n).astype(str)
    classes = [f"c{i}" for i in range(k)]
    block = finite(trust(Units(ids, ids, y, p, np.arange(n) % 5), classes, out_of_fold=True))
    return replace(NOTHING, evaluation={"trust": block}, metrics={"task": {"classes": classes}})


@pytest.mark.parametrize(("n", "k"), [(200, 2), (90, 3), (6, 2), (1, 2)])
def test_every_plot_is_an_image_with_a_sentence(n: int, k: int) -> None:
    found = SECTION.build(run_of(n, k))
    assert isinstance(found, dict)
    for plot in found["plots"]:
        svg = ElementTree.fromstring(str(plot["svg"]))
        assert svg.attrib["aria-label"].endswith(".")
        assert "nan" not in str(plot["svg"]).lower()


def test_a_useful_model_is_said_to_be_useful_somewhere() -> None:
    plots = SECTION.build(run_of(400))["plots"]
    caption = next(plot["caption"] for plot in plots if plot["title"].startswith("Decision"))
    assert "treating no one from 0." in caption
    few = SECTION.build(run_of(6))["plots"]
    assert any("With 3 in the smaller class nothing is claimed." in plot["caption"] for plot in few)


def test_classes_too_few_for_sets_are_named() -> None:
    assert "Of c0, c1 there are fewer than 19" in SECTION.build(run_of(30))["sets"][0]["text"]
    assert "fewer than" not in SECTION.build(run_of(400))["sets"][0]["text"]


def test_without_the_block_it_says_so() -> None:
    assert isinstance(SECTION.build(NOTHING), Absent)


def test_curves_stay_in_their_panel() -> None:
    panel = trust_figures.Panel(-0.1, 0.4)
    assert panel.at(0.5, -9)[1] == panel.top + panel.side
    assert panel.at(0.5, 9)[1] == panel.top


def test_a_gap_between_useful_thresholds_is_no_claim() -> None:
    def point(t: float, good: bool) -> dict[str, object]:
        low = 0.1 if good else -0.1
        return {"threshold": t, "model": {"low": low}, "versus_all": {"low": low}}

    said = _useful([point(0.1, False), point(0.2, True), point(0.3, True), point(0.4, False), point(0.6, True)], 50)
    assert "from 0.20 to 0.30 and at 0.60: these models, each of the 5 thresholds by itself" in said


def units_of_kind(kind: str, n: int) -> Units:
    rng = np.random.default_rng(1)
    ids, y = np.arange(n).astype(str), np.arange(n) % 3
    p = softmax(rng.normal(size=(n, 3)) + 2 * np.eye(3)[y], axis=1)
    if kind == "multilabel":
        y, p = (y[:, None] == np.arange(2)).astype(float), p[:, :2]
    if kind == "regression":
        y, p = y.astype(float), p[:, 1:2]
    return Units(ids, ids, y, p, np.arange(n) % 5)


@pytest.mark.parametrize(
    ("kind", "n", "says"),
    [
        ("ordinal", 150, ["Decision curve of 3 or higher", "Prediction sets", "Abstention"]),
        ("multilabel", 150, ["Abstention, a", "Prediction sets of b", "no b: "]),
        (
            "regression",
            150,
            ["Prediction ranges", "units of the target", "Numbers are predicted without a probability"],
        ),
        ("regression", 12, ["100\N{NARROW NO-BREAK SPACE}% have no limits: fewer than 19 patients"]),
    ],
)
def test_every_kind_that_can_be_trusted_says_how_far(kind: str, n: int, says: list[str]) -> None:
    classes = {"ordinal": ("1", "2", "3"), "multilabel": ("a", "b"), "regression": ()}[kind]
    task = Task(kind, "x", classes, classes if kind == "multilabel" else ())
    units = units_of_kind(kind, n)
    block = finite(KINDS[kind].trust(units, task, out_of_fold=True, corrected=None, alpha=0.05, seed=0))
    run = replace(NOTHING, evaluation={"trust": block}, metrics={"task": task.to_json(), "level": "patient"})
    found = SECTION.build(run)
    assert isinstance(found, dict)
    page = environment().from_string(SECTION.template.read_text()).render(**found, run=run)
    for text in says:
        assert text in page


def test_the_raw_curve_is_drawn_beside_that_of_recalibrated_probabilities() -> None:
    units = units_of_kind("ordinal", 150)
    two = replace(units, y=(units.y > 0).astype(np.int64), p=np.stack([units.p[:, 0], 1 - units.p[:, 0]], axis=1))
    corrected = replace(two, p=0.5 + (two.p - 0.5) / 2)
    block = finite(trust(two, ("no", "yes"), out_of_fold=True, corrected=corrected))
    run = replace(NOTHING, evaluation={"trust": block}, metrics={"task": {"classes": ["no", "yes"]}})
    (plot,) = [one for one in SECTION.build(run)["plots"] if one["title"].startswith("Decision")]
    assert "Of the recalibrated probabilities; dots are the raw ones" in plot["caption"]
    assert str(plot["svg"]).count("<circle") > 5
