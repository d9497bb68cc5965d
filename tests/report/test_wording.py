"""Numbers are written in one way, and a null is never a number."""

from __future__ import annotations

import math

import pytest

from coverslip.report import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.914, "0.91"), (1, "1.00"), (-0.05, "−0.05"), (-0.001, "0.00"), (None, "–"), (math.nan, "–"), (True, "–")],
)
def test_numbers(value: object, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0012, "0.0012"), (-0.21, "−0.21"), (1.234, "1.2"), (0.0, "0"), (-0.0, "0"), (None, "–")]
)
def test_small_scores_keep_their_digits(value: object, text: str) -> None:
    assert wording.score(value) == text


def test_intervals_need_both_ends() -> None:
    assert wording.span({"low": 0.8, "high": 0.983}) == "0.80 to 0.98"
    assert wording.span({"low": 0.8, "high": None}) == "–"
    assert wording.span(None) == "–"


def test_counts_shares_and_durations() -> None:
    assert wording.count(12345) == "12\u202f345"
    assert wording.percent(1, 3) == "33\u202f%"
    assert wording.percent(1, 0) == "–"
    assert [wording.seconds(s) for s in (42, 600, 7500, None)] == ["42 s", "10 min", "2 h 5 min", "–"]


def test_lists_are_sentences() -> None:
    assert wording.listing([]) == ""
    assert wording.listing(["a"]) == "a"
    assert wording.listing(["a", "b", "c"]) == "a, b and c"
    assert wording.listing(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert wording.plural(1, "patient") == "1 patient"
    assert wording.plural(2, "slide") == "2 slides"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0004, "p < 0.001"), (0.001, "p 0.001"), (0.9, "p 0.900"), (None, "p –"), (0.0, "p < 0.001")]
)
def test_no_p_is_nought(value: object, text: str) -> None:
    assert wording.p_value(value) == text
