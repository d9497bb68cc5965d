"""Covariates as numbers, whatever is missing or new; and what tissue adds to them, in figures and in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.eval import FoldSize
from coverslip.eval.covariates import Covariate, added_value, design, sentence, tissue_scores
from coverslip.eval.interval import Interval
from coverslip.eval.truth import Task

TASK = Task("classification", "lesion", ("0", "1"))


def _columns(training: list[Any], new: list[Any]) -> tuple[list[list[float]], int]:
    columns, strange = Covariate.learn("x", training).columns(new)
    return columns.tolist(), strange


def test_a_missing_number_is_the_training_median_and_says_so() -> None:
    assert _columns([1.0, 3.0, float("nan"), 8.0], [2, None, "old"]) == ([[2, 0], [3, 1], [3, 1]], 1)
    assert _columns([1.0, 3.0], [float("nan")]) == ([[2]], 0)  # nothing was missing in training: no column for it


def test_text_has_a_column_for_each_value_but_the_most_frequent() -> None:
    assert _columns(["b", "a", "a", "c"], ["a", "b", "c"]) == ([[0, 0], [1, 0], [0, 1]], 0)
    assert _columns(["a", "b", None, "a"], ["b", None, "new"]) == ([[1, 0], [0, 1], [0, 1]], 1)


def test_what_never_varies_is_a_column_that_says_nothing() -> None:
    covariates = [Covariate.learn("x", ["a", "a"])]
    columns, strange = design(covariates, pd.DataFrame({"x": ["a", "b"]}))
    assert columns.tolist() == [[0], [0]] and strange == {"x": 1}


_value = st.one_of(
    st.none(), st.floats(allow_nan=True, allow_infinity=False, width=32), st.text(max_size=3), st.integers(-9, 9)
)


@given(st.lists(_value, min_size=1, max_size=12), st.lists(_value, min_size=1, max_size=12))
def test_whatever_the_cells_hold_columns_are_numbers_and_survive_json(training: list[Any], new: list[Any]) -> None:
    learnt = Covariate.learn("x", training)
    columns, strange = learnt.columns(new)
    assert columns.shape[0] == len(new) and np.isfinite(columns).all()
    assert 0 <= strange <= len(new)
    again = Covariate.from_json(learnt.to_json())
    assert (again.columns(new)[0] == columns).all()


@pytest.mark.parametrize(
    ("kind", "classes", "width"),
    [
        ("classification", ("a", "b"), 1),
        ("classification", ("a", "b", "c"), 3),
        ("ordinal", ("a", "b", "c"), 2),
        ("multilabel", ("a", "b"), 2),
        ("regression", (), 1),
        ("survival", (), 1),
        ("competing_risks", ("a", "b"), 2),
    ],
)
def test_tissue_scores_are_few_and_finite_even_where_a_model_is_sure(
    kind: str, classes: tuple[str, ...], width: int
) -> None:
    task = Task(kind, "x", classes, grid=(1.0, 2.0))
    p = np.zeros((3, len(task.reader.predictions(task))))
    p[:, 0] = 1
    assert tissue_scores(task, p).shape == (3, width)
    assert np.isfinite(tissue_scores(task, p)).all()


def _table(signal: float, seed: int, y: np.ndarray) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(size=len(y)) - signal * (2 * y - 1)))
    n = np.arange(len(y))
    slides = [f"s{i}" for i in n]
    frame = pd.DataFrame({"slide": slides, "patient": slides, "fold": n % 5, "repeat": 0, "set": "test"})
    return frame.assign(lesion=y.astype(str), p_0=1 - p, p_1=p)


def test_the_difference_is_of_the_same_folds() -> None:
    y = np.arange(200) // 5 % 2
    sizes = [FoldSize(k, train=160, test=40) for k in range(5)]
    weak, strong = _table(0.3, 1, y), _table(1.5, 2, y)
    found = added_value(weak, weak, strong, names=["age"], task=TASK, level="patient", sizes=sizes)
    gap = found["tissue_covariates"]["auroc"]["value"] - found["covariates"]["auroc"]["value"]
    assert found["adds"]["auroc"]["value"] == pytest.approx(gap)
    assert found["sentence"].startswith("Tissue adds to age: auroc +0.")
    # Folds without tissue + covariates are left out of all three.
    some = added_value(
        weak, weak, strong[strong["fold"] < 3], names=["age"], task=TASK, level="patient", sizes=sizes, reason="too few"
    )
    assert some["folds"] == 3 and some["reason"] == "too few"
    none = added_value(weak, weak, None, names=["age"], task=TASK, level="patient", sizes=sizes, reason="too few")
    assert none["folds"] == 5 and none["adds"] == {} and "could not be computed" in none["sentence"]


@pytest.mark.parametrize(
    ("metric", "value", "low", "high", "said"),
    [
        ("auroc", 0.0, -0.02, 0.03, "Tissue adds little to age: auroc +0.000 (-0.020 to +0.030)."),
        ("auroc", -0.0001, -0.02, 0.03, "Tissue adds little to age: auroc +0.000 (-0.020 to +0.030)."),
        ("auroc", 0.1, 0.05, 0.2, "Tissue adds to age: auroc +0.100 (+0.050 to +0.200)."),
        ("auroc", 0.1, -0.05, 0.2, "That tissue adds to age is not shown: auroc +0.100 (-0.050 to +0.200)."),
        ("auroc", -0.1, -0.2, -0.05, "Tissue takes away from age: auroc -0.100 (-0.200 to -0.050)."),
        (
            *("c_index", 0.007, -0.08, 0.09),
            "On these folds tissue adds little to age: c_index +0.007 (-0.080 to +0.090); "
            "more, or less, is not excluded.",
        ),
        ("brier", -0.1, -0.2, -0.05, "Tissue adds to age: brier +0.100 (+0.050 to +0.200)."),
        (
            "auroc",
            0.1,
            None,
            None,
            "Tissue changes auroc by +0.100 over age alone; no interval, so nothing is claimed.",
        ),
    ],
)
def test_the_sentence_claims_no_more_than_is_shown(
    metric: str, value: float, low: float | None, high: float | None, said: str
) -> None:
    assert sentence(metric, Interval(value, low, high, "x"), ["age"]) == said
