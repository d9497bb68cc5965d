"""The block of evaluation.json that says whether probabilities may be acted on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax

from coverslip.base.files import finite
from coverslip.eval.decision import decision_curve
from coverslip.eval.levels import median_level
from coverslip.eval.reduce import Units
from coverslip.eval.trust import trust, trust_in_labels, trust_in_levels, trust_in_numbers


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


def test_what_is_acted_on_is_judged_by_the_recalibrated_probabilities() -> None:
    """A model of balanced classes states .5 where a tenth have the disease: raw, treating by it does harm."""
    rng = np.random.default_rng(0)
    score = rng.normal(size=600)
    y = (rng.random(600) < expit(score - 2.5)).astype(np.int64)
    ids = np.arange(600).astype(str)
    raw, right = expit(score), expit(score - 2.5)
    units = Units(ids, ids, y, np.stack([1 - raw, raw], axis=1), np.arange(600) % 5)
    corrected = replace(units, p=np.stack([1 - right, right], axis=1))
    found = trust(units, ("no", "yes"), out_of_fold=True, corrected=corrected)
    (entry,) = found["decision"]
    assert found["probabilities"] == entry["probabilities"] == "recalibrated"
    assert entry["curve"] == decision_curve(y == 1, right, ids) and entry["raw"] == decision_curve(y == 1, raw, ids)
    at = {point["threshold"]: point["model"]["value"] for point in entry["raw"]}
    assert at[0.3] < 0 <= next(point["model"]["value"] for point in entry["curve"] if point["threshold"] == 0.3) + 0.01
    assert found["abstention"]["aurc"] != found["abstention"]["raw_aurc"]
    same = trust(units, ("no", "yes"), out_of_fold=True, corrected=units)
    assert same["probabilities"] == "raw" and "raw" not in same["decision"][0]


def test_sets_miss_the_share_that_is_asked_for() -> None:
    wide, narrow = (trust(units_of(300, 2), ("a", "b"), out_of_fold=True, alpha=alpha)["sets"] for alpha in (0.02, 0.2))
    assert (wide["aim"], narrow["aim"]) == (0.98, 0.8)
    assert wide["set_size"] > narrow["set_size"]


def test_levels_are_trusted_by_thresholds_and_their_median() -> None:
    units = units_of(200, 3)
    found = trust_in_levels(units, ("low", "middle", "high"), out_of_fold=True)
    assert [entry["class"] for entry in found["decision"]] == ["middle or higher", "high or higher"]
    assert [entry["of"] for entry in found["calibration"]] == ["p(middle or higher)", "p(high or higher)"]
    top = units.p[:, 2]
    assert found["decision"][1]["curve"] == decision_curve(units.y == 2, top, units.patient)
    wrong = median_level(units.p) != units.y
    assert found["abstention"]["aurc_by_chance"] == wrong.mean()
    assert found["sets"]["coverage"]["mean"] > 0.85
    json.dumps(finite(found), allow_nan=False)


def test_a_label_is_trusted_by_those_who_know_it() -> None:
    two = units_of(200, 2)
    y = np.stack([two.y, 1 - two.y], axis=1).astype(float)
    y[:60, 1] = np.nan
    labels = replace(two, y=y, p=np.stack([two.p[:, 1], two.p[:, 0]], axis=1))
    found = trust_in_labels(labels, ("a", "b"), out_of_fold=True)
    alone = trust(two, ("no a", "a"), out_of_fold=True)
    assert found["labels"]["a"] == {"abstention": alone["abstention"], "sets": alone["sets"]}
    assert found["calibration"][0] == alone["calibration"][0] and found["decision"][0] == alone["decision"][0]
    assert [entry["n"] for entry in found["calibration"]] == [200, 140]
    assert sum(found["labels"]["b"]["sets"]["counts"].values()) == 140
    assert found["sets"]["coverage"] is None and "each by itself" in found["sets"]["reason"]


def test_numbers_have_ranges_and_say_that_they_come_without_a_probability() -> None:
    ids = np.arange(100).astype(str)
    y = np.random.default_rng(0).normal(size=100)
    units = Units(ids, ids, y, np.zeros((100, 1)), np.arange(100) % 5)
    found = trust_in_numbers(units, out_of_fold=True, alpha=0.1)
    assert found["sets"]["coverage"]["mean"] > 0.8 and found["sets"]["half_width"] > 1
    assert "without a probability" in found["no_probability"]
    assert (
        "several slides"
        in trust_in_numbers(replace(units, patient=np.arange(100) // 2), out_of_fold=True)["sets"]["reason"]
    )


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_few_patients_of_any_kind_are_no_crash(n: int) -> None:
    two, three = units_of(n, 2), units_of(n, 3)
    known = replace(two, y=np.where(np.arange(n)[:, None] == 0, np.nan, two.y[:, None] * np.ones((n, 2))))
    numbers = replace(two, y=two.y.astype(float), p=two.p[:, :1])
    for found in (
        trust_in_levels(three, ("1", "2", "3"), out_of_fold=True),
        trust_in_labels(known, ("a", "b"), out_of_fold=True),
        trust_in_numbers(numbers, out_of_fold=True),
    ):
        json.dumps(finite(found), allow_nan=False)
        coverage = found["sets"]["coverage"]
        assert coverage is None or n >= 2
