"""BCa against scipy, and one draw of patients across folds that overlap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from coverslip.eval.bootstrap import across_folds, bca
from coverslip.eval.metrics import weighted
from coverslip.eval.reduce import Units


def mean_of(values: np.ndarray):
    return lambda weights: weights @ values / weights.sum(axis=1)


def units(patients: list[str], y: list[int], score: list[float]) -> Units:
    p = np.stack([1 - np.array(score), np.array(score)], axis=1)
    return Units(np.array(patients), np.array(patients), np.array(y), p)


def test_bca_of_a_mean_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).lognormal(size=40)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
    ours = bca(mean_of(values), np.arange(40), resamples=20_000)
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx(
        (theirs.confidence_interval.low, theirs.confidence_interval.high), rel=0.02
    )


def test_bca_of_two_samples_is_that_of_scipy() -> None:
    rng = np.random.default_rng(2)
    x, z = rng.lognormal(1, 1, 25), rng.lognormal(0, 1, 60)
    theirs = stats.bootstrap(
        (x, z), lambda a, b, axis: a.mean(axis) - b.mean(axis), n_resamples=20_000, method="BCa", rng=rng
    )  # fmt: skip
    values, y = np.concatenate([x, z]), np.arange(85) >= 25

    def gap(weights: np.ndarray) -> np.ndarray:
        return weights @ (values * ~y) / (weights @ ~y) - weights @ (values * y) / (weights @ y)

    ours = bca(gap, np.arange(85), y.astype(int), resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx(
        (theirs.confidence_interval.low, theirs.confidence_interval.high), rel=0.03
    )


def test_bca_counts_patients_and_not_slides() -> None:
    values = np.random.default_rng(0).normal(size=30)
    copies = np.repeat(np.arange(30), 5)
    one = bca(mean_of(values), np.arange(30), resamples=4000)
    five = bca(mean_of(values[copies]), copies, resamples=4000)
    assert five.high - five.low == pytest.approx(one.high - one.low, rel=0.05)


def test_figures_without_spread_or_patients_have_no_interval() -> None:
    assert bca(mean_of(np.ones(8)), np.arange(8), resamples=50).low is None
    assert bca(mean_of(np.ones(8)), np.arange(8), resamples=50).reason
    nobody = bca(mean_of(np.array([])), [], resamples=50)
    assert (nobody.value, nobody.reason) == (None, "nobody to count")
    undefined = bca(lambda weights: np.full(len(weights), np.nan), ["a", "b"], resamples=50)
    assert undefined.value is None


def test_a_patient_of_several_folds_is_drawn_alike_in_each() -> None:
    rng = np.random.default_rng(0)
    names = [f"p{i}" for i in range(40)]
    y = [i % 2 for i in range(40)]
    fold = units(names, y, list(1 / (1 + np.exp(-rng.normal(np.array(y), 1)))))
    # The same fold ten times is no more evidence than once.
    once, tenfold = across_folds("auroc", [fold], resamples=1000), across_folds("auroc", [fold] * 10, resamples=1000)
    assert (tenfold.value, tenfold.low, tenfold.high) == pytest.approx((once.value, once.low, once.high))
    # Ten folds of other patients are.
    others = [
        units([f"{k}-{name}" for name in names], y, list(1 / (1 + np.exp(-rng.normal(np.array(y), 1)))))
        for k in range(10)
    ]
    apart = across_folds("auroc", others, resamples=1000)
    assert apart.high - apart.low < 0.6 * (once.high - once.low)


def test_the_figure_across_folds_is_the_mean_within_folds() -> None:
    first = units(["a", "b", "c", "d"], [0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8])
    # On another scale: pooled, these would look worse than either.
    second = units(["a", "b", "e", "f"], [0, 1, 0, 1], [0.01, 0.02, 0.015, 0.03])
    found = across_folds("auroc", [first, second], resamples=100)
    figures = [weighted("auroc", fold.y, fold.p, np.ones((1, 4)))[0] for fold in (first, second)]
    assert found.value == pytest.approx(np.mean(figures)) == 1.0
    assert found.low is None  # every resample is perfect


def test_folds_of_one_class_are_left_out_and_none_is_no_crash() -> None:
    fine = units(["a", "b", "c", "d"], [0, 1, 0, 1], [0.1, 0.9, 0.6, 0.5])
    poor = units(["e", "f"], [0, 0], [0.1, 0.2])
    assert across_folds("auroc", [fine, poor], resamples=50).value == across_folds("auroc", [fine], resamples=50).value
    assert across_folds("auroc", [poor], resamples=50).value is None
    assert across_folds("auroc", [], resamples=50).value is None
