"""What inner predictions teach: corrections that help, thresholds, and nothing where nothing can be learnt."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from coverslip.eval import FoldSize
from coverslip.eval.learnt import Learnt, before_and_after, learn, measured_over_folds, with_calibrated
from coverslip.eval.operating_point import OperatingPoint
from coverslip.eval.reduce import Units
from coverslip.eval.truth import Task

TWO = Task("classification", "lesion", ("no", "yes"))


def _sure(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes, and probabilities that are three times too sure of themselves."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=n)
    y = (rng.random(n) < expit(true)).astype(np.int64)
    p = expit(3 * true)
    return y, np.stack([1 - p, p], axis=1)


def test_a_correction_learnt_on_some_makes_others_come_true() -> None:
    learnt = learn(TWO, *_sure(400))
    assert learnt.corrections["lesion"].method == "platt"
    y, p = _sure(4000, seed=1)
    frame = pd.DataFrame({"slide": [f"s{i}" for i in range(4000)], "fold": 0, "set": "test"})
    frame = frame.assign(patient=frame["slide"], lesion=np.array(TWO.classes)[y], p_no=p[:, 0], p_yes=p[:, 1])
    found = before_and_after(with_calibrated(frame, learnt, TWO), TWO, "patient")
    before, after = found["before"][0], found["after"][0]
    assert before["slope"]["high"] < 0.5
    assert after["slope"]["value"] == pytest.approx(1, abs=0.25)
    assert after["ece"] < before["ece"] / 2
    assert after["brier"]["brier"] < before["brier"]["brier"]


@pytest.mark.parametrize(("n", "method"), [(0, "none"), (19, "none"), (60, "temperature"), (200, "platt")])
def test_how_much_is_learnt_depends_on_how_many_there_are(n: int, method: str) -> None:
    y, p = _sure(n)
    found = learn(TWO, y, p)
    assert found.corrections["lesion"].method == method
    assert found.corrected(p, TWO).sum(axis=1) == pytest.approx(np.ones(n))


def test_a_method_that_needs_more_patients_teaches_nothing_and_says_so() -> None:
    found = learn(TWO, *_sure(60), method="isotonic").corrections["lesion"]
    assert (found.method == "none" and "200" in found.reason) or "60" in found.reason


def test_one_class_alone_has_no_threshold() -> None:
    found = learn(TWO, np.ones(30, np.int64), np.full((30, 2), 0.5))
    assert found.points == {"yes": {}}
    assert found.corrections["lesion"].method == "none"


def test_labels_are_corrected_one_by_one_where_they_are_known() -> None:
    task = Task("multilabel", "a, b", ("a", "b"), ("a", "b"))
    y, p = _sure(300)
    both = np.stack([np.where(np.arange(300) < 250, y, np.nan), np.full(300, np.nan)], axis=1)
    found = learn(task, both, np.stack([p[:, 1], p[:, 1]], axis=1))
    assert (found.corrections["a"].n, found.corrections["b"].n) == (250, 0)
    corrected = found.corrected(np.stack([p[:, 1], p[:, 1]], axis=1), task)
    assert np.abs(logit(corrected[:, 0])).mean() < np.abs(logit(p[:, 1])).mean()
    assert (corrected[:, 1] == p[:, 1]).all()
    assert set(found.points) == {"a", "b"} and not found.points["b"]


def test_levels_and_several_classes_have_no_threshold() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 90)
    task = Task("classification", "grade", ("a", "b", "c"))
    assert learn(task, rng.integers(0, 3, 90), p).points == {}


def test_what_went_through_json_says_the_same() -> None:
    y, p = _sure(100)
    found = learn(TWO, y, p)
    corrections, points = (json.loads(json.dumps(one)) for one in (found.corrections_json(), found.points_json()))
    again = Learnt.from_json(corrections, points)
    assert (again.corrected(p, TWO) == found.corrected(p, TWO)).all()
    assert again.points == found.points


def test_rates_over_folds_are_those_of_each_folds_own_threshold() -> None:
    rng = np.random.default_rng(0)
    units, points, sizes, slow = [], [], [], []
    for fold, threshold in enumerate((0.2, 0.5, 0.8)):
        y, score = rng.integers(0, 2, 30), rng.random(30)
        ids = np.array([f"{fold}-{i}" for i in range(30)], dtype=object)
        units.append(Units(ids, ids, y, np.stack([1 - score, score], axis=1)))
        points.append({"yes": {"youden": OperatingPoint("youden", None, threshold, 1.0, 1.0, 60)}})
        sizes.append(FoldSize(fold, train=60, test=30))
        slow.append(sum(t == 1 and s >= threshold for t, s in zip(y, score)) / sum(y))
    (found,) = measured_over_folds(units, points, sizes, TWO)
    assert found["thresholds"] == [0.2, 0.5, 0.8]
    assert found["sensitivity"]["value"] == pytest.approx(np.mean(slow))
    sd = np.sqrt(np.var(slow, ddof=1) * (1 / 3 + 30 / 60))
    assert found["sensitivity"]["high"] == pytest.approx(min(1.0, np.mean(slow) + 4.302653 * sd), abs=1e-6)
    # A fold whose test patients are of one class says nothing of sensitivity, and one without a threshold nothing.
    units[0] = Units(units[0].ids, units[0].patient, np.zeros(30, int), units[0].p)
    points[1] = {}
    (found,) = measured_over_folds(units, points, sizes, TWO)
    assert found["sensitivity"]["value"] == pytest.approx(slow[2])
    assert found["sensitivity"]["low"] is None
