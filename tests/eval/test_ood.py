"""The flag for unlike slides: what it raises, how often falsely, and that copies of a patient do not hide it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coverslip.base.errors import FeatureError
from coverslip.eval.ood import Likeness, likeness


def slides(n: int, d: int = 24, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d)) / np.sqrt(d)
    return rng.normal(size=(n, d)) @ mixing * 3 + 7 + shift


def test_slides_from_elsewhere_are_flagged_and_like_ones_seldom() -> None:
    train = slides(200)
    found = likeness(train, np.arange(200))
    assert found.flagged(slides(100, seed=1, shift=8.0)).mean() > 0.95
    assert found.flagged(slides(400, seed=2)).mean() < 0.1
    assert found.false_alarms.low <= 0.05 <= found.false_alarms.high
    assert found.p_values(slides(3, seed=1, shift=50.0)) == pytest.approx(np.full(3, 1 / 201))


def test_false_alarms_are_as_many_as_stated_on_average() -> None:
    rates = [likeness(slides(60, seed=s), np.arange(60)).flagged(slides(200, seed=1000 + s)).mean() for s in range(30)]
    assert np.mean(rates) == pytest.approx(0.05, abs=0.025)


def test_a_patients_own_slides_do_not_make_it_look_near() -> None:
    train = slides(60)
    copies = np.repeat(np.arange(60), 3)
    found = likeness(train[copies], copies)
    # Were a patient's own copies its neighbours, every training distance would be 0.
    assert found.distances.min() > 0.1
    assert len(found.distances) == 60
    assert found.flagged(slides(300, seed=5)).mean() < 0.15


def test_too_few_patients_set_no_threshold() -> None:
    found = likeness(slides(12), np.arange(12))
    assert found.threshold is None
    assert found.flagged(slides(2)) is None
    assert found.false_alarms.value is None
    assert 0 < found.p_values(slides(2, seed=3)).min() <= 1
    with pytest.raises(FeatureError, match="one patient"):
        likeness(slides(5), ["a"] * 5)


def test_it_survives_files_and_another_encoder_is_refused() -> None:
    found = likeness(slides(40), np.arange(40))
    read = Likeness.from_parts(json.loads(json.dumps(found.to_json())), found.arrays())
    new = slides(9, seed=4)
    assert (read.flagged(new) == found.flagged(new)).all()
    assert read.false_alarms == found.false_alarms
    with pytest.raises(FeatureError, match="Slides of 10 features; the model has learnt from 24"):
        found.distance(new[:, :10])
    with pytest.raises(FeatureError, match="row 1: NaN"):
        found.distance(np.where(np.arange(9)[:, None] == 1, np.nan, new))


def test_a_feature_that_never_varies_does_not_decide_alone() -> None:
    train = slides(80)
    train[:, 0] = 3.0
    new = slides(50, seed=6)
    new[:, 0] = 3.001
    assert likeness(train, np.arange(80)).flagged(new).mean() < 0.3
