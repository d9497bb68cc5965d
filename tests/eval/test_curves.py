"""Curves against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk

from coverslip.eval import classification_metrics
from coverslip.eval.curves import confusion, curves_of, discrimination, precision_recall, roc
from coverslip.eval.reduce import Units

TWO = ("no", "yes")


def units(n: int, k: int = 2, seed: int = 0) -> Units:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    p = rng.dirichlet(np.ones(k), n).round(2)
    p[:, 0] = 1 - p[:, 1:].sum(axis=1)
    ids = np.array([f"u{i}" for i in range(n)])
    return Units(ids, ids, y, p)


@pytest.mark.parametrize("seed", range(5))
def test_the_roc_curve_has_the_corners_of_scikit_learn(seed: int) -> None:
    u = units(60, seed=seed)
    found = roc(u.y == 1, u.p[:, 1])
    fpr, tpr, _ = sk.roc_curve(u.y, u.p[:, 1], drop_intermediate=False)
    for x, y in zip(found["fpr"], found["tpr"]):
        assert np.isclose(fpr, x).any()
        assert np.isclose(tpr[np.isclose(fpr, x)], y).any()
    assert sk.auc(found["fpr"], found["tpr"]) == pytest.approx(sk.roc_auc_score(u.y, u.p[:, 1]), abs=1e-12)
    assert (found["fpr"][0], found["tpr"][-1]) == (0.0, 1.0)


def test_a_perfect_roc_curve_has_three_points() -> None:
    found = roc(np.array([False, False, True, True]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert found == {"fpr": [0.0, 0.0, 1.0], "tpr": [0.0, 1.0, 1.0]}


def test_the_steps_under_the_precision_recall_curve_are_auprc() -> None:
    u = units(60, seed=2)
    found = precision_recall(u.y == 1, u.p[:, 1])
    area = np.sum(np.diff(found["recall"], prepend=0) * found["precision"])
    assert area == pytest.approx(classification_metrics(u.y, u.p, TWO)["auprc"], abs=1e-12)


def test_curves_of_one_class_are_null() -> None:
    u = units(10)
    entry = discrimination(u.only(u.y == 0), TWO)[0]
    assert (entry["class"], entry["prevalence"], entry["roc"], entry["pr"]) == ("yes", 0.0, None, None)
    empty = discrimination(u.only(u.y == 5), TWO)[0]
    assert (empty["prevalence"], empty["roc"]) == (None, None)


def test_more_than_two_classes_have_a_curve_each() -> None:
    assert [e["class"] for e in discrimination(units(30, 3), ("a", "b", "c"))] == ["a", "b", "c"]


def test_confusion_has_the_truth_in_rows() -> None:
    u = Units(np.arange(3), np.arange(3), np.array([1, 1, 0]), np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]))
    assert confusion(u, TWO) == {"classes": ["no", "yes"], "counts": [[1, 0], [1, 1]], "decision": "p(yes) over 0.5"}


@pytest.mark.parametrize("seed", range(8))
def test_the_area_of_a_mean_curve_is_the_mean_of_areas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, fold = rng.integers(0, 2, 50), rng.integers(0, 4, 50)
    score = rng.normal(y, 1.0).round(seed % 3)
    strata = [np.flatnonzero(fold == k) for k in range(4)]
    both = [at for at in strata if len(set(y[at])) == 2]
    found = curves_of("yes", y == 1, score, strata)
    areas = [sk.roc_auc_score(y[at], score[at]) for at in both]
    precisions = [sk.average_precision_score(y[at], score[at]) for at in both]
    assert found["roc"]["area"] == pytest.approx(np.mean(areas), abs=1e-12)
    assert found["pr"]["area"] == pytest.approx(np.mean(precisions), abs=1e-12)
    assert found["roc"]["folds"] == len(both)
    # The mean of the folds' curves at any fpr between their corners, worked out from scikit-learn's.
    for at in rng.random(20):
        slow = [np.interp(at, *sk.roc_curve(y[places], score[places])[:2]) for places in both]
        assert np.interp(at, found["roc"]["fpr"], found["roc"]["tpr"]) == pytest.approx(np.mean(slow), abs=1e-9)
