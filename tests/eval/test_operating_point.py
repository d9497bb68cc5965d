"""Thresholds against every possible one, and what they do to other patients."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.base.errors import SettingsError, TableError
from coverslip.eval.operating_point import OperatingPoint, operating_point
from coverslip.eval.proportion import wilson


def rates(positive: np.ndarray, score: np.ndarray, threshold: float) -> tuple[float, float]:
    called = score >= threshold
    return float(called[positive].mean()), float((~called)[~positive].mean())


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=2, max_size=40),
    st.sampled_from(["youden", "sensitivity", "specificity"]),
    st.floats(0.05, 1.0),
)
def test_no_other_threshold_does_better_by_the_rule(pairs: list[tuple[bool, int]], rule: str, aim: float) -> None:
    positive, score = np.array([y for y, _ in pairs]), np.array([s / 12 for _, s in pairs])
    found = operating_point(positive, score, rule, None if rule == "youden" else aim)
    if positive.all() or not positive.any():
        assert found is None
        return
    hit, quiet = rates(positive, score, found.threshold)
    assert (found.sensitivity, found.specificity) == pytest.approx((hit, quiet))
    for threshold in [*np.unique(score), np.inf]:
        other_hit, other_quiet = rates(positive, score, threshold)
        if rule == "youden":
            assert hit + quiet >= other_hit + other_quiet - 1e-9
        elif rule == "sensitivity" and other_hit >= aim - 1e-12:
            assert hit >= aim - 1e-12
            assert quiet >= other_quiet
        elif rule == "specificity" and other_quiet >= aim - 1e-12:
            assert quiet >= aim - 1e-12
            assert hit >= other_hit


def test_a_threshold_lies_between_two_patients() -> None:
    found = operating_point(np.array([False, False, True, True]), np.array([0.1, 0.2, 0.6, 0.9]))
    assert found.threshold == pytest.approx(0.4)


def test_other_patients_are_measured_with_intervals_and_none_is_no_crash() -> None:
    point = operating_point(np.array([False, True]), np.array([0.1, 0.9]))
    found = point.measured(np.array([True, True, False, False]), np.array([0.7, 0.2, 0.6, 0.1]))
    assert {name: figure.value for name, figure in found.items()} == dict.fromkeys(
        ("sensitivity", "specificity", "ppv", "npv"), 0.5
    )
    assert found["ppv"].low < 0.2
    nobody = point.measured(np.array([], bool), np.array([]))
    assert nobody["sensitivity"].value is None


def test_it_survives_json_and_another_format_is_refused() -> None:
    point = operating_point(np.array([False, True, True]), np.array([0.1, 0.9, 0.4]), "sensitivity", 0.5)
    assert OperatingPoint.from_json(json.loads(json.dumps(point.to_json()))) == point
    with pytest.raises(TableError, match="operating point of format None"):
        OperatingPoint.from_json({})


def test_an_aim_that_is_none_is_refused() -> None:
    for aim in (None, 0.0, 1.2):
        with pytest.raises(SettingsError, match="fixed sensitivity aims at"):
            operating_point(np.array([False, True]), np.array([0.1, 0.9]), "sensitivity", aim)


def test_slides_of_one_patient_do_not_narrow_a_rate() -> None:
    point = operating_point(np.array([False, True]), np.array([0.0, 1.0]))
    assert point is not None
    positive, score = np.repeat([True, False], 20), np.repeat([0.9, 0.1], 20)
    patient = np.repeat([f"p{i}" for i in range(8)], 5)
    alone, together = (
        point.measured(positive, score)["sensitivity"],
        point.measured(positive, score, patient)["sensitivity"],
    )
    assert alone.value == together.value == 1
    assert (together.low, together.high) == wilson(4, 4) and (alone.low, alone.high) == wilson(20, 20)
