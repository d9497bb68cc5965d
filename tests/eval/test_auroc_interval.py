"""AUROC of fixed cohorts against published numbers, a double loop, and what an interval must always be."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from coverslip.base.errors import TableError
from coverslip.eval.auroc_interval import auroc_interval, delong_variance, newcombe, placements


def two_classes(m: int, n: int, *, shift: float = 1.0, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    score = np.concatenate([rng.normal(shift, 1, m), rng.normal(0, 1, n)])
    return np.arange(m + n) < m, np.round(score, 1) if ties else score


def delong_by_pairs(positive: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """AUROC and its variance from every pair, as DeLong's paper writes them."""
    x, y = score[positive], score[~positive]
    psi = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x])
    theta = psi.mean()
    s10 = sum((psi[i].mean() - theta) ** 2 for i in range(len(x))) / (len(x) - 1)
    s01 = sum((psi[:, j].mean() - theta) ** 2 for j in range(len(y))) / (len(y) - 1)
    return theta, s10 / len(x) + s01 / len(y)


def test_newcombe_is_the_published_example_of_r() -> None:
    # R, SingleCaseES: NAP(c(20, 20, 26, 25, 22, 23), c(28, 25, 24, 27, 30, 30, 29)), Newcombe's method 5
    score = np.array([20, 20, 26, 25, 22, 23, 28, 25, 24, 27, 30, 30, 29], dtype=float)
    positive = np.arange(13) >= 6
    auroc = placements(positive, score).auroc
    assert auroc == pytest.approx(0.9166666666666666, abs=1e-12)
    assert newcombe(auroc, 7, 6) == pytest.approx((0.5973193600384168, 0.9859976893703788), abs=1e-9)
    assert newcombe(auroc, 7, 6, confidence=0.9) == pytest.approx((0.6591091902344411, 0.9822247870934007), abs=1e-9)


def test_newcombe_solves_its_own_equation() -> None:
    for theta, m, n in ((0.8, 12, 30), (0.51, 5, 5), (0.97, 40, 200)):
        for limit in newcombe(theta, m, n):
            big = (m + n) / 2 - 1
            variance = limit * (1 - limit) / (m * n)
            variance *= 1 + big * (1 - limit) / (2 - limit) + big * limit / (1 + limit)
            assert abs(theta - limit) == pytest.approx(1.959963984540054 * np.sqrt(variance), abs=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_delong_is_what_every_pair_gives(ties: bool) -> None:
    positive, score = two_classes(17, 31, seed=3, ties=ties)
    theta, variance = delong_by_pairs(positive, score)
    assert placements(positive, score).auroc == pytest.approx(theta, abs=1e-12)
    assert placements(positive, score).auroc == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
    assert delong_variance(positive, score) == pytest.approx(variance, abs=1e-12)


def test_copies_of_a_slide_add_no_certainty() -> None:
    positive, score = two_classes(20, 30)
    patients = np.arange(50)
    copies = np.repeat(patients, 7)
    one, seven = delong_variance(positive, score), delong_variance(positive[copies], score[copies], patients[copies])
    assert seven == pytest.approx(one, abs=1e-12)
    alone = auroc_interval(positive, score)
    copied = auroc_interval(positive[copies], score[copies], patients[copies])
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), abs=1e-9)
    taken_for_patients = auroc_interval(positive[copies], score[copies])
    assert taken_for_patients.high - taken_for_patients.low < (alone.high - alone.low) / 2


def test_a_patient_with_most_of_the_slides_counts_for_few() -> None:
    positive, score = two_classes(20, 20)
    even = np.arange(40)
    lopsided = np.concatenate([np.zeros(15, int), np.arange(1, 26)])
    found = placements(positive, score, lopsided)
    assert found.patients == (6, 20)
    assert found.effective[0] == pytest.approx(400 / (225 + 5))
    wide, narrow = auroc_interval(positive, score, lopsided), auroc_interval(positive, score, even)
    assert wide.high - wide.low > narrow.high - narrow.low


@settings(deadline=None, max_examples=60)
@given(m=st.integers(1, 25), n=st.integers(1, 25), shift=st.floats(-3, 3), seed=st.integers(0, 99), ties=st.booleans())
def test_an_interval_holds_its_figure_and_mirrors_with_the_labels(
    m: int, n: int, shift: float, seed: int, ties: bool
) -> None:
    positive, score = two_classes(m, n, shift=shift, seed=seed, ties=ties)
    found = auroc_interval(positive, score)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0.05
    flipped = auroc_interval(~positive, score)
    assert (flipped.value, flipped.low, flipped.high) == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low))
    turned = auroc_interval(positive, -score)
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low))


