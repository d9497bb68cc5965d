"""Proportions against statsmodels and the published examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from coverslip.eval.proportion import clopper_pearson, effective_patients, proportion, wilson


def test_wilson_is_what_the_formula_gives() -> None:
    # 8 of 10 with z = 1.959964
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    # Newcombe 1998 (Statistics in Medicine 17:857), 81 of 263 and 15 of 148
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_clopper_pearson_is_what_newcombes_examples_give() -> None:
    assert clopper_pearson(81, 263) == pytest.approx((0.2527, 0.3676), abs=5e-5)
    assert clopper_pearson(15, 148) == pytest.approx((0.0578, 0.1617), abs=5e-5)
    assert clopper_pearson(0, 20) == pytest.approx((0.0, 0.1684), abs=5e-5)
    assert clopper_pearson(1, 29) == pytest.approx((0.0009, 0.1776), abs=5e-5)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (3, 7), (0, 400), (399, 400), (250, 1000)])
def test_both_are_those_of_statsmodels(hits: int, n: int) -> None:
    proportions = pytest.importorskip("statsmodels.stats.proportion", reason="statsmodels is not installed")
    theirs = proportions.proportion_confint(hits, n, method="wilson")
    assert wilson(hits, n) == pytest.approx(theirs, abs=1e-9)
    theirs = proportions.proportion_confint(hits, n, method="beta")
    assert clopper_pearson(hits, n) == pytest.approx(np.nan_to_num(theirs), abs=1e-9)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_intervals_hold_the_estimate_have_a_width_and_mirror(counts: tuple[int, int]) -> None:
    hits, n = counts
    for interval in (wilson, clopper_pearson):
        low, high = interval(hits, n)
        assert 0 <= low <= hits / n <= high <= 1
        assert low < high
        assert interval(n - hits, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize("truth", [0.02, 0.1, 0.37, 0.5])
def test_clopper_pearson_covers_at_least_what_it_states(truth: float) -> None:
    n = 25
    covered = [clopper_pearson(hits, n)[0] <= truth <= clopper_pearson(hits, n)[1] for hits in range(n + 1)]
    assert (binom.pmf(np.arange(n + 1), n, truth) * covered).sum() >= 0.95


def test_nobody_counted_gives_no_proportion() -> None:
    found = proportion(0, 0)
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.reason
    assert proportion(3, 4, exact=True).how == "Clopper-Pearson, 95%"


def test_slides_amount_to_at_most_as_many_patients_as_there_are() -> None:
    assert effective_patients(["a", "b", "c"]) == 3
    assert effective_patients(["a"] * 10) == 1
    assert effective_patients(["a"] * 9 + ["b"]) == pytest.approx(100 / 82)
    assert effective_patients([]) == 0
