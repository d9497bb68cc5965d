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
    split_conformal,
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
