"""The block of evaluation.json that says whether probabilities may be acted on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import softmax

from coverslip.base.files import finite
from coverslip.eval.reduce import Units
from coverslip.eval.trust import trust


def units_of(n: int, k: int, *, seed: int = 0, folds: int | None = 5, slides: int = 1) -> Units:
    rng = np.random.default_rng(seed)
    y = np.repeat(rng.integers(0, k, n), slides)
    p = softmax(rng.normal(size=(n * slides, k)) + np.eye(k)[y], axis=1)
    stratum = None if folds is None else np.repeat(np.arange(n) % folds, slides)
    ids = np.array([f"p{i // slides}-{i}" for i in range(n * slides)])
    return Units(ids, np.repeat(np.arange(n).astype(str), slides), y, p, stratum)


@pytest.mark.parametrize("k", [2, 3])
def test_it_is_json_and_says_whose_figures_these_are(k: int) -> None:
    classes = tuple("abc"[:k])
    found = trust(units_of(150, k), classes, out_of_fold=True)
    assert "these fitted models on average" in found["estimates"]
    assert len(found["decision"]) == (1 if k == 2 else 3)
    assert len(found["calibration"]) == (1 if k == 2 else 4)
    assert found["sets"]["coverage"]["mean"] > 0.85
    json.dumps(finite(found), allow_nan=False)
    fixed = trust(units_of(40, k, folds=None), classes, out_of_fold=False)
    assert fixed["sets"]["coverage"] is None
    assert "as it stands" in fixed["estimates"]


def test_sets_need_folds_and_patients_that_are_apart() -> None:
    assert "several folds" in trust(units_of(30, 2, folds=None), ("a", "b"), out_of_fold=True)["sets"]["reason"]
    assert "several slides" in trust(units_of(30, 2, slides=2), ("a", "b"), out_of_fold=True)["sets"]["reason"]


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_few_patients_are_no_crash(n: int) -> None:
    found = trust(units_of(n, 2), ("a", "b"), out_of_fold=True)
    json.dumps(finite(found), allow_nan=False)
    assert (found["abstention"] is None) == (n == 0)
