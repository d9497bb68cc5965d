"""The jackknife over folds against closed forms, and where it has nothing to say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from coverslip.eval.metrics import weighted
from coverslip.eval.reduce import Units
from coverslip.eval.sampling import sampling_half_width


def auroc(units: Units, weights: np.ndarray) -> np.ndarray:
    return weighted("auroc", units.y, units.p, weights)


def mean(units: Units, weights: np.ndarray) -> np.ndarray:
    return weights @ units.p[:, 0] / weights.sum(axis=1)


def fold(names: list[str], y: np.ndarray, score: np.ndarray) -> Units:
    ids = np.array(names, dtype=object)
    return Units(ids, ids, y, np.stack([-score, score], axis=1))


def test_of_a_mean_it_is_the_usual_interval() -> None:
    values = np.random.default_rng(0).normal(size=12)
    one = Units(np.arange(12), np.arange(12).astype(str), np.zeros(12, int), values[:, None])
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert sampling_half_width(mean, [one], one.y) == pytest.approx((high - low) / 2)


def test_of_an_auroc_it_is_delongs_with_welchs_degrees_of_freedom() -> None:
    rng = np.random.default_rng(1)
    y = np.arange(60) % 3 // 2
    score = rng.normal(y, 1.0)
    wins = np.array([[float(a > b) for b in score[y == 0]] for a in score[y == 1]])
    parts = [(wins.mean(axis).var(ddof=1) / wins.shape[1 - axis], wins.shape[1 - axis] - 1) for axis in (0, 1)]
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / df for part, df in parts)
    half = sampling_half_width(auroc, [fold([f"p{i}" for i in range(60)], y, score)], y)
    assert half == pytest.approx(stats.t.ppf(0.975, freedom) * np.sqrt(variance))


def test_patients_of_several_folds_are_left_out_of_all_of_them() -> None:
    rng = np.random.default_rng(2)
    y, score = np.arange(30) % 2, rng.random(30)
    names = [f"p{i}" for i in range(30)]
    once = sampling_half_width(auroc, [fold(names, y, score)], y)
    thrice = sampling_half_width(auroc, [fold(names, y, score)] * 3, np.tile(y, 3))
    # The same patients three times are no more evidence than once.
    assert thrice == pytest.approx(once)


def test_a_figure_that_hangs_on_one_patient_has_no_width() -> None:
    y, score = np.array([1, 0, 0, 0]), np.array([0.9, 0.2, 0.95, 0.1])
    names = ["a", "b", "c", "d"]
    assert sampling_half_width(auroc, [fold(names, y, score)] * 3, np.tile(y, 3)) is None


def test_a_fold_that_never_varies_has_none() -> None:
    y = np.array([0, 0, 1, 1])
    assert sampling_half_width(auroc, [fold(["a", "b", "c", "d"], y, y * 1.0)], y) == 0.0
