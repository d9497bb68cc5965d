"""Recalibration: what is learnt from how many, that it helps elsewhere, and the trip through JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from coverslip.base.errors import SettingsError, TableError
from coverslip.eval.recalibrate import Recalibration, recalibration


def overconfident(n: int, seed: int = 0, *, factor: float = 3.0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.2, n)
    y = (rng.random(n) < expit(z)).astype(int)
    p = expit(factor * z + shift)
    return y, np.stack([1 - p, p], axis=1)


def brier(y: np.ndarray, p: np.ndarray) -> float:
    return float(((p[:, 1] - y) ** 2).mean())


def log_loss(y: np.ndarray, p: np.ndarray) -> float:
    return float(-np.log(np.clip(p[np.arange(len(y)), y], 1e-9, 1)).mean())


RULE = [(0, "none"), (19, "none"), (20, "temperature"), (79, "temperature"), (80, "platt"), (500, "platt")]


@pytest.mark.parametrize(("n", "method"), RULE)
def test_as_much_is_learnt_as_there_are_patients(n: int, method: str) -> None:
    y = np.arange(n) % 2
    p = np.stack([np.full(n, 0.4), np.full(n, 0.6)], axis=1)
    assert recalibration(y, p).method == method


def test_a_rare_class_allows_a_temperature_at_most_and_an_absent_one_nothing() -> None:
    _, p = overconfident(300)
    assert recalibration((np.arange(300) < 9).astype(int), p).method == "temperature"
    assert recalibration((np.arange(300) < 10).astype(int), p).method == "platt"
    assert recalibration(np.zeros(300, int), p).method == "none"


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic", "venn_abers"])
def test_what_is_learnt_helps_other_patients_and_survives_json(method: str) -> None:
    y, p = overconfident(400)
    new_y, new_p = overconfident(400, seed=1)
    learnt = recalibration(y, p, method=method)
    better = learnt.apply(new_p)
    assert brier(new_y, better) < brier(new_y, new_p) - 0.01
    assert better.min() > 0
    assert better.sum(axis=1) == pytest.approx(np.ones(400))
    read = Recalibration.from_json(json.loads(json.dumps(learnt.to_json())))
    assert read == learnt
    assert (read.apply(new_p) == better).all()


@settings(deadline=None, max_examples=25)
@given(n=st.integers(20, 150), seed=st.integers(0, 99), factor=st.floats(-2, 5), shift=st.floats(-3, 3))
def test_temperature_and_platt_keep_the_order_of_patients(n: int, seed: int, factor: float, shift: float) -> None:
    y, p = overconfident(n, seed, factor=factor, shift=shift)
    # Rounding may make ties of what was a hair apart, and never turns two round.
    before, after = p[:, 1], recalibration(y, p).apply(p)[:, 1]
    assert (np.diff(after[np.argsort(before, kind="stable")]) >= -1e-9).all()
    assert np.isfinite(after).all()


def test_platt_is_a_logistic_regression_on_the_logit() -> None:
    y, p = overconfident(5000, shift=1.0)
    learnt = recalibration(y, p)
    z = np.log(p[:, 1] / p[:, 0])
    fit = LogisticRegression(C=1e9).fit(z[:, None], y)
    # Platt's targets are not quite 0 and 1, which 5,000 patients hardly feel.
    assert learnt.slope == pytest.approx(fit.coef_[0, 0], rel=0.01)
    assert learnt.shift[1] - learnt.shift[0] == pytest.approx(fit.intercept_[0], abs=0.02)


def test_separated_classes_do_not_drive_probabilities_to_certainty() -> None:
    y = np.arange(100) % 2
    p = np.stack([1 - y * 0.2 - 0.4, y * 0.2 + 0.4], axis=1)
    corrected = recalibration(y, p).apply(p)
    assert corrected.min() > 0.001
    assert np.isfinite(corrected).all()


def test_venn_abers_is_what_the_definition_gives() -> None:
    y, p = overconfident(200)
    learnt = recalibration(y, p, method="venn_abers")
    score = 0.55
    pair = []
    for label in (0, 1):
        # The largest rising means, by the min-max formula of isotonic regression.
        s, o = np.append(p[:, 1], score), np.append(y, label)
        levels = np.unique(s)
        at = levels.searchsorted(score)
        means = lambda i, j, s=s, o=o, levels=levels: o[(s >= levels[i]) & (s <= levels[j])].mean()  # noqa: E731
        pair.append(max(min(means(i, j) for j in range(at, len(levels))) for i in range(at + 1)))
    p0, p1 = pair
    assert learnt.apply(np.array([[1 - score, score]]))[0, 1] == pytest.approx(p1 / (1 - p0 + p1), abs=1e-9)


def test_three_classes_are_recalibrated_too() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1, (400, 3))
    truth = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    y = np.array([rng.choice(3, p=row) for row in truth])
    p = np.exp(3 * z) / np.exp(3 * z).sum(1, keepdims=True)
    for method in ("temperature", "platt", "isotonic", "venn_abers"):
        corrected = recalibration(y[:250], p[:250], method=method).apply(p[250:])
        assert corrected.sum(1) == pytest.approx(np.ones(150))
        assert log_loss(y[250:], corrected) < log_loss(y[250:], p[250:])
    slope = recalibration(y, p, method="temperature").slope
    assert slope == pytest.approx(1 / 3, abs=0.08)


def test_what_too_few_patients_cannot_give_is_refused() -> None:
    y, p = overconfident(100)
    with pytest.raises(SettingsError, match="isotonic has 100 patients"):
        recalibration(y, p, method="isotonic")
    with pytest.raises(SettingsError, match="platt has 10 patients"):
        recalibration(y[:10], p[:10], method="platt")
    with pytest.raises(TableError, match="NaN"):
        recalibration(y, p * np.nan)
    with pytest.raises(TableError, match=r"Accepted: 'coverslip.recalibration/1'"):
        Recalibration.from_json({"format": "x"})
    assert recalibration(y, p, method="none").apply(p) is not None
