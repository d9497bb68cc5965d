"""Figures of a fixed cohort: every metric's interval holds the figure, has a width, and covers what it states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from coverslip.eval.fixed_cohort import fixed_cohort
from coverslip.eval.metrics import METRICS, classification_metrics
from coverslip.eval.proportion import clopper_pearson
from coverslip.eval.reduce import Units


def units_of(y: np.ndarray, p: np.ndarray, patient: np.ndarray | None = None) -> Units:
    ids = np.arange(len(y)).astype(str)
    return Units(ids, ids if patient is None else patient.astype(str), y, p)


def binary(n: int, events: int, seed: int = 0, signal: float = 1.5) -> Units:
    rng = np.random.default_rng(seed)
    y = (np.arange(n) < events).astype(int)
    score = expit(signal * rng.normal(signal * y, 1) - signal**2 / 2)
    return units_of(y, np.stack([1 - score, score], axis=1))


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 60), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_values_are_those_of_the_metrics_and_intervals_hold_them(n: int, share: float, seed: int) -> None:
    units = binary(n, int(share * n), seed)
    values = classification_metrics(units.y, units.p, ("0", "1"))
    found = fixed_cohort(units, ("0", "1"), resamples=50)
    assert list(found) == list(METRICS)
    for name, figure in found.items():
        assert figure.value == (None if values[name] is None else pytest.approx(values[name], abs=1e-12)), name
        if figure.low is None:
            assert figure.reason, name
        else:
            assert figure.low - 1e-12 <= figure.value <= figure.high + 1e-12, name
            assert figure.high - figure.low > 0.01, name


@pytest.mark.parametrize("k", [3, 4])
def test_several_classes_are_a_mean_over_classes(k: int) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60 * k) % k
    p = softmax(rng.normal(size=(60 * k, k)) + np.eye(k)[y], axis=1)
    classes = tuple(map(str, range(k)))
    values = classification_metrics(y, p, classes)
    for name, figure in fixed_cohort(units_of(y, p), classes, resamples=50).items():
        assert figure.value == pytest.approx(values[name])
        if name != "ece":
            assert 0 < figure.high - figure.low < 0.6


def test_copies_of_slides_add_no_certainty() -> None:
    one = binary(60, 25)
    copies = np.repeat(np.arange(60), 4)
    four = Units(np.arange(240).astype(str), one.ids[copies], one.y[copies], one.p[copies])
    found, copied = fixed_cohort(one, ("0", "1")), fixed_cohort(four, ("0", "1"))
    for name in METRICS:
        if found[name].low is not None and name != "auprc":  # steps of a curve with ties
            assert (copied[name].low, copied[name].high) == pytest.approx((found[name].low, found[name].high), abs=1e-6)


def test_few_of_a_class_are_doubted_and_none_is_null() -> None:
    few = fixed_cohort(binary(40, 3), ("neg", "pos"))
    assert "only 3" in few["auroc"].reason
    assert few["accuracy"].reason == "only 3 of class pos: a hint, no evidence"
    assert (few["brier"].low, few["brier"].reason) == (None, "under 50 in the smallest class")
    none = fixed_cohort(binary(40, 0), ("neg", "pos"))
    assert {name for name, figure in none.items() if figure.value is None} == {
        "auroc",
        "auprc",
        "balanced_accuracy",
        "f1",
    }
    nobody = fixed_cohort(binary(0, 0), ("neg", "pos"))
    assert all(figure.value is None for figure in nobody.values())


def test_accuracy_has_exact_limits() -> None:
    found = fixed_cohort(binary(39, 19), ("neg", "pos"))["accuracy"]
    assert (found.low, found.high) == pytest.approx(clopper_pearson(round(found.value * 39), 39))


def test_nothing_ever_wrong_is_no_certainty() -> None:
    y = np.arange(10) % 2
    found = fixed_cohort(units_of(y, np.stack([1.0 - y, y], axis=1)), ("0", "1"))
    assert (found["accuracy"].value, found["auroc"].value) == (1.0, 1.0)
    assert found["accuracy"].low < 0.75
    assert found["balanced_accuracy"].low < 0.8
    assert found["f1"].low < 0.8


def test_a_class_that_is_of_fifty_by_chance_has_no_brier_score_that_is_surely_too_high() -> None:
    """Of 250 patients 45 have the class by expectation: with the numbers of the classes held fixed, those cohorts that
    have 50 held the score in 83 of 100."""
    rng = np.random.default_rng(6)

    def cohort(n: int) -> Units:
        y = (rng.random(n) < 0.18).astype(int)
        score = expit(1.8 * (rng.normal(size=n) + 1.8 * y - 0.9) - 1.5)
        return units_of(y, np.stack([1 - score, score], axis=1))

    everyone = cohort(400_000)
    truth = np.mean((everyone.p[:, 1] - everyone.y) ** 2)
    stated = [units for units in (cohort(250) for _ in range(800)) if units.y.sum() >= 50]
    found = [fixed_cohort(units, ("0", "1"), resamples=1)["brier"] for units in stated]
    assert len(found) > 100
    assert np.mean([figure.low <= truth <= figure.high for figure in found]) >= 0.93


def test_intervals_cover_what_they_state() -> None:
    """A fast look at what benchmarks/coverage.py measures: 8 events among 40 for shares, 50 among 100 for brier."""
    for n, events, names in ((40, 8, ("auprc", "balanced_accuracy", "f1", "accuracy")), (100, 50, ("brier",))):
        rng_truth = binary(300_000, 300_000 * events // n, seed=1)
        truth = classification_metrics(rng_truth.y, rng_truth.p, ("0", "1"))
        covered = dict.fromkeys(names, 0)
        for seed in range(400):
            found = fixed_cohort(binary(n, events, seed=seed + 10), ("0", "1"))
            for name in names:
                covered[name] += found[name].low <= truth[name] <= found[name].high
        assert all(count / 400 > 0.92 for count in covered.values()), covered


def test_average_precision_of_scores_with_long_tails_covers() -> None:
    """A few of the other class among the first move every precision; by the class alone 89 of 100 held the truth."""
    rng = np.random.default_rng(4)

    def cohort(m: int, n: int) -> Units:
        y = np.repeat([1, 0], [m, n])
        p = expit(rng.standard_t(3, m + n) + 3.0 * y - 1.5)
        return units_of(y, np.stack([1 - p, p], axis=1))

    everyone = cohort(100_000, 400_000)
    truth = classification_metrics(everyone.y, everyone.p, ("0", "1"))["auprc"]
    found = [fixed_cohort(cohort(60, 240), ("0", "1"), resamples=100)["auprc"] for _ in range(250)]
    assert np.mean([figure.low <= truth <= figure.high for figure in found]) > 0.92
