"""Error rate of paired differences on fixed cohorts: a part of `coverage.py`.

Two models that are equally good, since each sees the truth through noise of its own, on the same patients; half of the
noise is shared, as what both find hard is. A difference whose 95 % interval leaves out 0 is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy import ndarray
from scipy.special import expit, logit, ndtr

from coverslip.eval.kinds import KINDS
from coverslip.eval.paired import paired_differences
from coverslip.eval.reduce import Units
from coverslip.eval.truth import Task

GRID = (0.2, 0.4, 0.6)
Row = dict[str, Any]
# Truth and the predictions of both models for so many patients.
Cohort = Callable[[int, np.random.Generator], tuple[ndarray, ndarray, ndarray]]


def paired(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Two equally good models on one fixed cohort: how often a difference is called one at .05, of the cohorts in which
    it is stated."""
    for task, sizes, cohort in _cases():
        kind = KINDS[task.kind]
        for n in sizes:
            called: dict[str, list[bool]] = {name: [] for name in kind.names(task)}
            for run in range(runs):
                y, ours, theirs = cohort(n, rng)
                both = [_units(y, p) for p in (ours, theirs)]
                figures = [kind.fixed(units, task, 200, run) for units in both]
                assert figures[0] is not None and figures[1] is not None
                found = paired_differences(*both, task, figures=(figures[0], figures[1]))
                for name, gap in found.items():
                    if gap["low"] is not None and not gap.get("reason"):
                        called[name].append(gap["low"] > 0 or gap["high"] < 0)
            for name, calls in called.items():
                yield {
                    "kind": task.kind,
                    "patients": n,
                    "figure": name,
                    "stated": len(calls) / runs,
                    "called": float(np.mean(calls)) if calls else None,
                    "runs": runs,
                }


def _cases() -> list[tuple[Task, tuple[int, ...], Cohort]]:
    return [
        (Task("survival", "event", (), ("time", "event"), GRID), (60, 100, 200), _times),
        (Task("classification", "y", ("0", "1")), (30, 60, 200), _classes),
        (Task("multilabel", "a, b", ("a", "b"), ("a", "b")), (60, 200), _labels),
        (Task("ordinal", "grade", tuple("0123")), (30, 100), _levels),
        (Task("regression", "y", ()), (30, 100), _numbers),
    ]


def _two(n: int, rng: np.random.Generator, shape: tuple[int, ...] = ()) -> list[ndarray]:
    """Noise of sd 1 of both models, half of its variance shared."""
    shared, *own = rng.normal(size=(3, n, *shape))
    return [(shared + one) / np.sqrt(2) for one in own]


def _times(n: int, rng: np.random.Generator) -> tuple[ndarray, ndarray, ndarray]:
    x = rng.normal(size=n)
    dies, leaves = rng.exponential(np.exp(-1.2 * x) / 0.1), rng.uniform(0.3, 1.0, n)
    y = np.stack([np.minimum(dies, leaves), dies < leaves], axis=1).astype(float)
    risks = [0.6 * (x + noise) for noise in _two(n, rng)]
    first, second = (
        np.concatenate([risk[:, None], np.exp(-0.1 * np.outer(np.exp(risk), GRID))], axis=1) for risk in risks
    )
    return y, first, second


def _classes(n: int, rng: np.random.Generator) -> tuple[ndarray, ndarray, ndarray]:
    y = (rng.random(n) < 0.25).astype(np.int64)
    first, second = (expit(1.5 * (noise + 1.5 * y - 0.75) + logit(0.25)) for noise in _two(n, rng))
    return y, np.stack([1 - first, first], axis=1), np.stack([1 - second, second], axis=1)


def _labels(n: int, rng: np.random.Generator) -> tuple[ndarray, ndarray, ndarray]:
    y = (rng.random((n, 2)) < 0.25).astype(float)
    first, second = (expit(1.5 * (noise + 1.5 * y - 0.75) + logit(0.25)) for noise in _two(n, rng, (2,)))
    return np.where(rng.random((n, 2)) < 0.1, np.nan, y), first, second


def _levels(n: int, rng: np.random.Generator) -> tuple[ndarray, ndarray, ndarray]:
    cuts, trait = np.array([-1, 0.5, 1.5]), rng.normal(size=n)
    stated = []
    for noise in _two(n, rng):
        below = ndtr((cuts - ((trait + noise) / 2)[:, None]) * np.sqrt(2))
        stated.append(np.diff(np.concatenate([np.zeros((n, 1)), below, np.ones((n, 1))], axis=1), axis=1))
    return np.digitize(trait, cuts), stated[0], stated[1]


def _numbers(n: int, rng: np.random.Generator) -> tuple[ndarray, ndarray, ndarray]:
    y = rng.lognormal(0, 0.5, n)
    first, second = (0.6 * y + 0.3 * noise for noise in _two(n, rng))
    return y, first[:, None], second[:, None]


def _units(y: ndarray, p: ndarray) -> Units:
    ids = np.arange(len(y)).astype(str)
    return Units(ids, ids, y, p)
