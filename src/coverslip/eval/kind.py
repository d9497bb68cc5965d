"""What a kind of task is judged by: its figures, what they are drawn within, and what its pictures need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from coverslip.eval.interval import Interval
from coverslip.eval.metrics import plain
from coverslip.eval.reduce import Units
from coverslip.eval.truth import Task


class Kind(ABC):
    """The measures of one kind of task. Stateless; `coverslip.eval.kinds.KINDS` has one a kind."""

    headline: ClassVar[str]
    """The figure that headline, comparison with the baseline and warnings go by."""
    chance: ClassVar[float]
    """The headline's value for a model that knows nothing."""
    baseline: ClassVar[str]
    """The name of the model on mean and spread of the features that stands beside every run."""
    shown: ClassVar[tuple[str, ...]]
    """The figures that a terminal shows."""
    ranked: ClassVar[tuple[str, ...]] = ()
    """Of `shown` those that compare units with each other, so that only units of one fold count together."""
    without_interval: ClassVar[Mapping[str, str]] = {}
    """Figures that are given without an interval, whatever they are of, and why."""

    @abstractmethod
    def names(self, task: Task) -> tuple[str, ...]:
        """Every figure, the headline first."""

    @abstractmethod
    def figure(self, name: str, units: Units, weights: Float[ndarray, "r n"], task: Task) -> Float[ndarray, r]:
        """One figure for each row of weights (how often each unit was drawn); NaN where it cannot be computed."""

    @abstractmethod
    def groups(self, units: Units, task: Task) -> Int[ndarray, n]:
        """What units are drawn within when patients are resampled: the class, event or not."""

    @abstractmethod
    def counts(self, units: Units, task: Task) -> dict[str, Any]:
        """What metrics.json says of the units beside how many there are, by one key: {"classes": {...}}."""

    @abstractmethod
    def scarcest(self, units: Units, task: Task) -> tuple[int, str]:
        """How many units the scarcest thing has that figures need, and what it is: (3, "of class b")."""

    @abstractmethod
    def curves(self, units: Units, task: Task) -> dict[str, Any]:
        """What the report draws, as plain values."""

    def bounds(self, name: str, task: Task) -> tuple[float, float]:
        """Lowest and highest value of a figure."""
        return 0.0, 1.0

    def doubts(self, units: Units, task: Task, level: str) -> list[str]:
        """What a reader should know of these predictions, beyond what holds for every kind."""
        return []

    def fold_curves(self, units: Units, task: Task) -> dict[str, Any]:
        """What the report draws of one fold."""
        return {}

    def fixed(self, units: Units, task: Task, resamples: int, seed: int) -> dict[str, Interval] | None:
        """Figures of a fixed cohort with intervals that hold what they state; None where resampling has to do. Units of
        several folds have a `stratum`: what ranks compares those of one fold."""
        return None

    def trust(
        self, units: Units, task: Task, *, out_of_fold: bool, corrected: Units | None, alpha: float, seed: int
    ) -> dict[str, Any] | None:
        """Whether predictions may be acted on: calibration, decision curves, sets. None where there is nothing of it.
        `corrected` are the same units with recalibrated probabilities; sets may miss a share `alpha`."""
        return None

    def figures(self, units: Units, task: Task) -> dict[str, float | None]:
        """Every figure by name, None where it cannot be computed."""
        ones = np.ones((1, len(units)))
        return {name: plain(float(self.figure(name, units, ones, task)[0])) for name in self.names(task)}


def nothing(weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
    """NaN for each row of weights."""
    return np.full(len(weights), np.nan)


def mean_of_known(values: list[Float[ndarray, r]], num: int) -> Float[ndarray, r]:
    """The mean over labels, causes or thresholds of those that can be computed, for each of `num` rows."""
    if not values:
        return np.full(num, np.nan)
    table = np.stack(values)
    known = ~np.isnan(table)
    total = np.where(known, table, 0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(num, np.nan), where=known.any(axis=0))
