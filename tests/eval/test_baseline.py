"""The baseline: what it standardises with, what it gives, and that it finds chance in noise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from coverslip.eval import classification_metrics, mean_sd, mean_sd_logistic

TWO = ("0", "1")


def test_mean_sd_is_in_float64_whatever_the_rows_are() -> None:
    rows = np.full((100_000, 2), 100, dtype=np.float16)
    rows[::2, 1] = 102
    assert mean_sd(rows) == pytest.approx([100, 101, 0, 1])


def test_it_is_logistic_regression_on_columns_standardised_by_the_training_rows() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 5, (60, 8)), rng.integers(0, 2, 60)
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000))
    expected = oracle.fit(x[:40], y[:40]).predict_proba(x[40:])
    assert mean_sd_logistic(x[:40], y[:40], x[40:], TWO) == pytest.approx(expected)


def test_test_rows_change_nothing_but_their_own_probabilities() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), np.arange(30) % 2
    alone = mean_sd_logistic(x[:20], y[:20], x[20:21], TWO)
    together = mean_sd_logistic(x[:20], y[:20], np.concatenate([x[20:21], 1000 * x[21:]]), TWO)
    assert together[0] == pytest.approx(alone[0])


def test_a_column_that_never_varies_in_training_is_ignored() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), np.arange(30) % 2
    x[:20, 1] = 0.1
    without = mean_sd_logistic(x[:20][:, [0, 2]], y[:20], x[20:][:, [0, 2]], TWO)
    assert mean_sd_logistic(x[:20], y[:20], x[20:], TWO) == pytest.approx(without, abs=1e-6)


def test_a_class_without_a_training_bag_gets_probability_zero() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3))
    p = mean_sd_logistic(x, np.arange(20) % 2 * 2, x, ("a", "b", "c"))
    assert (p[:, 1] == 0).all()
    assert p.sum(axis=1) == pytest.approx(np.ones(20))
    only = mean_sd_logistic(x, np.ones(20, dtype=int), x, ("a", "b", "c"))
    assert (only == [0, 1, 0]).all()


def test_permuted_patients_give_chance() -> None:
    rng = np.random.default_rng(7)
    patients = np.repeat(np.arange(50), 2)
    x = rng.normal(size=(100, 12)) + rng.normal(size=(50, 12))[patients]
    truth = np.arange(50) % 2
    x[:, 0] += 4 * truth[patients]  # there is a signal, which permutation must break
    fold_of = rng.permutation(50) % 5
    found = [_mean_auroc(x, truth, patients, fold_of)]
    assert found[0] > 0.8
    found = [_mean_auroc(x, rng.permutation(truth), patients, fold_of) for _ in range(20)]
    standard_error = np.std(found, ddof=1) / np.sqrt(20)
    assert abs(np.mean(found) - 0.5) < 2 * standard_error


def _mean_auroc(x: np.ndarray, label: np.ndarray, patients: np.ndarray, fold_of: np.ndarray) -> float:
    values = []
    for fold in range(5):
        test = fold_of[patients] == fold
        p = mean_sd_logistic(x[~test], label[patients[~test]], x[test], TWO)
        of_patient = patients[test]
        ids = np.unique(of_patient)
        mean = np.stack([p[of_patient == i].mean(axis=0) for i in ids])
        values.append(classification_metrics(label[ids], mean, TWO)["auroc"])
    return float(np.mean(values))
