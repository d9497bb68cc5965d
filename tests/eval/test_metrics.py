"""Every metric against scikit-learn, a slow loop or a sum done by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given
from hypothesis import strategies as st

from coverslip.base.errors import TableError
from coverslip.eval import METRICS, classification_metrics
from coverslip.eval.metrics import weighted

TWO = ("no", "yes")
THREE = ("a", "b", "c")


def draw(n: int, k: int, seed: int, *, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Labels with every class, and probabilities rounded so that ties occur."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    p = rng.dirichlet(np.ones(k), n).round(digits)
    p[:, 0] = 1 - p[:, 1:].sum(axis=1)
    return y, np.clip(p, 0, 1)


def binary(y: list[int], p: list[float]) -> dict[str, float | None]:
    scores = np.array(p, dtype=float)
    return classification_metrics(np.array(y), np.stack([1 - scores, scores], axis=1), TWO)


@pytest.mark.parametrize("seed", range(10))
def test_two_classes_agree_with_scikit_learn(seed: int) -> None:
    y, p = draw(80, 2, seed)
    found = classification_metrics(y, p, TWO)
    decided = p.argmax(axis=1)
    expected = {
        "auroc": sk.roc_auc_score(y, p[:, 1]),
        "auprc": sk.average_precision_score(y, p[:, 1]),
        "balanced_accuracy": sk.balanced_accuracy_score(y, decided),
        "f1": sk.f1_score(y, decided),
        "brier": sk.brier_score_loss(y, p[:, 1]),
        "accuracy": sk.accuracy_score(y, decided),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("seed", range(10))
def test_three_classes_agree_with_scikit_learn(seed: int) -> None:
    y, p = draw(90, 3, seed, digits=3)
    p = p / p.sum(axis=1, keepdims=True)
    found = classification_metrics(y, p, THREE)
    decided = p.argmax(axis=1)
    expected = {
        "auroc": sk.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "auprc": sk.average_precision_score(np.eye(3)[y], p, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(y, decided),
        "f1": sk.f1_score(y, decided, average="macro"),
        "brier": ((p - np.eye(3)[y]) ** 2).sum(axis=1).mean(),
        "accuracy": sk.accuracy_score(y, decided),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("k", [2, 3])
def test_ece_agrees_with_a_loop_over_bins(k: int) -> None:
    y, p = draw(200, k, 3)
    stated = p[:, 1] if k == 2 else p.max(axis=1)
    true = y == 1 if k == 2 else p.argmax(axis=1) == y
    total = 0.0
    # The twenty lowest, the next twenty, ...; all of a tie go where its middle is.
    middle = [sum(stated < s) + (sum(stated == s) - 1) / 2 for s in stated]
    for b in range(10):
        rows = [i for i in range(200) if int(middle[i] // 20) == b]
        if rows:
            total += len(rows) / 200 * abs(np.mean(stated[rows]) - np.mean(true[rows]))
    found = classification_metrics(y, p, TWO if k == 2 else THREE)
    assert found["ece"] == pytest.approx(total, abs=1e-12)


def test_values_worked_out_by_hand() -> None:
    found = binary([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    assert found["auroc"] == pytest.approx(0.75)  # three of four pairs in order
    assert found["auprc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found["accuracy"] == pytest.approx(0.75)
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["brier"] == pytest.approx((0.01 + 0.16 + 0.4225 + 0.04) / 4)
    assert found["ece"] == pytest.approx(abs(1.65 / 4 - 0.5))  # under twenty units are one bin


def test_ties_count_half() -> None:
    assert binary([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5])["auroc"] == 0.5
    assert binary([0, 1, 1], [0.2, 0.2, 0.9])["auroc"] == 0.75


def test_an_exact_half_is_decided_for_the_class_named_first() -> None:
    found = binary([0, 1], [0.5, 0.5])
    assert found["accuracy"] == 0.5
    assert found["f1"] == 0.0


def test_one_class_alone_gives_none_where_it_must_and_numbers_elsewhere() -> None:
    found = binary([0, 0, 0], [0.1, 0.2, 0.9])
    assert found["auroc"] is None
    assert found["auprc"] is None
    assert found["balanced_accuracy"] is None
    assert found["f1"] is None
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.81) / 3)


def test_a_class_of_three_without_a_unit_gives_none_for_what_averages_over_classes() -> None:
    y, p = draw(30, 3, 0, digits=3)
    found = classification_metrics(np.where(y == 2, 0, y), p, THREE)
    assert [name for name, value in found.items() if value is None] == ["auroc", "auprc", "balanced_accuracy", "f1"]


def test_one_unit_and_none_at_all_are_no_crash() -> None:
    assert binary([1], [0.9])["accuracy"] == 1.0
    assert binary([1], [0.9])["auroc"] is None
    assert set(binary([], []).values()) == {None}


@pytest.mark.parametrize(
    ("p", "says"), [([0.2, np.nan], "not a number"), ([0.2, 1.5], "outside 0 to 1"), ([0.2, 0.2], "add up to 1")]
)
def test_what_is_no_probability_is_refused_with_its_row(p: list[float], says: str) -> None:
    good = [0.5, 0.5]
    with pytest.raises(TableError, match=f"row 1.*{says}"):
        classification_metrics(np.array([0, 1]), np.array([good, p]), TWO)


scores = st.lists(st.integers(0, 30), min_size=2, max_size=40)


@given(scores, st.randoms(use_true_random=False))
def test_auroc_keeps_under_any_increasing_change_of_scores(values: list[int], random) -> None:
    y = [random.randint(0, 1) for _ in values]
    score = np.array(values) / 30
    assert binary(y, list(score))["auroc"] == binary(y, list(score**3))["auroc"]


@given(scores, st.randoms(use_true_random=False))
def test_auroc_of_swapped_classes_is_its_complement(values: list[int], random) -> None:
    y = np.array([random.randint(0, 1) for _ in values])
    score = np.array(values) / 30
    auroc, swapped = binary(list(y), list(score))["auroc"], binary(list(1 - y), list(score))["auroc"]
    if auroc is None:
        assert swapped is None
    else:
        assert auroc + swapped == pytest.approx(1)


@given(scores, st.randoms(use_true_random=False))
def test_auroc_is_the_chance_that_a_pair_is_in_order(values: list[int], random) -> None:
    y = [random.randint(0, 1) for _ in values]
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for (a, ya), (b, yb) in itertools.product(zip(values, y), repeat=2)
        if ya == 1 and yb == 0
    ]
    found = binary(y, [v / 30 for v in values])["auroc"]
    assert found == (pytest.approx(np.mean(pairs)) if pairs else None)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("name", METRICS)
def test_weights_mean_the_same_as_repeated_rows(name: str, k: int) -> None:
    y, p = draw(40, k, 5)
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 4, (20, 40)).astype(float)
    found = weighted(name, y, p, weights)
    for row, value in zip(weights.astype(int), found):
        again = np.repeat(np.arange(40), row)
        expected = classification_metrics(y[again], p[again], TWO if k == 2 else THREE)[name]
        assert value == pytest.approx(expected if expected is not None else np.nan, abs=1e-12, nan_ok=True)
