"""Conformal sets: the promise in simulations, full sets where patients are too few, and what alpha does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from coverslip.base.errors import TableError
from coverslip.eval.conformal import (
    ConformalSets,
    coverage_over_folds,
    cv_plus_interval,
    cv_plus_sets,
    not_beyond,
    range_coverage_over_folds,
    split_conformal,
    without_gaps,
)


def sample(n: int, k: int, rng: np.random.Generator, *, signal: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    y = rng.integers(0, k, n)
    return y, softmax(rng.normal(size=(n, k)) + signal * np.eye(k)[y], axis=1)


def test_a_class_of_under_nineteen_is_in_every_set() -> None:
    y = np.array([0] * 18 + [1] * 19)
    p = np.stack([np.where(y == 0, 0.99, 0.01), np.where(y == 0, 0.01, 0.99)], axis=1)
    sets = split_conformal(y, p).sets(np.array([[1e-9, 1 - 1e-9], [0.999, 0.001]]))
    assert sets[:, 0].all()
    assert sets[:, 1].tolist() == [True, False]
    nobody = split_conformal(y[:0], p[:0])
    assert nobody.sets(p).all()


def test_the_promise_holds_in_every_class_on_average() -> None:
    rng = np.random.default_rng(0)
    held = np.zeros(3)
    seen = np.zeros(3)
    for _ in range(400):
        y, p = sample(90, 3, rng)
        calibrated = split_conformal(y, p, 0.1)
        new_y, new_p = sample(60, 3, rng)
        inside = calibrated.sets(new_p)[np.arange(60), new_y]
        for k in range(3):
            held[k] += inside[new_y == k].sum()
            seen[k] += (new_y == k).sum()
    assert (held / seen > 0.89).all()
    assert (held / seen < 0.95).all()


def test_the_spread_is_that_of_coverages() -> None:
    rng = np.random.default_rng(1)
    big_y, big_p = sample(20_000, 2, rng)
    coverages = []
    for _ in range(300):
        y, p = sample(60, 2, rng)
        calibrated = split_conformal(y, p, 0.1, by_class=False)
        coverages.append(calibrated.sets(big_p)[np.arange(len(big_y)), big_y].mean())
    low, high = calibrated.spread(0.9)[0]
    assert np.quantile(coverages, [0.05, 0.95]) == pytest.approx([low, high], abs=0.02)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(0, 120), seed=st.integers(0, 50), by_class=st.booleans())
def test_sets_grow_as_less_may_be_missed(n: int, seed: int, by_class: bool) -> None:
    rng = np.random.default_rng(seed)
    y, p = sample(n, 3, rng)
    _, new = sample(20, 3, rng)
    fold = np.arange(n) % 3
    models = np.stack([new, new[::-1], new])
    wider = None
    for alpha in (0.4, 0.2, 0.1, 0.05, 0.01):
        sets = split_conformal(y, p, alpha, by_class=by_class).sets(new)
        plus = cv_plus_sets(y, p, fold, models, alpha, by_class=by_class)
        if wider is not None:
            assert (sets | ~wider[0]).all()
            assert (plus | ~wider[1]).all()
        wider = sets, plus


def test_cv_plus_with_one_model_is_split_conformal() -> None:
    rng = np.random.default_rng(2)
    y, p = sample(150, 3, rng)
    _, new = sample(40, 3, rng)
    plus = cv_plus_sets(y, p, np.zeros(150, int), new[None], 0.1)
    assert (plus == split_conformal(y, p, 0.1).sets(new)).all()


def test_cv_plus_ranges_cover_more_than_they_promise() -> None:
    rng = np.random.default_rng(3)
    held = []
    for _ in range(150):
        x, new_x = rng.normal(size=(60, 4)), rng.normal(size=(30, 4))
        beta = np.array([1.0, -1, 0.5, 0])
        y, new_y = x @ beta + rng.normal(size=60), new_x @ beta + rng.normal(size=30)
        fold = np.arange(60) % 5
        fits = [np.linalg.lstsq(x[fold != f], y[fold != f], rcond=None)[0] for f in range(5)]
        residual = np.abs(y - np.array([x[i] @ fits[fold[i]] for i in range(60)]))
        low, high = cv_plus_interval(residual, fold, np.stack([new_x @ fit for fit in fits]), 0.1)
        held.append(((low <= new_y) & (new_y <= high)).mean())
    assert 0.87 < np.mean(held) < 0.95


def test_cv_plus_with_too_few_patients_excludes_nothing() -> None:
    low, high = cv_plus_interval(np.ones(18), np.zeros(18, int), np.zeros((1, 3)))
    assert np.isinf(low).all()
    assert np.isinf(high).all()
    low, high = cv_plus_interval(np.ones(19), np.zeros(19, int), np.zeros((1, 3)))
    assert (low == -1).all()
    assert (high == 1).all()


def test_coverage_over_folds_is_an_average_with_its_spread() -> None:
    rng = np.random.default_rng(4)
    y, p = sample(300, 2, rng)
    found = coverage_over_folds(y, p, np.arange(300) % 5)
    assert found["coverage"]["mean"] == pytest.approx(0.95, abs=0.04)
    assert len(found["coverage"]["folds"]) == 5
    assert found["coverage"]["sd"] > 0
    assert found["one_class"] + found["every_class"] + found["empty"] == pytest.approx(1)
    assert coverage_over_folds(y[:3], p[:3], np.zeros(3, int))["coverage"] is None
    assert coverage_over_folds(y[:2], p[:2], np.arange(2))["every_class"] == 1.0


def test_it_survives_json_and_nan_is_refused() -> None:
    y, p = sample(80, 3, np.random.default_rng(5))
    calibrated = split_conformal(y, p)
    assert ConformalSets.from_json(json.loads(json.dumps(calibrated.to_json()))) == calibrated
    with pytest.raises(TableError, match="NaN"):
        split_conformal(y, p * np.nan)
    with pytest.raises(TableError, match="format None"):
        ConformalSets.from_json({})


def levels_of(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Four ordered levels by thresholds on a score, and what a model that knows the score but for noise states."""
    score = rng.normal(size=n)
    cuts = np.array([-1.0, 0.0, 1.2])
    y = (score[:, None] + 0.8 * rng.normal(size=(n, 1)) > cuts).sum(axis=1)
    above = 1 / (1 + np.exp(-(score[:, None] - cuts) / 0.4))
    p = np.concatenate([np.ones((n, 1)), above], axis=1) - np.concatenate([above, np.zeros((n, 1))], axis=1)
    return y, p


