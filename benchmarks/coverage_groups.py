"""Coverage of the interval of sites and subgroups: a part of `coverage.py`.

The patients of a group are tested in one fold or in five, whose finished models have scales of their own; pairs are
made within folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy import ndarray
from scipy.special import ndtri, softmax

from coverslip.eval.fold_rows import FoldRows, concordance_interval, fold_rows
from coverslip.eval.truth import Task

Row = dict[str, Any]
# Truth and scores, one row a patient, for so many patients.
Cohort = Callable[[int], tuple[ndarray, ndarray]]
BINARY = Task("classification", "y", ("a", "b"))
THREE = Task("classification", "y", ("a", "b", "c"))
TIMES = Task("survival", "event", (), ("time", "event"), (0.5,))
LEVELS = Task("ordinal", "grade", tuple("0123"))
NUMBERS = Task("regression", "y", ())


def groups(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """The figure of a site or subgroup: AUROC of two classes (the rarer scatters half, as much or twice as far), of
    three, and pairs in the right order of times, levels and numbers."""
    for m, n in ((10, 40), (20, 80), (50, 200)):
        for scatter in (0.5, 1.0, 2.0):
            for auroc in (0.75, 0.9):
                shift = float(ndtri(auroc)) * np.sqrt(1 + scatter**2)
                y = (np.arange(m + n) < m).astype(np.int64)

                def classes(num: int, y: ndarray = y, shift: float = shift, scatter: float = scatter) -> Any:
                    score = np.where(y == 1, rng.normal(shift, scatter, len(y)), rng.normal(size=len(y)))
                    return y, np.stack([-score, score], axis=1)

                yield from _rows("two classes", f"{m} : {n}", BINARY, classes, m + n, runs, rng, truth=auroc)
    others: tuple[tuple[str, Task, Cohort], ...] = (
        ("three classes", THREE, lambda num: _three(num, rng)),
        ("times", TIMES, lambda num: _times(num, rng)),
        ("levels", LEVELS, lambda num: _levels(num, rng)),
        ("numbers", NUMBERS, lambda num: _numbers(num, rng)),
    )
    for name, task, cohort in others:
        many = [_grouped(*cohort(1500), 1, rng, task) for _ in range(60)]
        truth = float(np.mean([concordance_interval(rows).value for rows in many]))
        for num in (50, 150):
            yield from _rows(name, str(num), task, cohort, num, runs, rng, truth=truth)


def _rows(
    kind: str, patients: str, task: Task, cohort: Cohort, num: int, runs: int, rng: np.random.Generator, *, truth: float
) -> Iterator[Row]:
    for folds in (1, 5):
        held = []
        for _ in range(runs):
            rows = _grouped(*cohort(num), folds, rng, task)
            if rows.too_few() is None:
                found = concordance_interval(rows)
                held.append(found.low is not None and found.low <= truth <= (found.high or 0.0))
        yield {
            "kind": kind,
            "patients": patients,
            "folds": folds,
            "truth": truth,
            "stated": len(held) / runs,
            "covered": float(np.mean(held)) if held else None,
            "runs": runs,
        }


def _grouped(y: ndarray, p: ndarray, folds: int, rng: np.random.Generator, task: Task) -> FoldRows:
    """Each fold moves and stretches what its model says, as another model would."""
    ids = np.arange(len(y)).astype(str)
    fold = rng.permutation(len(y)) % folds
    stretch, moved = rng.uniform(0.5, 2.0, folds)[fold], rng.normal(size=folds)[fold]
    return fold_rows(ids, ids, fold, y, p * stretch[:, None] + moved[:, None] * (task.kind != "ordinal"), task)


def _three(num: int, rng: np.random.Generator) -> tuple[ndarray, ndarray]:
    y = rng.choice(3, num, p=(0.5, 0.3, 0.2))
    return y, softmax(1.5 * (rng.normal(size=(num, 3)) + 1.5 * np.eye(3)[y]), axis=1)


def _times(num: int, rng: np.random.Generator) -> tuple[ndarray, ndarray]:
    x = rng.normal(size=num)
    dies, leaves = rng.exponential(np.exp(-1.2 * x) / 0.8), rng.uniform(0.3, 1.0, num)
    y = np.stack([np.minimum(dies, leaves), dies <= leaves], axis=1).astype(float)
    return y, (x + rng.normal(size=num))[:, None]


def _levels(num: int, rng: np.random.Generator) -> tuple[ndarray, ndarray]:
    trait = rng.normal(size=num)
    middle = trait + 0.7 * rng.normal(size=num)
    return np.digitize(trait, [-1, 0.5, 1.5]), softmax(-((middle[:, None] - np.array([-1.5, 0, 1, 2])) ** 2), axis=1)


def _numbers(num: int, rng: np.random.Generator) -> tuple[ndarray, ndarray]:
    y = rng.lognormal(0, 0.5, num)
    return y, (0.6 * y + 0.4 * rng.normal(size=num))[:, None]
