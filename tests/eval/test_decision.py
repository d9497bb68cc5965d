"""Net benefit by hand, and intervals that have a width and hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from coverslip.eval.decision import decision_curve


def test_net_benefit_is_what_a_hand_computes() -> None:
    positive = np.array([True, True, False, False, False])
    p = np.array([0.9, 0.3, 0.6, 0.2, 0.1])
    (entry,) = decision_curve(positive, p, thresholds=[0.25])
    # Two true positives, one false: 2/5 - 1/5 x 1/3. All: 2/5 - 3/5 x 1/3.
    assert entry["model"]["value"] == pytest.approx(2 / 5 - 1 / 15)
    assert entry["all"] == pytest.approx(2 / 5 - 1 / 5)
    assert entry["versus_all"]["value"] == pytest.approx(entry["model"]["value"] - entry["all"])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60))
def test_intervals_hold_the_figure_and_have_a_width(pairs: list[tuple[bool, float]]) -> None:
    positive, p = np.array([y for y, _ in pairs]), np.array([s for _, s in pairs])
    for entry in decision_curve(positive, p):
        for name in ("model", "versus_all"):
            figure = entry[name]
            assert figure["low"] <= figure["value"] + 1e-12
            assert figure["value"] <= figure["high"] + 1e-12
            assert figure["high"] - figure["low"] > 0.01
        assert entry["versus_all"]["value"] == pytest.approx(entry["model"]["value"] - entry["all"], abs=1e-9)


def test_slides_of_one_patient_are_no_more_patients() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(60)
    positive = rng.random(60) < p
    copies = np.repeat(np.arange(60), 4)
    (one,), (four,) = (
        decision_curve(positive, p, thresholds=[0.3]),
        decision_curve(positive[copies], p[copies], copies, thresholds=[0.3]),
    )
    assert four["model"] == pytest.approx(one["model"])


def test_intervals_cover_what_they_state_with_few_events() -> None:
    rng = np.random.default_rng(1)
    big_p = expit(rng.normal(-2, 1.5, 400_000))
    big_y = rng.random(400_000) < big_p
    truth = decision_curve(big_y, big_p, thresholds=[0.2])[0]
    covered = np.zeros(2)
    runs = 800
    for _ in range(runs):
        p = expit(rng.normal(-2, 1.5, 40))
        (found,) = decision_curve(rng.random(40) < p, p, thresholds=[0.2])
        for i, name in enumerate(("model", "versus_all")):
            covered[i] += found[name]["low"] <= truth[name]["value"] <= found[name]["high"]
    assert (covered / runs > 0.93).all()


def test_nobody_is_no_crash() -> None:
    assert decision_curve(np.array([], bool), np.array([])) == []