@settings(deadline=None, max_examples=30)
@given(m=st.integers(2, 60), n=st.integers(2, 60), seed=st.integers(0, 99))
def test_only_the_order_of_scores_counts(m: int, n: int, seed: int) -> None:
    positive, score = two_classes(m, n, seed=seed)
    found = auroc_interval(positive, score, resamples=50)
    bent = auroc_interval(positive, np.exp(score / 3) - 7, resamples=50)
    assert (bent.value, bent.low, bent.high) == pytest.approx((found.value, found.low, found.high))


def test_no_interval_is_narrower_than_newcombes_in_a_small_cohort() -> None:
    for seed in range(40):
        positive, score = two_classes(8, 60, seed=seed)
        found = auroc_interval(positive, score)
        low, high = newcombe(found.value, 8, 60)
        assert found.low <= low + 1e-12
        assert found.high >= high - 1e-12


def test_a_scattered_rare_class_widens_the_interval() -> None:
    rng = np.random.default_rng(1)
    score = np.concatenate([rng.normal(1.5, 3, 20), rng.normal(0, 1, 200)])
    found = auroc_interval(np.arange(220) < 20, score)
    assert "widened to DeLong's variance" in found.how
    low, high = newcombe(found.value, 20, 200)
    assert found.high - found.low > 1.2 * (high - low)


def test_a_class_of_which_a_part_looks_like_the_other_is_held() -> None:
    """A sixth of 20 patients is drawn like the other 400: with DeLong's variance alone it was held in 90 of 100."""
    rng = np.random.default_rng(2)
    missed, positive = 0.16, np.arange(420) < 20
    truth = missed / 2 + (1 - missed) * scipy.stats.norm.cdf(4 / np.sqrt(2))
    held = []
    for _ in range(600):
        shift = 4.0 * (rng.random(20) > missed)
        found = auroc_interval(positive, rng.normal(np.concatenate([shift, np.zeros(400)]), 1))
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.94


@pytest.mark.parametrize(("m", "n"), [(5, 5), (5, 500), (50, 50), (500, 500)])
def test_near_perfect_models_keep_intervals_near_newcombes(m: int, n: int) -> None:
    """What an interval is widened by has bounds where Newcombe's variance vanishes."""
    positive = np.arange(m + n) < m
    for wrong, most in ((0, 1.6), (1, 2.1)):
        score = positive.astype(float) * 2
        score[m : m + wrong] = 1.0 + 2 * wrong
        found = auroc_interval(positive, score)
        assert found.value >= 0.8 - 1e-9
        low, high = newcombe(found.value, m, n)
        assert high - low <= found.high - found.low <= most * (high - low)


def test_large_cohorts_are_resampled_unless_few_are_misplaced() -> None:
    positive, score = two_classes(60, 60, shift=0.8)
    assert "BCa" in auroc_interval(positive, score, resamples=200).how
    positive, score = two_classes(60, 60, shift=3.0)
    assert "Newcombe" in auroc_interval(positive, score, resamples=200).how


def test_degenerate_cohorts_have_wide_intervals_or_none() -> None:
    score = np.array([0.1, 0.2, 0.3])
    one_class = auroc_interval(np.zeros(3, bool), score)
    assert (one_class.value, one_class.low, one_class.high) == (None, None, None)
    assert "both classes" in one_class.reason
    assert auroc_interval(np.array([], bool), np.array([])).value is None
    one_each = auroc_interval(np.array([True, False]), np.array([0.9, 0.1]))
    assert one_each.value == 1.0
    assert one_each.low < 0.3
    assert "only 1 in the smaller class" in one_each.reason
    constant = auroc_interval(np.arange(20) < 10, np.full(20, 0.5))
    assert constant.value == 0.5
    assert constant.high - constant.low > 0.4
    perfect = auroc_interval(np.arange(200) < 100, (np.arange(200) < 100).astype(float))
    assert perfect.value == 1.0
    assert perfect.low < 0.985
    assert perfect.high == 1.0


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(TableError, match=r"row 1: nan is no number; 1 of 3"):
        auroc_interval(np.array([True, False, True]), np.array([0.1, np.nan, 0.2]))
