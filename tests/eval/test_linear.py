"""Linear models as plain numbers: JSON changes no prediction, nor do the units of a column."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coverslip.base.errors import TableError
from coverslip.eval.linear import LinearModel
from coverslip.eval.truth import Task

KINDS = ("classification", "multilabel", "ordinal", "regression", "survival", "competing_risks")


def _study(kind: str, n: int = 80) -> tuple[Task, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (n, 4))
    time = rng.exponential(2, n)
    y = {
        "classification": rng.integers(0, 3, n),
        "multilabel": np.where(rng.random((n, 3)) < 0.2, np.nan, rng.integers(0, 2, (n, 3))),
        "ordinal": rng.integers(0, 3, n),
        "regression": x[:, 0] + rng.normal(size=n),
        "survival": np.stack([time, rng.integers(0, 2, n)], axis=1),
        "competing_risks": np.stack([time, rng.integers(0, 4, n)], axis=1),
    }[kind]
    classes = () if kind in ("regression", "survival") else ("a", "b", "c")
    return Task(kind, "target", classes, grid=(1.0, 2.0)), x, y


@pytest.mark.parametrize("kind", KINDS)
def test_what_went_through_json_predicts_the_same(kind: str) -> None:
    task, x, y = _study(kind)
    model = LinearModel.fit(task, x[:60], y[:60])
    again = LinearModel.from_json(task, json.loads(json.dumps(model.to_json())))
    said = model.predict(x[60:])
    assert said.shape == (20, len(task.reader.predictions(task)))
    assert (again.predict(x[60:]) == said).all()


@pytest.mark.parametrize("kind", KINDS)
def test_units_of_a_column_change_nothing(kind: str) -> None:
    task, x, y = _study(kind)
    unit, zero = np.array([1e3, 1e-3, 1.0, 7.0]), np.array([5.0, -2.0, 100.0, 0.0])
    before = LinearModel.fit(task, x, y).predict(x)
    assert LinearModel.fit(task, x * unit + zero, y).predict(x * unit + zero) == pytest.approx(before, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_never_varies_and_one_outcome_alone_are_no_error(kind: str) -> None:
    task, x, y = _study(kind, 6)
    x[:, 1] = 4.0
    y[:] = y[0]
    said = LinearModel.fit(task, x, y).predict(x + np.array([0.0, 9.0, 0.0, 0.0]))
    assert np.isfinite(said).all()


def test_another_format_is_refused() -> None:
    task, _, _ = _study("regression")
    with pytest.raises(TableError, match="linear"):
        LinearModel.from_json(task, {"format": "coverslip.linear/9", "heads": []})