def test_sets_of_levels_have_no_gaps_and_hold_each_level_as_often_as_they_promise() -> None:
    """With alpha .1 CV+ promises .8 and gives about .9, in each level by itself."""
    rng = np.random.default_rng(4)
    held, seen = np.zeros(4), np.zeros(4)
    for _ in range(60):
        y, p = levels_of(150, rng)
        new_y, new_p = levels_of(100, rng)
        models = np.clip(np.stack([new_p, new_p]) + 0.01 * rng.random((2, 100, 4)), 0, None)
        models /= models.sum(axis=2, keepdims=True)
        inside = cv_plus_sets(y, p, np.arange(150) % 2, models, 0.1, ordered=True)
        changes = np.abs(np.diff(np.pad(inside.astype(int), ((0, 0), (1, 1))), axis=1)).sum(axis=1)
        assert (changes <= 2).all(), "one run of levels, or none"
        for k in range(4):
            held[k] += inside[new_y == k, k].sum()
            seen[k] += (new_y == k).sum()
    assert (held / seen > 0.87).all()
    # Not by naming every level.
    assert inside.sum(axis=1).mean() < 3.3


def test_what_is_not_beyond_a_level_falls_on_both_sides_of_the_median() -> None:
    p = np.array([[0.1, 0.2, 0.4, 0.2, 0.1]])
    assert not_beyond(p)[0] == pytest.approx([0.1, 0.3, 0.7, 0.3, 0.1])
    assert without_gaps(np.array([[True, False, False, True], [False] * 4])).tolist() == [[True] * 4, [False] * 4]


def test_ranges_in_a_cross_validation_hold_the_number_as_often_as_they_aim() -> None:
    rng = np.random.default_rng(5)
    means = []
    for _ in range(100):
        p = rng.normal(size=80)
        found = range_coverage_over_folds(p + rng.normal(size=80), p, np.arange(80) % 4, 0.1)
        means.append(found["coverage"]["mean"])
        assert found["unlimited"] == 0 and 1 < found["half_width"] < 3
    assert 0.89 < np.mean(means) < 0.94


def test_too_few_for_a_range_give_one_without_limits_and_one_fold_gives_none() -> None:
    y = np.arange(12.0)
    found = range_coverage_over_folds(y, y + 1, np.arange(12) % 3, 0.05)
    assert (found["half_width"], found["unlimited"], found["coverage"]["mean"]) == (None, 1.0, 1.0)
    assert "two folds" in range_coverage_over_folds(y, y, np.zeros(12, int), 0.05)["reason"]
