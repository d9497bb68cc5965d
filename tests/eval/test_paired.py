"""Two fixed models on one cohort: the difference is that of the figures, and nothing is said of too few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coverslip.eval.compare import paired_delong
from coverslip.eval.kinds import KINDS
from coverslip.eval.paired import paired_differences
from coverslip.eval.reduce import Units
from coverslip.eval.truth import Task

BINARY = Task("classification", "y", ("0", "1"))
TIMES = Task("survival", "died", (), ("days", "died"), (1.0, 2.0))


def _units(y: np.ndarray, p: np.ndarray) -> Units:
    ids = np.array([f"p{i:03}" for i in range(len(y))], dtype=object)
    return Units(ids, ids, y, p)


def _classes(n: int, positive: int, seed: int) -> tuple[Units, Units]:
    rng = np.random.default_rng(seed)
    y = (np.arange(n) < positive).astype(np.int64)
    scores = rng.normal(y[:, None] * [1.5, 0.5], 1.0)
    p = 1 / (1 + np.exp(-scores))
    ours, theirs = (np.stack([1 - p[:, k], p[:, k]], axis=1) for k in (0, 1))
    return _units(y, ours), _units(y, theirs)


def _times(n: int, events: int) -> tuple[Units, Units]:
    rng = np.random.default_rng(0)
    risk = rng.normal(size=n)
    y = np.stack([rng.exponential(np.exp(-risk)) + 0.01, np.arange(n) < events], axis=1)
    curves = np.exp(-np.outer(np.exp(risk), [1.0, 2.0]))
    other = rng.normal(size=n)
    flat = np.exp(-np.outer(np.exp(other), [1.0, 2.0]))
    return (_units(y, np.column_stack([risk, curves])), _units(y, np.column_stack([other, flat])))


def _found(ours: Units, theirs: Units, task: Task) -> dict[str, Any]:
    kind = KINDS[task.kind]
    figures = kind.fixed(ours, task, 200, 0), kind.fixed(theirs, task, 200, 0)
    return paired_differences(ours, theirs, task, figures=figures)


def test_each_difference_is_that_of_the_figures() -> None:
    for task, (ours, theirs) in ((BINARY, _classes(200, 80, 0)), (TIMES, _times(80, 50))):
        kind = KINDS[task.kind]
        found = _found(ours, theirs, task)
        one, other = kind.figures(ours, task), kind.figures(theirs, task)
        assert list(found) == list(kind.names(task))
        for name, gap in found.items():
            assert gap["value"] == pytest.approx(one[name] - other[name], abs=1e-12), name
            if gap["low"] is not None:
                assert gap["low"] < gap["value"] < gap["high"]


def test_the_auroc_is_by_delong() -> None:
    ours, theirs = _classes(60, 25, 1)
    found = _found(ours, theirs, BINARY)["auroc"]
    expected = paired_delong(ours.y == 1, ours.p[:, 1], theirs.p[:, 1], ours.patient)
    assert (found["low"], found["high"], found["p"]) == (expected.difference.low, expected.difference.high, expected.p)


def test_equally_good_models_are_rarely_called_different() -> None:
    """Of 60 patients: by resampled patients 14 of 100 such cohorts had an interval of AUPRC or F1 without 0."""
    rng = np.random.default_rng(4)
    called: dict[str, list[bool]] = {"auprc": [], "balanced_accuracy": [], "f1": []}
    for _ in range(250):
        y = (np.arange(60) < 15).astype(np.int64)
        shared, *own = rng.normal(size=(3, 60))
        scores = [1 / (1 + np.exp(-((shared + one) / np.sqrt(2) + 1.5 * y - 0.75))) for one in own]
        ours, theirs = (_units(y, np.stack([1 - p, p], axis=1)) for p in scores)
        for name, gap in _found(ours, theirs, BINARY).items():
            if name in called:
                called[name].append(gap["low"] is not None and (gap["low"] > 0 or gap["high"] < 0))
    assert max(map(np.mean, called.values())) < 0.08, called


def test_of_few_events_there_is_no_interval() -> None:
    found = _found(*_times(30, 4), TIMES)["c_index"]
    assert found["value"] is not None and found["low"] is None and "only 4 with the event" in found["reason"]
    assert _found(*_classes(60, 25, 1), BINARY)["ece"]["low"] is None  # as each model's own


def test_a_model_against_itself_differs_by_nothing_and_has_no_interval() -> None:
    ours, _ = _times(60, 40)
    found = _found(ours, ours, TIMES)["c_index"]
    assert (found["value"], found["low"]) == (0.0, None)
