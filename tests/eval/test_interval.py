"""Intervals against hand computation, a slow loop, and what they promise."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from coverslip.eval import classification_metrics, nadeau_bengio, patient_bootstrap


def two_columns(score: np.ndarray) -> np.ndarray:
    return np.stack([1 - score, score], axis=1)


def sample(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    return y, two_columns(1 / (1 + np.exp(-rng.normal(y, 1.0)))), np.array([f"p{i}" for i in range(n)])


def test_nadeau_bengio_is_what_a_hand_computes() -> None:
    # mean .8; s² = (.01 + 0 + .01) / 2 = .01; variance .01 (1/3 + 20/80) = .0058333; t(2, .975) = 4.302653
    found = nadeau_bengio([0.7, 0.8, 0.9], 80, 20)
    half = 4.302652729911275 * np.sqrt(0.01 * (1 / 3 + 0.25))
    assert found.value == pytest.approx(0.8)
    assert found.low == pytest.approx(0.8 - half)
    assert found.high == 1.0  # clipped: .8 + .3286
    assert found.how == "mean of folds, Nadeau-Bengio, 95%"


def test_nadeau_bengio_is_wider_than_independent_folds_would_be() -> None:
    values = [0.5, 0.55, 0.6, 0.52, 0.58]
    found = nadeau_bengio(values, 80, 20)
    naive = stats.t.ppf(0.975, 4) * np.std(values, ddof=1) / np.sqrt(5)
    assert found.high - found.value == pytest.approx(naive * np.sqrt(5 * (1 / 5 + 1 / 4)))


def test_sizes_of_each_fold_may_be_given() -> None:
    assert nadeau_bengio([0.5, 0.6, 0.55], [80, 40, 60], [20, 20, 15]).low == pytest.approx(
        nadeau_bengio([0.5, 0.6, 0.55], 1, 1 / 3).low
    )


def test_under_three_folds_there_is_no_interval_and_of_none_no_value() -> None:
    for folds, why in (([], "no fold"), ([0.7], "one fold"), ([0.6, 0.8], "two folds")):
        found = nadeau_bengio(folds, 8, 2)
        assert (found.low, found.high) == (None, None)
        assert found.value == (pytest.approx(0.7) if folds else None)
        assert found.reason.startswith(why)
    # Five perfect folds of five patients are no certainty.
    same = nadeau_bengio([1.0] * 5, 19, 5)
    assert (same.value, same.low, same.high) == (1.0, None, None)
    assert "every fold gives the same" in same.reason


def test_no_interval_is_narrower_than_the_sampling_of_the_test_patients() -> None:
    lucky = nadeau_bengio([0.62, 0.621, 0.622], 80, 40, at_least=0.1)
    assert (lucky.low, lucky.high) == pytest.approx((0.521, 0.721))
    assert lucky.how == "mean of folds, Nadeau-Bengio, 95%, widened to the sampling of the test patients"
    # Where the folds spread further it changes nothing, and folds that agree exactly have an interval by it.
    assert nadeau_bengio([0.5, 0.6, 0.7], 80, 40, at_least=0.1) == nadeau_bengio([0.5, 0.6, 0.7], 80, 40)
    assert nadeau_bengio([0.6] * 3, 80, 40, at_least=0.1).low == pytest.approx(0.5)


def test_a_difference_may_be_clipped_to_its_own_range() -> None:
    found = nadeau_bengio([-0.5, 0.0, 0.5], 50, 50, bounds=(-1, 1))
    assert (found.low, found.high) == (-1.0, 1.0)


def test_the_bootstrap_repeats_with_its_seed_and_changes_with_another() -> None:
    y, p, groups = sample(60)
    first = patient_bootstrap("auroc", y, p, groups, 300, seed=1)
    assert patient_bootstrap("auroc", y, p, groups, 300, seed=1) == first
    assert patient_bootstrap("auroc", y, p, groups, 300, seed=2) != first


def test_the_bootstrap_does_not_depend_on_the_order_of_patients_names() -> None:
    y, p, groups = sample(40)
    found = patient_bootstrap("auroc", y, p, groups, 200)
    assert found.low <= classification_metrics(y, p, ("0", "1"))["auroc"] == found.value <= found.high


def test_the_bootstrap_agrees_with_a_slow_loop() -> None:
    y, p, groups = sample(60, seed=3)
    rng = np.random.default_rng(0)
    slow = []
    for _ in range(800):
        drawn = np.concatenate([rng.choice(np.flatnonzero(y == k), (y == k).sum()) for k in (0, 1)])
        slow.append(roc_auc_score(y[drawn], p[drawn, 1]))
    found = patient_bootstrap("auroc", y, p, groups, 4000)
    assert [found.low, found.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.02)


def test_slides_of_one_patient_are_drawn_together() -> None:
    y, p, groups = sample(40)
    # Nine copies of each patient's slide are no more evidence than one; taken for patients they would seem so.
    copies = np.repeat(np.arange(40), 9)
    one = patient_bootstrap("auroc", y, p, groups, 1000)
    nine = patient_bootstrap("auroc", y[copies], p[copies], groups[copies], 1000)
    taken_for_patients = patient_bootstrap("auroc", y[copies], p[copies], np.arange(360), 1000)
    width = one.high - one.low
    assert nine.high - nine.low == pytest.approx(width, rel=0.02)
    assert taken_for_patients.high - taken_for_patients.low < width / 2


def test_no_resample_loses_a_class_however_rare() -> None:
    y = np.array([0] * 15 + [1] * 2 + [0] * 15)
    p = two_columns(np.linspace(0.1, 0.9, 32))
    found = patient_bootstrap("auroc", y, p, np.arange(32).astype(str), 500)
    assert found.undefined == 0
    assert found.low is not None


def test_patients_with_slides_of_both_classes_are_drawn_whole() -> None:
    y = np.array([0, 1, 0, 1, 0, 0, 1])
    p = two_columns(np.array([0.2, 0.7, 0.6, 0.5, 0.1, 0.3, 0.9]))
    found = patient_bootstrap("auroc", y, p, ["a", "a", "b", "b", "c", "d", "e"], 300)
    assert found.undefined == 0


def test_an_undefined_metric_has_neither_value_nor_interval() -> None:
    y, p, groups = sample(10)
    found = patient_bootstrap("auroc", np.zeros_like(y), p, groups, 200)
    assert (found.value, found.low, found.high) == (None, None, None)


def test_resamples_that_are_all_the_same_give_no_interval() -> None:
    one = patient_bootstrap("accuracy", np.array([1]), np.array([[0.2, 0.8]]), ["a"], 100)
    assert (one.value, one.low, one.high) == (1.0, None, None)
    assert "no width" in one.reason
    # Nothing is ever wrong: five right decisions do not prove that the sixth will be.
    y = np.array([0, 0, 1, 1, 1])
    perfect = patient_bootstrap("auroc", y, two_columns(y * 0.8 + 0.1), np.arange(5), 100)
    assert (perfect.value, perfect.low, perfect.high) == (1.0, None, None)
    assert perfect.to_json()["reason"] == perfect.reason


def test_two_thousand_resamples_of_a_thousand_patients_take_about_a_second_at_most() -> None:
    y, p, groups = sample(1000)
    start = time.process_time()
    patient_bootstrap("auroc", y, p, groups, 2000)
    assert time.process_time() - start < 2.0


def test_resamples_worked_through_in_blocks_spread_as_far(monkeypatch: pytest.MonkeyPatch) -> None:
    y, p, groups = sample(30)
    whole = patient_bootstrap("brier", y, p, groups, 2000)
    monkeypatch.setattr("coverslip.eval.interval._BLOCK", 30 * 77)
    blocks = patient_bootstrap("brier", y, p, groups, 2000)
    assert (blocks.low, blocks.high) == pytest.approx((whole.low, whole.high), abs=0.02)
