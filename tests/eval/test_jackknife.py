"""The jackknife over patients equals what is known in closed form; slides of a patient count once."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from coverslip.eval.interval import Interval
from coverslip.eval.jackknife import LOG, LOGIT, mean_of, on_scale, ranked, spread
from coverslip.eval.kinds import KINDS
from coverslip.eval.reduce import Units
from coverslip.eval.truth import Task


def mean_statistic(x: np.ndarray):  # type: ignore[no-untyped-def]
    return lambda weights: weights @ x / weights.sum(axis=1)


def test_the_variance_of_a_mean_is_that_of_its_values_over_their_number() -> None:
    x = np.random.default_rng(0).normal(size=30)
    found = spread(mean_statistic(x), np.arange(30))
    assert found is not None
    assert found.variance == pytest.approx(x.var(ddof=1) / 30)
    kurtosis = scipy.stats.kurtosis(x, fisher=False)
    assert found.freedom == pytest.approx(min(29, 60 / (kurtosis - 1)))


def test_few_patients_who_carry_the_variance_give_few_degrees_of_freedom() -> None:
    x = np.zeros(100)
    x[:2] = 1
    found = spread(mean_statistic(x), np.arange(100))
    assert found is not None and found.freedom < 5


def test_slides_of_a_patient_are_left_out_together() -> None:
    x = np.random.default_rng(1).normal(size=20)
    once = spread(mean_statistic(x), np.arange(20))
    twice = spread(mean_statistic(np.repeat(x, 2)), np.repeat(np.arange(20), 2))
    assert once is not None and twice is not None
    assert twice.variance == pytest.approx(once.variance) and twice.freedom == pytest.approx(once.freedom)


def test_nothing_has_an_interval_without_width() -> None:
    same = spread(mean_statistic(np.full(9, 0.5)), np.arange(9))
    assert on_scale(0.5, same, LOGIT, "logit").low is None
    assert on_scale(0.0, same, LOG, "log").low is None
    assert on_scale(0.5, spread(mean_statistic(np.ones(1)), np.arange(1)), LOG, "log").low is None
    perfect = ranked(1.0, 3, 20, None, "patients")
    assert perfect.low is not None and perfect.low < 0.9 and "a hint" in perfect.reason


def test_a_share_of_pairs_that_passes_one_by_rounding_is_one() -> None:
    """Pairs that weigh 1 / G are no whole numbers, and all of them in order came to 1 and a bit."""
    found = ranked(1.0000000000000002, 2.0, 29.0, None, "patients")
    assert found == ranked(1.0, 2.0, 29.0, None, "patients") and found.high == 1.0


def test_a_mean_of_limits_passes_over_what_cannot_be_computed() -> None:
    parts = [
        Interval(0.5, 0.2, 0.8, "x"),
        Interval(None, None, None, "none", reason="none"),
        Interval(0.7, 0.6, 0.8, "x"),
    ]
    found = mean_of(parts, None, "label")
    assert (found.value, found.low, found.high) == pytest.approx((0.6, 0.4, 0.8))
    assert found.reason == "1 of 3 labels cannot be computed: the mean is of the others"
    assert not mean_of(parts[::2], None, "label").reason
    assert mean_of([*parts, Interval(0.5, None, None, "none")], None, "label").low is None
    apart = [np.array([1.0, -1.0, 0.0, 0.0]), None, np.array([0.0, 0.0, 1.0, -1.0])]
    assert mean_of(parts, apart, "label").low == pytest.approx(0.6 - (0.3**2 + 0.1**2) ** 0.5 / 2)


def test_levels_that_are_all_right_have_limits_with_a_width() -> None:
    y = np.arange(12) % 3
    ids = np.arange(12).astype(str)
    found = KINDS["ordinal"].fixed(Units(ids, ids, y, np.eye(3)[y]), Task("ordinal", "g", ("a", "b", "c")), 100, 0)
    assert found is not None
    assert found["mae"].low == 0 and (found["mae"].high or 0) > 0.2
    assert (found["accuracy"].low or 1) < 0.8
    assert found["quadratic_kappa"].low is None and found["quadratic_kappa"].reason


def test_a_mean_distance_whose_largest_are_rarely_met_is_held() -> None:
    """20 patients with log-normal values: as far up as down the interval held it in 88 of 100 cohorts."""
    rng = np.random.default_rng(5)

    def cohort(num: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.lognormal(0, 1, num)
        return y, np.exp(0.7 * np.log(y) + 0.4 * rng.normal(size=num))

    y, p = cohort(400_000)
    truth, held, ids = np.abs(y - p).mean(), [], np.arange(20).astype(str)
    for _ in range(600):
        y, p = cohort(20)
        found = (KINDS["regression"].fixed(Units(ids, ids, y, p[:, None]), Task("regression", "y", ()), 0, 0) or {})[
            "mae"
        ]
        assert found.low is not None and found.high is not None
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.92


def test_few_patients_have_no_interval_of_squares() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=8)
    ids = np.arange(8).astype(str)
    found = KINDS["regression"].fixed(
        Units(ids, ids, y, y[:, None] + rng.normal(size=(8, 1))), Task("regression", "y", ()), 0, 0
    )
    assert found is not None
    assert [found[name].low for name in ("r2", "mae", "rmse")] == [None] * 3
    assert found["pearson"].low is not None
