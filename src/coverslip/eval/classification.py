"""Classes: the measures of `coverslip.eval.metrics`, and ROC, precision-recall and confusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from coverslip.eval.curves import confusion, discrimination
from coverslip.eval.fixed_cohort import ECE_REASON, fixed_cohort
from coverslip.eval.interval import Interval
from coverslip.eval.kind import Kind
from coverslip.eval.metrics import METRICS, bounds, decisions, weighted
from coverslip.eval.reduce import Units
from coverslip.eval.trust import trust
from coverslip.eval.truth import Task

# Ranking across folds loses this much against ranking within: their models do not share a scale of probabilities.
_SCALE_GAP = 0.05


class Classification(Kind):
    """One of two or more classes."""

    headline: ClassVar[str] = "auroc"
    chance: ClassVar[float] = 0.5
    baseline: ClassVar[str] = "mean+sd logistic"
    shown: ClassVar[tuple[str, ...]] = ("auroc", "balanced_accuracy")
    ranked: ClassVar[tuple[str, ...]] = ("auroc",)
    without_interval: ClassVar[Mapping[str, str]] = {"ece": ECE_REASON}

    def names(self, task: Task) -> tuple[str, ...]:
        return tuple(METRICS)

    def figure(self, name: str, units: Units, weights: Float[ndarray, "r n"], task: Task) -> Float[ndarray, r]:
        strata = None if units.stratum is None else [places for _, places in units.strata()]
        return weighted(name, units.y, units.p, weights, strata=strata)

    def groups(self, units: Units, task: Task) -> Int[ndarray, n]:
        return units.y

    def counts(self, units: Units, task: Task) -> dict[str, Any]:
        return {"classes": units.counts(task.classes)}

    def scarcest(self, units: Units, task: Task) -> tuple[int, str]:
        counts = units.counts(task.classes)
        scarce = min(counts, key=lambda name: counts[name])
        return counts[scarce], f"of class {scarce}"

    def curves(self, units: Units, task: Task) -> dict[str, Any]:
        return {
            "discrimination": discrimination(units, task.classes),
            "confusion": confusion(units, task.classes),
        }

    def fold_curves(self, units: Units, task: Task) -> dict[str, Any]:
        return {"discrimination": discrimination(units, task.classes)}

    def fixed(self, units: Units, task: Task, resamples: int, seed: int) -> dict[str, Interval] | None:
        if units.stratum is not None:
            return None  # ranks are compared within a fold: resampled
        return fixed_cohort(units, task.classes, resamples=resamples, seed=seed)

    def trust(
        self, units: Units, task: Task, *, out_of_fold: bool, corrected: Units | None, alpha: float, seed: int
    ) -> dict[str, Any] | None:
        return trust(units, task.classes, out_of_fold=out_of_fold, corrected=corrected, alpha=alpha, seed=seed)

    def bounds(self, name: str, task: Task) -> tuple[float, float]:
        return bounds(name, len(task.classes))

    def doubts(self, units: Units, task: Task, level: str) -> list[str]:
        found = []
        never = [name for k, name in enumerate(task.classes) if not (decisions(units.p) == k).any()]
        if len(units) and never:
            names = ", ".join(never)
            found.append(f"No {level} is ever decided to be of class {names}: read auroc, not accuracy or f1.")
        ones = np.ones((1, len(units)))
        within = float(self.figure("auroc", units, ones, task)[0])
        across = float(weighted("auroc", units.y, units.p, ones)[0])
        if across < within - _SCALE_GAP:
            found.append(
                f"Ranked across folds auroc is {across:.2f}, within folds {within:.2f}: the folds' models do not share "
                "a scale, so one threshold does not fit them all."
            )
        return found
