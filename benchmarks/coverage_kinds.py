"""Coverage of the intervals of fixed cohorts, a part of `coverage.py` each: times, the first of two events, three and
more classes, labels, levels and numbers.

Each cohort is drawn anew, with as many events, labels and levels as come; the truth is the mean figure of very large
cohorts. `stated` is the share of cohorts in which a figure has an interval that is no mere hint; `covered` is among
those, `marked` among those that are marked "a hint, no evidence".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy import ndarray
from scipy.special import expit, logit, ndtr, softmax

from coverslip.eval.kinds import KINDS
from coverslip.eval.reduce import Units
from coverslip.eval.truth import Task

GRID = (0.2, 0.4, 0.6)
Row = dict[str, Any]


def survival(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Times; `signal` is the log hazard of one sd of what the model sees, with `noise` on it. Rules were found on the
    constant hazard with censoring between .3 and 1, and are tested on the others too: a rising one, times in months
    with ties, and a falling one with censoring from the start."""
    task = Task("survival", "event", (), ("time", "event"), GRID)
    found_on = (
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
    )
    others = ((60, 0.1, 0.8, 0.0), (60, 0.1, 1.5, 0.0), (150, 0.1, 0.8, 1.0), (60, 1.0, 0.8, 0.5), (150, 1.0, 1.5, 1.0))
    rows = [("constant", *row) for row in found_on]
    rows += [(hazard, *row) for hazard in ("rising", "months", "falling") for row in others]
    for hazard, n, rate, signal, noise in rows:
        power = {"rising": 2.0, "falling": 0.5}.get(hazard, 1.0)

        def cohort(
            num: int,
            hazard: str = hazard,
            power: float = power,
            rate: float = rate,
            signal: float = signal,
            noise: float = noise,
        ) -> tuple[ndarray, ndarray]:
            x = rng.normal(size=num)
            seen = x + noise * rng.normal(size=num)
            dies, leaves = rng.exponential(np.exp(-signal * x) / rate) ** (1 / power), rng.uniform(0.3, 1.0, num)
            if hazard == "falling":
                leaves = rng.exponential(1.0, num)
            if hazard == "months":
                dies, leaves = np.ceil(12 * dies) / 12, np.ceil(12 * leaves) / 12
            risk = signal / (1 + noise**2) * seen
            curves = np.exp(-rate * np.outer(np.exp(risk), np.power(GRID, power)))
            y = np.stack([np.minimum(dies, leaves), dies <= leaves], axis=1)
            return y.astype(float), np.concatenate([risk[:, None], curves], axis=1)

        y = cohort(100_000)[0]
        events, by_end = (float(which.mean() * n) for which in (y[:, 1], y[:, 1] * (y[:, 0] <= GRID[-1])))
        what = {"hazard": hazard, "patients": n, "events": round(events, 1), "by_end": round(by_end, 1)}
        yield from _rows(task, cohort, n, runs, {**what, "signal": signal, "noise": noise}, large=1000)


