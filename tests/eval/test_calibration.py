"""Calibration against statsmodels, scikit-learn, exact sums, and models that are calibrated by construction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss

from coverslip.eval.calibration import (
    bins_of,
    brier_parts,
    calibration,
    ece_by_chance,
    expected_calibration_error,
    reliability_bins,
    slope_and_intercept,
)
from coverslip.eval.proportion import wilson


def calibrated(n: int, seed: int = 0, *, sharpness: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    stated = expit(rng.normal(0, sharpness, n))
    return stated, rng.random(n) < stated


def test_bins_hold_equal_numbers_and_never_split_a_tie() -> None:
    stated, _ = calibrated(100)
    assert np.bincount(bins_of(stated)).tolist() == [10] * 10
    tied = np.round(stated, 1)
    assert all(len(np.unique(bins_of(tied)[tied == value])) == 1 for value in np.unique(tied))
    assert bins_of(np.full(50, 0.3)).max() == 0
    assert bins_of(stated[:19]).max() == 0
    assert bins_of(stated[:35]).max() == 2


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=120))
def test_the_parts_of_brier_add_up_exactly(pairs: list[tuple[int, bool]]) -> None:
    stated, true = np.array([s / 20 for s, _ in pairs]), np.array([t for _, t in pairs])
    parts = brier_parts(stated, true)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_variance - parts.within_covariance
    assert total == pytest.approx(parts.brier, abs=1e-12)
    assert parts.brier == pytest.approx(((stated - true) ** 2).mean(), abs=1e-12)
    assert min(parts.reliability, parts.resolution, parts.uncertainty, parts.within_variance) >= 0


def test_brier_is_that_of_scikit_learn() -> None:
    stated, true = calibrated(80)
    assert brier_parts(stated, true).brier == pytest.approx(brier_score_loss(true, stated), abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 150), seed=st.integers(0, 50))
def test_the_order_of_patients_changes_nothing(n: int, seed: int) -> None:
    stated, true = calibrated(n, seed)
    order = np.random.default_rng(seed).permutation(n)
    assert expected_calibration_error(stated, true) == pytest.approx(
        expected_calibration_error(stated[order], true[order])
    )
    # What is stated of the other class is as well or badly calibrated.
    flipped = brier_parts(1 - stated, ~true)
    assert flipped.brier == pytest.approx(brier_parts(stated, true).brier)


def test_every_patient_is_in_one_bin_and_its_interval_holds_what_was_observed() -> None:
    stated, true = calibrated(230)
    bins = reliability_bins(stated, true)
    assert sum(b.n for b in bins) == 230
    assert all(b.low <= b.observed <= b.high and b.low_edge <= b.stated <= b.high_edge for b in bins)
    assert reliability_bins(np.array([]), np.array([], bool)) == []


def test_a_calibrated_model_shows_the_ece_of_chance_and_an_overconfident_one_more() -> None:
    observed, quantiles = [], []
    for seed in range(60):
        stated, true = calibrated(60, seed)
        observed.append(expected_calibration_error(stated, true))
        quantiles.append(ece_by_chance(stated)["quantile_95"])
    assert np.mean(np.array(observed) > quantiles) <= 0.12
    assert np.mean(observed) > 0.05  # never near 0, calibrated as it is
    stated, true = calibrated(300)
    sure = expit(4 * logit(stated))
    assert expected_calibration_error(sure, true) > 2 * ece_by_chance(sure)["mean"]


def test_slope_and_intercept_are_those_of_statsmodels() -> None:
    models = pytest.importorskip("statsmodels.api", reason="statsmodels is not installed")
    stated, true = calibrated(200, 3)
    stated = expit(1.7 * logit(stated) + 0.3)
    slope, intercept = slope_and_intercept(stated, true)
    fit = models.Logit(true.astype(float), models.add_constant(logit(stated))).fit(disp=0, tol=1e-14)
    assert slope.value == pytest.approx(fit.params[1], abs=1e-6)
    offset = models.GLM(true.astype(float), np.ones(200), family=models.families.Binomial(), offset=logit(stated)).fit()
    assert intercept.value == pytest.approx(offset.params[0], abs=1e-6)
    # The profile's limits are where twice the likelihood has fallen by F(1, 198) at .95: 1.9720175 squared.
    for limit in (slope.low, slope.high):
        held = models.GLM(
            true.astype(float), np.ones(200), family=models.families.Binomial(), offset=limit * logit(stated)
        )
        assert 2 * (fit.llf - held.fit().llf) == pytest.approx(1.972017477**2, abs=1e-6)


def test_the_slope_tells_overconfidence_and_the_intercept_a_shift() -> None:
    stated, true = calibrated(3000)
    slope, intercept = slope_and_intercept(stated, true)
    assert slope.low < 1 < slope.high
    assert intercept.low < 0 < intercept.high
    assert slope_and_intercept(expit(2 * logit(stated)), true)[0].value == pytest.approx(slope.value / 2, abs=1e-6)
    assert slope_and_intercept(expit(logit(stated) - 1), true)[1].value == pytest.approx(intercept.value + 1, abs=1e-6)


def test_what_the_data_do_not_bound_is_null_with_a_reason() -> None:
    separated = np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True])
    slope, intercept = slope_and_intercept(*separated)
    assert (slope.value, slope.high) == (None, None)
    assert "separate" in slope.reason
    assert intercept.value is not None
    for y in (np.array([], bool), np.array([True]), np.array([True, True])):
        assert slope_and_intercept(np.full(len(y), 0.7), y)[0].value is None
    constant = slope_and_intercept(np.full(10, 0.3), np.arange(10) < 3)
    assert constant[0].value is None
    assert constant[1].value == pytest.approx(0, abs=1e-6)
    sure = slope_and_intercept(np.array([0.0, 1.0, 0.4, 1.0]), np.array([False, True, True, False]))
    assert np.isfinite(sure[0].value)


def test_more_than_two_classes_are_said_to_be_classwise_and_top_label() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], 90)
    y = np.array([rng.choice(3, p=row) for row in p])
    assert [entry["of"] for entry in calibration(y, p, ("a", "b", "c"))] == [
        "p(a), classwise",
        "p(b), classwise",
        "p(c), classwise",
        "probability of the decided class, top label",
    ]
    assert [entry["of"] for entry in calibration(y[:0], p[:0, :2], ("n", "p"))] == ["p(p)"]


def test_slides_of_one_patient_are_no_more_patients() -> None:
    stated, true = calibrated(60)
    copies = np.repeat(np.arange(60), 5)
    one, five = (
        slope_and_intercept(stated, true),
        slope_and_intercept(stated[copies], true[copies], copies),
    )
    for alone, copied in zip(one, five):
        assert (copied.value, copied.low, copied.high) == pytest.approx((alone.value, alone.low, alone.high), abs=1e-6)
    bins = reliability_bins(np.full(300, 0.4), true[copies], copies)
    assert (bins[0].low, bins[0].high) == pytest.approx(wilson(int(true.sum()), 60))
