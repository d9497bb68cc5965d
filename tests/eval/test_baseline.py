"""The baseline: what it standardises with, what it gives, and that it finds chance in noise."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
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
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=4 / 8, class_weight="balanced", max_iter=2000))
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
    p = mean_sd_logistic(x[:20], y[:20], x[20:], TWO)
    x[20:, 1] = 1e6  # nothing learnt, nothing told
    assert (mean_sd_logistic(x[:20], y[:20], x[20:], TWO) == p).all()


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


@pytest.mark.data
@pytest.mark.parametrize(("name", "least"), [("brca", 0.88), ("lung", 0.93)])
def test_it_reaches_what_is_known_of_published_features_and_folds(test_data: Path, name: str, least: float) -> None:
    folder = test_data / "tcga_features"
    with np.load(folder / f"tcga_{name}.npz") as bags:
        offsets, rows = bags["offsets"], bags["features"]
        x = np.stack([mean_sd(rows[a:b]) for a, b in itertools.pairwise(offsets)])
        row_of, y = {str(s): i for i, s in enumerate(bags["slide_ids"])}, bags["labels"].astype(int)
    (splits,) = [p for p in (folder / "splits").iterdir() if name in p.name.lower()]
    values = []
    for k in range(10):
        table = pd.read_csv(splits / f"splits_{k}.csv")
        train, test = ([row_of[s] for s in table[c].dropna() if s in row_of] for c in ("train", "test"))
        p = mean_sd_logistic(x[train], y[train], x[test], TWO)
        values.append(classification_metrics(y[test], p, TWO)["auroc"])
    assert np.mean(values) > least


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
