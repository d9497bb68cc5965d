"""Limits of a mean: as wide as the figures move together, and wide enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from coverslip.eval.fixed_cohort import fixed_cohort
from coverslip.eval.mean_interval import correlations, mean_limits
from coverslip.eval.metrics import classification_metrics
from coverslip.eval.reduce import Units

LIMITS = [(0.7, 0.5, 0.8), (0.9, 0.8, 1.0)]
NAMES = ("a", "b", "c")


def test_figures_that_move_as_one_have_the_mean_of_their_limits() -> None:
    assert mean_limits(LIMITS, np.ones((2, 2))) == pytest.approx((0.8, 0.65, 0.9))


def test_independent_figures_add_in_squares() -> None:
    found = mean_limits(LIMITS, np.eye(2))
    assert found == pytest.approx((0.8, 0.8 - np.hypot(0.2, 0.1) / 2, 0.8 + np.hypot(0.1, 0.1) / 2))


@given(st.integers(1, 5), st.integers(2, 12), st.integers(0, 10**6))
def test_limits_are_a_sum_over_pairs_and_never_wider_than_the_mean_of_limits(k: int, g: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    limits = [tuple(np.sort(rng.random(3))[[1, 0, 2]]) for _ in range(k)]
    moves = [None if rng.random() < 0.2 else rng.normal(size=g) * (rng.random() > 0.2) for _ in range(k)]
    value, low, high = mean_limits(limits, correlations(moves))
    down = up = 0.0
    for i in range(k):
        for j in range(k):
            a, b = moves[i], moves[j]
            same = 1.0
            if i != j and a is not None and b is not None and a.any() and b.any():
                same = max(0.0, sum(x * y for x, y in zip(a, b)) / (sum(a**2) * sum(b**2)) ** 0.5)
            down += same * (limits[i][0] - limits[i][1]) * (limits[j][0] - limits[j][1])
            up += same * (limits[i][2] - limits[i][0]) * (limits[j][2] - limits[j][0])
    assert (low, high) == pytest.approx((value - down**0.5 / k, value + up**0.5 / k))
    assert low >= np.mean([one[1] for one in limits]) - 1e-9 and high <= np.mean([one[2] for one in limits]) + 1e-9


def test_a_mean_over_classes_is_narrower_than_its_parts_together_and_covers() -> None:
    rng = np.random.default_rng(3)

    def cohort(n: int) -> Units:
        y, ids = rng.integers(0, 3, n), np.arange(n).astype(str)
        return Units(ids, ids, y, softmax(1.5 * (rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[y]), axis=1))

    everyone = cohort(100_000)
    truth = classification_metrics(everyone.y, everyone.p, NAMES)["auroc"]
    held, ratio = [], []
    for _ in range(250):
        units = cohort(60)
        found = fixed_cohort(units, NAMES)["auroc"]
        held.append(found.low <= truth <= found.high)
        each = [one_against_rest(units, k)["auroc"] for k in range(3)]
        ratio.append((found.high - found.low) / np.mean([one.high - one.low for one in each]))
    assert np.mean(held) > 0.92
    assert np.mean(ratio) < 0.85


def one_against_rest(units: Units, k: int) -> dict:
    two = np.stack([1 - units.p[:, k], units.p[:, k]], axis=1)
    return fixed_cohort(Units(units.ids, units.patient, (units.y == k).astype(int), two), ("rest", "k"))
