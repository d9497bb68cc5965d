"""Coverage of the intervals of fixed cohorts for times, labels, levels and numbers: parts of `coverage.py`.

Each cohort is drawn anew, with as many events, labels and levels as come; the truth is the mean figure of very large
cohorts. `stated` is the share of cohorts in which a figure has an interval that is no mere hint; `covered` is among
those, `marked` among those that are marked "a hint, no evidence".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy import ndarray
from scipy.special import expit, logit, ndtr

from coverslip.eval.kinds import KINDS
from coverslip.eval.reduce import Units
from coverslip.eval.truth import Task

GRID = (0.2, 0.4, 0.6)
Row = dict[str, Any]


def survival(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Times: exponential, censored between .3 and 1; `signal` is the log hazard of one sd of what the model sees, with
    `noise` on it."""
    task = Task("survival", "event", (), ("time", "event"), GRID)
    for n, rate, signal, noise in (
        (30, 0.1, 0.8, 0.0),
        (60, 0.1, 0.8, 0.0),
        (60, 0.1, 1.5, 0.0),
        (100, 0.1, 1.5, 1.0),
        (150, 0.1, 0.8, 0.0),
        (300, 0.1, 1.5, 0.0),
        (60, 0.5, 0.8, 0.0),
        (150, 0.5, 0.8, 1.0),
        (30, 3.0, 1.5, 0.5),
        (100, 3.0, 0.8, 1.0),
    ):

        def cohort(
            num: int, rate: float = rate, signal: float = signal, noise: float = noise
        ) -> tuple[ndarray, ndarray]:
            x = rng.normal(size=num)
            seen = x + noise * rng.normal(size=num)
            dies, leaves = rng.exponential(np.exp(-signal * x) / rate), rng.uniform(0.3, 1.0, num)
            risk = signal / (1 + noise**2) * seen
            curves = np.exp(-rate * np.outer(np.exp(risk), GRID))
            y = np.stack([np.minimum(dies, leaves), dies < leaves], axis=1)
            return y.astype(float), np.concatenate([risk[:, None], curves], axis=1)

        events = cohort(100_000)[0][:, 1].mean() * n
        what = {"patients": n, "events": round(float(events), 1), "signal": signal, "noise": noise}
        yield from _rows(task, cohort, n, runs, what, large=1000)


def labels(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Two labels that a tenth of the patients do not know, with the same chance to be shown."""
    task = Task("multilabel", "a, b", ("a", "b"), ("a", "b"))
    for n in (10, 25, 50, 100, 250):
        for prevalence in (0.2, 0.5):

            def cohort(num: int, prevalence: float = prevalence) -> tuple[ndarray, ndarray]:
                y = (rng.random((num, 2)) < prevalence).astype(float)
                score = 1.8 * (rng.normal(size=(num, 2)) + 1.8 * y - 0.9) + logit(prevalence)
                return np.where(rng.random((num, 2)) < 0.1, np.nan, y), expit(score)

            yield from _rows(task, cohort, n, runs, {"patients": n, "prevalence": prevalence}, large=20_000)


def levels(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Four levels of a normal trait that the model sees with `noise`; `sure`: how many times too sure it is."""
    cuts = np.array([-1, 0.5, 1.5])
    task = Task("ordinal", "grade", tuple("0123"))
    for n in (5, 10, 20, 50, 100):
        for noise, sure in ((0.7, 1.0), (0.7, 3.0), (0.25, 1.0), (2.0, 1.0)):

            def cohort(num: int, noise: float = noise, sure: float = sure) -> tuple[ndarray, ndarray]:
                trait = rng.normal(size=num)
                shrink = 1 / (1 + noise**2)
                middle = shrink * (trait + noise * rng.normal(size=num))
                below = ndtr((cuts - middle[:, None]) / np.sqrt(1 - shrink) * sure)
                p = np.diff(np.concatenate([np.zeros((num, 1)), below, np.ones((num, 1))], axis=1), axis=1)
                return np.digitize(trait, cuts), p

            yield from _rows(task, cohort, n, runs, {"patients": n, "noise": noise, "sure": sure}, large=20_000)


def numbers(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """A number, with normal, long-tailed (Student's t, 5 degrees of freedom) or skewed values (log-normal, sd .5)."""
    task = Task("regression", "y", ())
    for n in (5, 10, 20, 50, 100, 250):
        for name in ("normal", "strong", "none", "long tails", "skewed"):

            def cohort(num: int, name: str = name) -> tuple[ndarray, ndarray]:
                chance = rng.normal(size=num)
                if name == "long tails":
                    return chance + 0.7 * rng.standard_t(5, num), chance[:, None]
                y = rng.lognormal(0, 0.5, num) if name == "skewed" else rng.normal(size=num)
                slope, scatter = {"strong": (0.9, 0.2), "none": (0.0, 0.3)}.get(name, (0.6, 0.5))
                return y, (slope * y + scatter * chance)[:, None]

            yield from _rows(task, cohort, n, runs, {"patients": n, "values": name}, large=1000)


def _rows(
    task: Task,
    cohort: Callable[[int], tuple[ndarray, ndarray]],
    n: int,
    runs: int,
    what: Row,
    *,
    large: int,
    repeats: int = 40,
) -> Iterator[Row]:
    """One row a figure: how often its interval holds the truth."""
    kind = KINDS[task.kind]
    known = [kind.figures(_units(*cohort(large)), task) for _ in range(repeats)]
    truth = {name: float(np.mean([one[name] for one in known])) for name in kind.names(task)}
    held: dict[str, list[bool]] = {name: [] for name in truth}
    hinted: dict[str, list[bool]] = {name: [] for name in truth}
    width: dict[str, float] = dict.fromkeys(truth, 0.0)
    for run in range(runs):
        figures = kind.fixed(_units(*cohort(n)), task, 1000, run)
        for name, figure in (figures or {}).items():
            if figure.low is None or figure.high is None:
                continue
            inside = figure.low <= truth[name] <= figure.high
            (hinted if figure.reason else held)[name].append(inside)
            width[name] += 0 if figure.reason else figure.high - figure.low
    for name in truth:
        stated = len(held[name])
        yield {
            **what,
            "figure": name,
            "truth": round(truth[name], 4),
            "stated": stated / runs,
            "covered": float(np.mean(held[name])) if held[name] else None,
            "marked": float(np.mean(hinted[name])) if hinted[name] else None,
            "width": width[name] / stated if stated else None,
            "runs": runs,
        }


def _units(y: ndarray, p: ndarray) -> Units:
    ids = np.arange(len(y)).astype(str)
    return Units(ids, ids, y, p)
