"""Levels: how far off the decided level is, and whether higher ones are told from lower ones.

The decided level is the median of the stated probabilities: the first at which they reach a half. It is the level with
the least expected distance.

quadratic_kappa    agreement beyond chance, a miss counting with the square of its distance (Cohen 1968,
                   https://doi.org/10.1037/h0026256); 0 is chance, 1 perfect
mae                mean distance in levels
within_one         fraction decided right or one level off
accuracy           fraction decided right
auroc_from_<level> AUROC of P(y >= level), for each level above the lowest; auroc is their mean
brier              mean over those thresholds of (P(y >= level) - truth)²
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from coverslip.eval.auroc_interval import auroc_interval
from coverslip.eval.curves import curves_of
from coverslip.eval.fixed_cohort import share
from coverslip.eval.interval import Interval
from coverslip.eval.jackknife import FISHER, LOGIT, mean_of, moves, on_scale, ranked, spread
from coverslip.eval.kind import Kind, mean_of_known, nothing
from coverslip.eval.levels import at_least, median_level
from coverslip.eval.metrics import auroc_within, plain
from coverslip.eval.proportion import effective_patients
from coverslip.eval.reduce import Units
from coverslip.eval.trust import trust_in_levels
from coverslip.eval.truth import Task

_OF_DECISIONS = ("quadratic_kappa", "mae", "within_one", "accuracy")
# With fewer patients their intervals would cover less than they state.
_LEAST = {"quadratic_kappa": 5, "brier": 50}


class Ordinal(Kind):
    """Ordered levels."""

    headline: ClassVar[str] = "quadratic_kappa"
    chance: ClassVar[float] = 0.0
    baseline: ClassVar[str] = "mean+sd logistic, a threshold each"
    shown: ClassVar[tuple[str, ...]] = ("quadratic_kappa", "mae")

    def names(self, task: Task) -> tuple[str, ...]:
        return (*_OF_DECISIONS, "auroc", "brier", *(f"auroc_from_{level}" for level in task.classes[1:]))

    def figure(self, name: str, units: Units, weights: Float[ndarray, "r n"], task: Task) -> Float[ndarray, r]:
        if not len(units):
            return nothing(weights)
        if name == "quadratic_kappa":
            return _kappa(units.y, median_level(units.p), weights, len(task.classes))
        if name in _OF_DECISIONS:
            off = np.abs(median_level(units.p) - units.y)
            counted = {"mae": off, "within_one": off <= 1, "accuracy": off == 0}[name]
            return weights @ counted.astype(float) / weights.sum(axis=1)
        steps = range(1, len(task.classes))
        if name == "brier":
            misses = [(at_least(units.p, k) - (units.y >= k)) ** 2 for k in steps]
            return weights @ np.mean(misses, axis=0) / weights.sum(axis=1)
        if name == "auroc":
            return mean_of_known([_auroc(units, k, weights) for k in steps], len(weights))
        return _auroc(units, task.classes.index(name.removeprefix("auroc_from_")), weights)

    def groups(self, units: Units, task: Task) -> Int[ndarray, n]:
        return units.y

    def counts(self, units: Units, task: Task) -> dict[str, Any]:
        return {"classes": units.counts(task.classes)}

    def scarcest(self, units: Units, task: Task) -> tuple[int, str]:
        return len(units), "with a level"

    def curves(self, units: Units, task: Task) -> dict[str, Any]:
        counts = np.zeros((len(task.classes), len(task.classes)), dtype=np.int64)
        np.add.at(counts, (units.y, median_level(units.p)), 1)
        return {
            "confusion": {"classes": list(task.classes), "counts": counts.tolist(), "decision": "median level"},
            "discrimination": [
                curves_of(f"{level} or higher", units.y >= k, at_least(units.p, k), [at for _, at in units.strata()])
                for k, level in enumerate(task.classes)
                if k > 0
            ],
        }

    def fixed(self, units: Units, task: Task, resamples: int, seed: int) -> dict[str, Interval] | None:
        """accuracy and within_one by exact limits, since within_one is often near 1; mae as the sum of the shares that
        are so many levels off or more, which is rather too wide; auroc of each threshold as of two classes; kappa and
        brier by the jackknife."""
        if not len(units):
            return None
        levels = range(1, len(task.classes))
        off = np.abs(median_level(units.p) - units.y)
        further = [share(off >= k, units.patient) for k in levels]
        ranks = [self._auroc_interval(units, k, task, resamples, seed) for k in levels]
        each = [moves(partial(_auroc, units, k), units.patient) for k in levels]
        found = {
            "quadratic_kappa": self._by_jackknife("quadratic_kappa", units, task),
            "mae": Interval(
                float(off.mean()),
                sum(part.low or 0.0 for part in further),
                sum(part.high or 0.0 for part in further),
                f"{further[0].how}, of each distance",
            ),
            "within_one": share(off <= 1, units.patient),
            "accuracy": share(off == 0, units.patient),
            "auroc": mean_of(ranks, each, "threshold"),
            "brier": self._by_jackknife("brier", units, task),
        }
        return {**found, **{f"auroc_from_{level}": rank for level, rank in zip(task.classes[1:], ranks)}}

    def trust(
        self, units: Units, task: Task, *, out_of_fold: bool, corrected: Units | None, alpha: float, seed: int
    ) -> dict[str, Any] | None:
        return trust_in_levels(
            units, task.classes, out_of_fold=out_of_fold, corrected=corrected, alpha=alpha, seed=seed
        )

    def _by_jackknife(self, name: str, units: Units, task: Task) -> Interval:
        def figure(weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
            return self.figure(name, units, weights, task)

        value = plain(float(figure(np.ones((1, len(units))))[0]))
        if value is None:
            return Interval(None, None, None, "none", reason="needs two different levels")
        number = effective_patients(units.patient)
        if number < (least := _LEAST[name]):
            return Interval(value, None, None, "none", reason=f"under {least} patients, too few for an interval")
        found = spread(figure, units.patient)
        if name == "brier":
            return on_scale(value, found, LOGIT, "logit")
        return on_scale(value, found, FISHER, "Fisher", least_variance=1 / (number - 3))

    def _auroc_interval(self, units: Units, level: int, task: Task, resamples: int, seed: int) -> Interval:
        positive, score = units.y >= level, at_least(units.p, level)
        if units.stratum is None:
            return auroc_interval(positive, score, units.patient, resamples=resamples, seed=seed)

        def figure(weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
            return _auroc(units, level, weights)

        value = plain(float(figure(np.ones((1, len(units))))[0]))
        if value is None:
            return Interval(None, None, None, "none", reason="AUROC needs patients below and above, in one fold")
        fewer, more = sorted(effective_patients(units.patient[which]) for which in (positive, ~positive))
        return ranked(value, fewer, more, spread(figure, units.patient), "patients on one side")

    def bounds(self, name: str, task: Task) -> tuple[float, float]:
        return {"quadratic_kappa": (-1.0, 1.0), "mae": (0.0, len(task.classes) - 1.0)}.get(name, (0.0, 1.0))

    def doubts(self, units: Units, task: Task, level: str) -> list[str]:
        if len(units) and np.ptp(median_level(units.p)) == 0:
            only = task.classes[int(median_level(units.p)[0])]
            return [f"Every {level} is decided to be of level {only}: read auroc, not kappa."]
        return []


def _auroc(units: Units, level: int, weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
    places = [at for _, at in units.strata()]
    return auroc_within(units.y >= level, at_least(units.p, level), weights, strata=places)


def _kappa(y: Int[ndarray, n], decided: Int[ndarray, n], weights: ndarray, levels: int) -> Float[ndarray, r]:
    """1 - observed over expected mean square distance; expected from both margins."""
    truth, said = np.eye(levels)[y], np.eye(levels)[decided]
    total = weights.sum(axis=1)
    distance = np.subtract.outer(np.arange(levels), np.arange(levels)).astype(float) ** 2
    observed = weights @ (y - decided).astype(float) ** 2 / total
    expected = np.einsum("ra,ab,rb->r", weights @ truth, distance, weights @ said) / total**2
    return 1 - np.divide(observed, expected, out=np.full(len(weights), np.nan), where=expected > 0)
