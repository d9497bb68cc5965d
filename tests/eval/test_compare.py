"""Tests of differences against scipy, statsmodels, a double loop, and their own error rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from coverslip.base.errors import SettingsError
from coverslip.eval import FoldSize
from coverslip.eval.compare import compare_folds, compare_scores, corrected_t, holm, paired_delong

SIZES = [FoldSize(k, train=80, test=20) for k in range(5)]


def scores(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = np.arange(n) % 2 == 0
    return positive, rng.normal(positive * 1.5, 1), rng.normal(positive * 0.3, 1)


def test_without_shared_training_patients_the_corrected_t_is_students() -> None:
    gaps = [0.03, -0.01, 0.05, 0.02, 0.04]
    # So many training patients that the correction vanishes.
    found = corrected_t(gaps, 1e12, 1)
    theirs = stats.ttest_1samp(gaps, 0)
    assert found.statistic == pytest.approx(theirs.statistic, abs=1e-9)
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-9)


def test_the_corrected_t_is_what_a_hand_computes() -> None:
    gaps = np.array([0.03, -0.01, 0.05, 0.02, 0.04])
    t = gaps.mean() / np.sqrt(gaps.var(ddof=1) * (1 / 5 + 20 / 80))
    found = corrected_t(gaps.tolist(), 80, 20)
    assert found.statistic == pytest.approx(t, abs=1e-12)
    assert found.p == pytest.approx(2 * stats.t.sf(t, 4), abs=1e-12)
    assert corrected_t((-gaps).tolist(), 80, 20).p == pytest.approx(found.p)


def test_the_interval_holds_zero_just_where_the_test_does_not_reject() -> None:
    for seed in range(200):
        gaps = np.random.default_rng(seed).normal(0.03, 0.03, 5)
        found = corrected_t(gaps.tolist(), 80, 20)
        assert (found.difference.low <= 0 <= found.difference.high) == (found.p >= 0.05)


def test_folds_that_allow_no_test_say_why() -> None:
    assert corrected_t([0.1], 80, 20).difference.reason == "1 fold in common, 3 are needed"
    two = corrected_t([0.1, 0.2], 50, 50)
    assert (two.difference.low, two.p, two.difference.reason) == (None, None, "2 folds in common, 3 are needed")
    assert corrected_t([], [], []).difference.value is None
    same = corrected_t([0.0] * 5, 80, 20)
    assert (same.p, same.difference.low) == (None, None)
    assert same.difference.reason == "every fold differs by the same"


def test_holm_is_that_of_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not installed")
    p = [0.01, 0.04, 0.03, 0.005, 0.6]
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1].tolist(), abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_and_keeps_their_order(p: list[float]) -> None:
    corrected = holm(p)
    assert all(after >= before and after <= 1 for before, after in zip(p, corrected))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()


def test_a_test_that_could_not_be_made_still_counts() -> None:
    assert holm([0.02, None]) == [0.04, None]
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_paired_delong_is_what_every_pair_gives() -> None:
    positive, first, second = scores(30)
    first, second = np.round(first, 1), np.round(second, 1)  # ties
    psi = []
    for score in (first, second):
        x, y = score[positive], score[~positive]
        psi.append(np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x]))
    d10, d01 = psi[0].mean(1) - psi[1].mean(1), psi[0].mean(0) - psi[1].mean(0)
    variance = d10.var(ddof=1) / len(d10) + d01.var(ddof=1) / len(d01)
    found = paired_delong(positive, first, second)
    assert found.difference.value == pytest.approx(psi[0].mean() - psi[1].mean(), abs=1e-12)
    assert found.statistic == pytest.approx(found.difference.value / np.sqrt(variance), abs=1e-9)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.statistic)), abs=0.02)


def test_models_that_order_alike_do_not_differ() -> None:
    positive, score, _ = scores()
    found = paired_delong(positive, score, np.exp(score))
    assert (found.difference.value, found.p, found.difference.low) == (0.0, 1.0, None)


def test_paired_delong_of_degenerate_cohorts_gives_no_p() -> None:
    one_class = paired_delong(np.ones(4, bool), np.arange(4.0), np.arange(4.0))
    assert (one_class.difference.value, one_class.p) == (None, None)
    one = paired_delong(np.array([True, False, False]), np.array([0.9, 0.2, 0.1]), np.array([0.1, 0.2, 0.3]))
    assert (one.p, one.difference.low) == (None, None)
    perfect = np.array([True, True, False, False])
    reversed_order = paired_delong(perfect, np.array([4.0, 3, 2, 1]), np.array([1.0, 2, 3, 4]))
    assert (reversed_order.difference.value, reversed_order.p) == (1.0, None)


def test_paired_delong_keeps_its_error_rate_in_small_cohorts() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(30) < 8
    rejected = 0
    for _ in range(600):
        shared = rng.normal(positive, 1)
        rejected += paired_delong(positive, shared + rng.normal(0, 0.7, 30), shared + rng.normal(0, 0.7, 30)).p < 0.05
    assert rejected / 600 < 0.075


def test_all_methods_are_one_family_against_one_reference() -> None:
    values = {
        "mean": [0.70, 0.72, 0.69, 0.71, 0.70],
        "abmil": [0.80, 0.83, 0.78, 0.81, 0.80],
        "max": [0.71, 0.70, 0.70, 0.72, None],
    }
    found = compare_folds("auroc", "mean", values, SIZES)
    assert [row.method for row in found.differences] == ["abmil", "max"]
    assert found.differences[0].p_holm == pytest.approx(2 * found.differences[0].p)
    assert found.family == "2 methods against mean on auroc"
    better, undecided = found.sentences()
    assert better.endswith("better.")
    assert undecided.endswith("no difference shown.")
    assert found.to_json()["methods"][0]["p_holm"] == found.differences[0].p_holm


def test_where_lower_is_better_a_smaller_figure_is_better() -> None:
    values = {"mean": [0.25, 0.24, 0.26, 0.25, 0.25], "abmil": [0.15, 0.13, 0.16, 0.15, 0.14]}
    found = compare_folds("brier", "mean", values, SIZES)
    assert found.sentences()[0].endswith("better.")
    assert found.to_json()["better"] == "lower"


def test_a_reference_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"reference .x. is not among the methods\. Accepted: mean"):
        compare_folds("auroc", "x", {"mean": [0.7] * 5}, SIZES)
    with pytest.raises(SettingsError, match="figures of 4 folds and the split has 5"):
        compare_folds("auroc", "mean", {"mean": [0.7] * 4}, SIZES)


def test_fitted_models_are_compared_on_a_fixed_cohort() -> None:
    positive, good, bad = scores(120)
    found = compare_scores("bad", {"bad": bad, "good": good, "same": bad}, positive)
    assert found.differences[0].p_holm < 0.05
    assert found.differences[1].p_holm == 1.0
    assert found.sentences()[1].startswith("same: auroc +0.000 against bad; no test")
    assert compare_scores("a", {"a": good, "b": bad}, np.ones(120, bool)).reference_value is None