def competing(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """The first of two events, of which the second is half as frequent, with hazards that do not change (as where the
    rules for one event were found) or rise, and a model that sees the log hazard of each with noise."""
    task = Task("competing_risks", "cause", ("first", "second"), ("time", "cause"), GRID)
    sizes = ((60, 0.1), (150, 0.1), (60, 0.5), (150, 0.5), (300, 0.1))
    for hazard, power in (("constant", 1.0), ("rising", 2.0)):
        for n, rate in sizes:

            def cohort(num: int, power: float = power, rate: float = rate) -> tuple[ndarray, ndarray]:
                x = rng.normal(size=(num, 2))
                rates = rate * np.array([1.0, 0.5])
                dies = rng.exponential(np.exp(-x) / rates) ** (1 / power)
                leaves = rng.uniform(0.3, 1.0, num)
                time = np.minimum(dies.min(axis=1), leaves)
                cause = np.where(dies.min(axis=1) <= leaves, 1 + dies.argmin(axis=1), 0)
                risk = (x + 0.7 * rng.normal(size=(num, 2))) / (1 + 0.7**2)
                stated = rates * np.exp(risk)
                total = stated.sum(axis=1)
                had = 1 - np.exp(-np.outer(total, np.power(GRID, power)))
                parts = [(stated[:, c] / total)[:, None] * had for c in (0, 1)]
                y = np.stack([time, cause], axis=1).astype(float)
                return y, np.concatenate([risk, *parts], axis=1)

            y = cohort(100_000)[0]
            events = {f"events_{c}": round(float((y[:, 1] == c).mean() * n), 1) for c in (1, 2)}
            yield from _rows(task, cohort, n, runs, {"hazard": hazard, "patients": n, **events}, large=1000)


def classes(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Three classes as frequent as each other, or four of which the rarest has 5 %; the model sees each class's own
    number with normal noise or with long tails (Student's t, 3 degrees of freedom), or is three times too sure."""
    for shares in ((1 / 3, 1 / 3, 1 / 3), (0.5, 0.3, 0.15, 0.05)):
        task = Task("classification", "y", tuple("abcd"[: len(shares)]))
        for n in (20, 50, 100, 300):
            for model in ("normal", "long tails", "too sure"):

                def cohort(num: int, model: str = model, shares: tuple[float, ...] = shares) -> tuple[ndarray, ndarray]:
                    k = len(shares)
                    y = rng.choice(k, num, p=shares)
                    noise = rng.normal(size=(num, k)) if model != "long tails" else rng.standard_t(3, (num, k))
                    logits = 1.5 * (noise + 1.5 * np.eye(k)[y]) + np.log(shares)
                    return y, softmax(logits * (3.0 if model == "too sure" else 1.0), axis=1)

                what = {"classes": len(shares), "patients": n, "model": model}
                yield from _rows(task, cohort, n, runs, what, large=20_000)


def labels(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Two labels that a tenth of the patients do not know, with the same chance to be shown: normal scores, or the
    ranks of a questionnaire (seven steps, with ties, wider where the label is shown)."""
    task = Task("multilabel", "a, b", ("a", "b"), ("a", "b"))
    for scores, prevalences in (("normal", (0.2, 0.5)), ("steps", (0.1, 0.35))):
        for n in (10, 25, 50, 100, 250):
            for prevalence in prevalences:

                def cohort(num: int, scores: str = scores, prevalence: float = prevalence) -> tuple[ndarray, ndarray]:
                    y = (rng.random((num, 2)) < prevalence).astype(float)
                    if scores == "normal":
                        score = 1.8 * (rng.normal(size=(num, 2)) + 1.8 * y - 0.9)
                    else:
                        steps = np.clip(np.round(rng.gamma(2.0, 0.6 + 0.9 * y)), 0, 6)
                        score = 0.9 * steps - 2.0
                    return np.where(rng.random((num, 2)) < 0.1, np.nan, y), expit(score + logit(prevalence))

                what = {"scores": scores, "patients": n, "prevalence": prevalence}
                yield from _rows(task, cohort, n, runs, what, large=20_000)


def levels(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Levels of a trait that the model sees with `noise`; `sure`: how many times too sure it is. Four levels of a
    normal trait, or three of which the highest has 7 %, of a trait with long tails and probabilities in tenths."""
    cuts = {"normal": np.array([-1, 0.5, 1.5]), "long tails": np.array([0.3, 2.0])}
    models = {
        "normal": ((0.7, 1.0), (0.7, 3.0), (0.25, 1.0), (2.0, 1.0)),
        "long tails": ((0.5, 1.0), (0.5, 3.0), (1.5, 1.0)),
    }
    for trait_of in cuts:
        task = Task("ordinal", "grade", tuple("0123"[: len(cuts[trait_of]) + 1]))
        for n in (5, 10, 20, 50, 100):
            for noise, sure in models[trait_of]:

                def cohort(
                    num: int, trait_of: str = trait_of, noise: float = noise, sure: float = sure
                ) -> tuple[ndarray, ndarray]:
                    trait = rng.normal(size=num) if trait_of == "normal" else rng.standard_t(3, num)
                    shrink = 1 / (1 + noise**2)
                    middle = shrink * (trait + noise * rng.normal(size=num))
                    below = ndtr((cuts[trait_of] - middle[:, None]) / np.sqrt(1 - shrink) * sure)
                    if trait_of == "long tails":
                        below = np.round(below, 1)
                    p = np.diff(np.concatenate([np.zeros((num, 1)), below, np.ones((num, 1))], axis=1), axis=1)
                    return np.digitize(trait, cuts[trait_of]), p

                what = {"trait": trait_of, "patients": n, "noise": noise, "sure": sure}
                yield from _rows(task, cohort, n, runs, what, large=20_000)


def numbers(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """A number. Rules were found on normal, long-tailed (Student's t, 5 degrees of freedom) and skewed values
    (log-normal, sd .5), and are tested on others too: a tenth of the patients missed by four times as much ("two
    scales"), log-normal values of sd 1 ("very skewed"), counts with ties, and predictions that stop at a ceiling."""
    task = Task("regression", "y", ())
    found_on = ("normal", "strong", "none", "long tails", "skewed")
    others = ("two scales", "very skewed", "counts", "ceiling")
    for names in (found_on, others):
        for n in (5, 10, 20, 50, 100, 250):
            for name in names:

                def cohort(num: int, name: str = name) -> tuple[ndarray, ndarray]:
                    return _number(name, num, rng)

                yield from _rows(task, cohort, n, runs, {"patients": n, "values": name}, large=5000)


def _number(name: str, num: int, rng: np.random.Generator) -> tuple[ndarray, ndarray]:
    chance = rng.normal(size=num)
    if name == "long tails":
        return chance + 0.7 * rng.standard_t(5, num), chance[:, None]
    if name == "two scales":
        return chance + rng.normal(size=num) * np.where(rng.random(num) < 0.1, 2.0, 0.5), chance[:, None]
    if name == "very skewed":
        y = rng.lognormal(0, 1, num)
        return y, np.exp(0.7 * np.log(y) + 0.4 * chance)[:, None]
    if name == "counts":
        y = rng.poisson(np.exp(0.7 * chance + 0.5)).astype(float)
        return y, np.round(np.exp(0.7 * chance + 0.5))[:, None]
    if name == "ceiling":
        y = rng.normal(size=num)
        return y, np.minimum(y + 0.6 * chance, 0.5)[:, None]
    y = rng.lognormal(0, 0.5, num) if name == "skewed" else rng.normal(size=num)
    slope, scatter = {"strong": (0.9, 0.2), "none": (0.0, 0.3)}.get(name, (0.6, 0.5))
    return y, (slope * y + scatter * chance)[:, None]


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
