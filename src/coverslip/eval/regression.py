"""Numbers: how near, and whether in the right order.

r2        1 - sum (y - p)² / sum (y - mean y)²: 0 for the mean of the tested units, below for worse; 1 at best
mae       mean of |y - p|, in the units of the target
rmse      root of the mean of (y - p)²
pearson   linear correlation of y and p
spearman  that of their ranks, ties sharing theirs
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from coverslip.eval.kind import Kind
from coverslip.eval.reduce import Units
from coverslip.eval.truth import Task

# Of the square of the largest value: a variance below it is of rounding alone, and there is nothing to explain.
_NO_VARIANCE = 1e-24


class Regression(Kind):
    """One number."""

    headline: ClassVar[str] = "r2"
    chance: ClassVar[float] = 0.0
    baseline: ClassVar[str] = "mean+sd ridge"
    shown: ClassVar[tuple[str, ...]] = ("r2", "mae", "spearman")

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
        if name == "pearson":
            return _correlation(np.broadcast_to(y, weights.shape), np.broadcast_to(p, weights.shape), weights)
        return _correlation(_ranks(y, weights), _ranks(p, weights), weights)

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

    def bounds(self, name: str, task: Task) -> tuple[float, float]:
        return {"r2": (-np.inf, 1.0), "mae": (0.0, np.inf), "rmse": (0.0, np.inf)}.get(name, (-1.0, 1.0))


def _moments(x: Float[ndarray, "r n"], weights: Float[ndarray, "r n"]) -> tuple[Float[ndarray, r], Float[ndarray, r]]:
    """Mean and variance (over the number drawn) of each row."""
    total = weights.sum(axis=1)
    mean = (weights * x).sum(axis=1) / total
    return mean, (weights * (x - mean[:, None]) ** 2).sum(axis=1) / total


def _correlation(
    x: Float[ndarray, "r n"], y: Float[ndarray, "r n"], weights: Float[ndarray, "r n"]
) -> Float[ndarray, r]:
    (mean_x, var_x), (mean_y, var_y) = _moments(x, weights), _moments(y, weights)
    product = (weights * (x - mean_x[:, None]) * (y - mean_y[:, None])).sum(axis=1) / weights.sum(axis=1)
    flat = (var_x <= _spread_of(x)) | (var_y <= _spread_of(y))
    return np.where(flat, np.nan, _ratio(product, np.sqrt(var_x * var_y), 0.0))


def _ranks(x: Float[ndarray, n], weights: Float[ndarray, "r n"]) -> Float[ndarray, "r n"]:
    """The rank of each unit among those drawn, a unit drawn twice counting twice; ties share the mean of theirs."""
    _, place = np.unique(x, return_inverse=True)
    member = np.zeros((len(x), int(place.max()) + 1))
    member[np.arange(len(x)), place] = 1
    drawn = weights @ member
    return (np.cumsum(drawn, axis=1) - drawn + (drawn + 1) / 2)[:, place]


def _ratio(part: Float[ndarray, r], whole: Float[ndarray, r], least: float) -> Float[ndarray, r]:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > least)


def _spread_of(x: Float[ndarray, ...]) -> float:
    """The variance that rounding alone can make of values of this size."""
    return _NO_VARIANCE * float(np.abs(x).max(initial=0.0)) ** 2
