"""Numbers: how near, and whether in the right order.

r2        1 - sum (y - p)² / sum (y - mean y)²: 0 for the mean of the tested units, below for worse; 1 at best
mae       mean of |y - p|, in the units of the target
rmse      root of the mean of (y - p)²
pearson   linear correlation of y and p
spearman  that of their ranks, ties sharing theirs

Correlations of several folds are those within folds: models of different folds have different scales, so ranks are
counted in the fold, as shares of its size, and both sides are centred on the fold's means. Of one fold that is the
usual correlation. The other figures hold p for what it says it is, a number in the units of the target, and count all
units together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from coverslip.eval.interval import Interval
from coverslip.eval.jackknife import EXPLAINED, FISHER, LOG, on_scale, spread
from coverslip.eval.kind import Kind
from coverslip.eval.metrics import plain
from coverslip.eval.proportion import effective_patients
from coverslip.eval.reduce import Units
from coverslip.eval.trust import trust_in_numbers
from coverslip.eval.truth import Task

# Of the square of the largest value: a variance below it is of rounding alone, and there is nothing to explain.
_NO_VARIANCE = 1e-24
# With fewer patients intervals would cover less than they state.
_LEAST = {"r2": 30, "mae": 20, "spearman": 5, "pearson": 5}
# Fourth moments of skewed values are not seen in few patients: by itself the jackknife covers down to 89 % there.
_WIDENED = 1.3
# Few patients show too little of the largest misses: their mean is too low then, and its spread too. As far up as down
# the interval covers down to 88 % where values are skewed.
_UPWARDS = 1.4
_CORRELATIONS = ("spearman", "pearson")
_SAYS_NOTHING = -10.0
_NO_RMSE = "hangs on the few largest misses, and would cover 81 to 92 % where tails are long; mae has an interval"


class Regression(Kind):
    """One number."""

    headline: ClassVar[str] = "r2"
    chance: ClassVar[float] = 0.0
    baseline: ClassVar[str] = "mean+sd ridge"
    shown: ClassVar[tuple[str, ...]] = ("r2", "mae", "spearman")
    ranked: ClassVar[tuple[str, ...]] = ("spearman",)

    def names(self, task: Task) -> tuple[str, ...]:
        return ("r2", "mae", "rmse", "spearman", "pearson")

    def figure(self, name: str, units: Units, weights: Float[ndarray, "r n"], task: Task) -> Float[ndarray, r]:
        if not len(units):
            return np.full(len(weights), np.nan)
        y, p = units.y, units.p[:, 0]
        total = weights.sum(axis=1)
        if name == "mae":
            return weights @ np.abs(y - p) / total
        if name == "rmse":
            return np.sqrt(weights @ (y - p) ** 2 / total)
        if name == "r2":
            _, spread = _moments(np.broadcast_to(y, weights.shape), weights)
            # As the sum of squares over the spread, both a mean of the draw.
            return _ratio(spread - weights @ (y - p) ** 2 / total, spread, _spread_of(y))
        return _within(y, p, weights, [at for _, at in units.strata()], ranked=name == "spearman")

    def groups(self, units: Units, task: Task) -> Int[ndarray, n]:
        return np.zeros(len(units), dtype=np.int64)

    def counts(self, units: Units, task: Task) -> dict[str, Any]:
        y = units.y
        quartiles = np.quantile(y, [0, 0.25, 0.5, 0.75, 1]).tolist() if len(y) else [None] * 5
        return {"values": dict(zip(("lowest", "lower_quartile", "median", "upper_quartile", "highest"), quartiles))}

    def scarcest(self, units: Units, task: Task) -> tuple[int, str]:
        return len(units), "with a value"

    def curves(self, units: Units, task: Task) -> dict[str, Any]:
        return {"scatter": {"true": units.y.tolist(), "predicted": units.p[:, 0].tolist()}}

    def fixed(self, units: Units, task: Task, resamples: int, seed: int) -> dict[str, Interval] | None:
        """mae by t on the logarithm, upwards 1.4 times as far; r2 on that of 1 - r2; correlations on Fisher's scale,
        with at least the variance that they have for normal numbers: 1 / (n - 3), for ranks (1 + r² / 2) / (n - 3)
        (Bonett and Wright 2000, https://doi.org/10.1007/BF02294183). r2 and pearson are widened by three tenths; rmse
        has none."""
        return {name: self._interval(name, units, task) for name in self.names(task)}

    def trust(
        self, units: Units, task: Task, *, out_of_fold: bool, corrected: Units | None, alpha: float, seed: int
    ) -> dict[str, Any] | None:
        return trust_in_numbers(units, out_of_fold=out_of_fold, alpha=alpha)

    def _interval(self, name: str, units: Units, task: Task) -> Interval:
        def figure(weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
            return self.figure(name, units, weights, task)

        value = plain(float(figure(np.ones((1, len(units))))[0])) if len(units) else None
        if value is None:
            return Interval(None, None, None, "none", reason="needs two different values")
        if name == "rmse":
            return Interval(value, None, None, "none", reason=_NO_RMSE)
        # Each further fold has means of its own, which cost the correlation a patient.
        further = len(units.strata()) - 1 if name in _CORRELATIONS else 0
        number = effective_patients(units.patient) - further
        if number < (least := _LEAST[name]):
            beyond = f" beyond one for each further of {further + 1} folds" if further else ""
            return Interval(
                value, None, None, "none", reason=f"under {least} patients{beyond}, too few for an interval"
            )
        found = spread(figure, units.patient)
        if name == "mae":
            figured = on_scale(value, found, LOG, "log")
            if figured.high is None:
                return figured
            how = f"{figured.how}, upwards {_UPWARDS:g} times as far"
            return replace(figured, high=value * (figured.high / value) ** _UPWARDS, how=how)
        if found is not None and name != "spearman":
            found = replace(found, variance=found.variance * _WIDENED**2)
        if name == "r2":
            figured = on_scale(value, found, EXPLAINED, "log (1 - r2)")
            if figured.low is not None and figured.low < _SAYS_NOTHING:
                return replace(figured, low=None, high=None, reason="a few patients carry all squares: no interval")
            return figured
        normal = (1.0 if name == "pearson" else 1 + value**2 / 2) / (number - 3)
        return on_scale(value, found, FISHER, "Fisher", least_variance=normal)

    def bounds(self, name: str, task: Task) -> tuple[float, float]:
        return {"r2": (-np.inf, 1.0), "mae": (0.0, np.inf), "rmse": (0.0, np.inf)}.get(name, (-1.0, 1.0))


def _moments(x: Float[ndarray, "r n"], weights: Float[ndarray, "r n"]) -> tuple[Float[ndarray, r], Float[ndarray, r]]:
    """Mean and variance (over the number drawn) of each row."""
    total = weights.sum(axis=1)
    mean = (weights * x).sum(axis=1) / total
    return mean, (weights * (x - mean[:, None]) ** 2).sum(axis=1) / total


def _within(
    x: Float[ndarray, n],
    y: Float[ndarray, n],
    weights: Float[ndarray, "r n"],
    strata: Sequence[Int[ndarray, m]],
    *,
    ranked: bool,
) -> Float[ndarray, r]:
    """The correlation of x and y, or of their ranks, within strata, for each row of weights: products and squares of
    deviations from the stratum's means, added over strata. NaN where either does not vary within any."""
    product, square_x, square_y = np.zeros((3, len(weights)))
    for at in strata:
        drawn = weights[:, at]
        total = drawn.sum(axis=1)
        one, other = (_shares(v[at], drawn) if ranked else np.broadcast_to(v[at], drawn.shape) for v in (x, y))
        one, other = (v - _ratio((drawn * v).sum(axis=1), total, 0.0)[:, None] for v in (one, other))
        here = total > 0
        product[here] += (drawn * one * other).sum(axis=1)[here]
        square_x[here] += (drawn * one**2).sum(axis=1)[here]
        square_y[here] += (drawn * other**2).sum(axis=1)[here]
    total = weights.sum(axis=1)
    least_x, least_y = (_NO_VARIANCE if ranked else _spread_of(v) for v in (x, y))
    flat = (square_x <= least_x * total) | (square_y <= least_y * total)
    return np.where(flat, np.nan, _ratio(product, np.sqrt(square_x * square_y), 0.0))


def _shares(x: Float[ndarray, n], weights: Float[ndarray, "r n"]) -> Float[ndarray, "r n"]:
    """The rank of each unit among those drawn over how many were drawn, a unit drawn twice counting twice; ties share
    the mean of theirs."""
    _, place = np.unique(x, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    drawn = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = (np.cumsum(drawn, axis=1) - drawn + (drawn + 1) / 2)[:, place]
    return ranks / np.maximum(weights.sum(axis=1), 1)[:, None]


def _ratio(part: Float[ndarray, r], whole: Float[ndarray, r], least: float) -> Float[ndarray, r]:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > least)


def _spread_of(x: Float[ndarray, ...]) -> float:
    """The variance that rounding alone can make of values of this size."""
    return _NO_VARIANCE * float(np.abs(x).max(initial=0.0)) ** 2
