"""How well one thing is told by another, out of fold: what the audits of shortcuts answer with, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from coverslip.base.random import stream
from coverslip.eval.interval import Interval

FOLDS = 5
# A site with fewer patients cannot be learnt and tested.
LEAST_PATIENTS = 10
# From here on, the site says so much of the label that a model may live on it.
RED_V, RED_AUROC, RED_P = 0.3, 0.65, 0.01
# Of numbers: the share of the variance, as the square of V.
RED_R2 = RED_V**2


@dataclass(frozen=True)
class Probe:
    """How well one thing is told by another, out of fold. `chance` is what guessing gives; `red` says that it is much.

    `value` None has its `reason`.
    """

    what: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    chance: float
    interval: str
    counts: dict[str, int]
    reason: str | None = None
    red: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def probe(
    what: str, metric: str, figure: Interval, chance: float, counts: dict[str, int], *, red: bool = False
) -> Probe:
    """The figure as a probe's."""
    how = figure.how.replace("these fitted models, test patients resampled", "out of fold, patients resampled")
    how = how.replace("these fitted models, ", "out of fold, ")
    return Probe(what, metric, figure.value, figure.low, figure.high, chance, how, counts, figure.reason or None, red)


def nothing(what: str, metric: str, chance: float, counts: dict[str, int], reason: str) -> Probe:
    """A question that could not be asked."""
    return Probe(what, metric, None, None, None, chance, "", counts, reason)


def counted(names: Sequence[str | None]) -> dict[str, int]:
    """How often each name stands there, sorted by name."""
    known = [name for name in names if name is not None]
    return {name: known.count(name) for name in sorted(set(known))}


def dealt(y: Int[ndarray, n], folds: int, seed: int) -> Int[ndarray, n]:
    """The fold of each row: every class spread evenly, in an order of chance."""
    chance = stream(seed, "audit", "folds")
    fold = np.zeros(len(y), dtype=np.int64)
    start = 0
    for k in np.unique(y):
        at = chance.permutation(np.flatnonzero(y == k))
        fold[at] = (start + np.arange(len(at))) % folds
        start += len(at)
    return fold
