"""Labels: each label's own figures over the units that know it, and their means.

auroc_<label>, auprc_<label>, brier_<label>   as for two classes, over the units that know the label
auroc, auprc, brier                           the mean over the labels for which the figure can be computed
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from coverslip.eval.curves import curves_of
from coverslip.eval.fixed_cohort import fixed_cohort
from coverslip.eval.interval import Interval
from coverslip.eval.jackknife import mean_of, moves
from coverslip.eval.kind import Kind, mean_of_known, nothing
from coverslip.eval.metrics import auprc_within, auroc_within
from coverslip.eval.reduce import Units
from coverslip.eval.trust import trust_in_labels
from coverslip.eval.truth import Task

_OF_LABEL = ("auroc", "auprc", "brier")


class Multilabel(Kind):
    """Several labels, each 0, 1 or not known."""

    headline: ClassVar[str] = "auroc"
    chance: ClassVar[float] = 0.5
    baseline: ClassVar[str] = "mean+sd logistic, a label each"
    shown: ClassVar[tuple[str, ...]] = ("auroc", "auprc")
    ranked: ClassVar[tuple[str, ...]] = ("auroc", "auprc")

    def names(self, task: Task) -> tuple[str, ...]:
        return (*_OF_LABEL, *(f"{name}_{label}" for label in task.classes for name in _OF_LABEL))

    def figure(self, name: str, units: Units, weights: Float[ndarray, "r n"], task: Task) -> Float[ndarray, r]:
        base, _, label = name.partition("_")
        if label:
            return _of_label(base, task.classes.index(label), units, weights)
        each = [_of_label(base, t, units, weights) for t in range(len(task.classes))]
        return mean_of_known(each, len(weights))

    def groups(self, units: Units, task: Task) -> Int[ndarray, n]:
        """Units that know and show the same labels."""
        if not len(units):
            return np.zeros(0, dtype=np.int64)
        _, group = np.unique(np.nan_to_num(units.y, nan=2.0), axis=0, return_inverse=True)
        return group.reshape(-1).astype(np.int64)

    def counts(self, units: Units, task: Task) -> dict[str, Any]:
        return {"labels": {label: _count(units.y[:, t]) for t, label in enumerate(task.classes)}}

    def scarcest(self, units: Units, task: Task) -> tuple[int, str]:
        found = [
            (count, f"{sign} for {label}")
            for label, counts in self.counts(units, task)["labels"].items()
            for sign, count in counts.items()
            if sign != "unknown"
        ]
        return min(found, key=lambda pair: pair[0])

    def curves(self, units: Units, task: Task) -> dict[str, Any]:
        return {"discrimination": [_discrimination(units, t, label) for t, label in enumerate(task.classes)]}

    def fixed(self, units: Units, task: Task, resamples: int, seed: int) -> dict[str, Interval] | None:
        """Each label as two classes, and means over labels as over classes (`fixed_cohort`). Out-of-fold
        predictions, of which only those of one fold are compared, are resampled."""
        if units.stratum is not None or not len(units):
            return None
        found: dict[str, Interval] = {}
        for t, label in enumerate(task.classes):
            known = units.only(~np.isnan(units.y[:, t]))
            p = np.stack([1 - known.p[:, t], known.p[:, t]], axis=1)
            two = replace(known, y=known.y[:, t].astype(np.int64), p=p)
            for name, figure in fixed_cohort(two, (f"no {label}", label), resamples=resamples, seed=seed).items():
                if name in _OF_LABEL:
                    found[f"{name}_{label}"] = figure
        together = [moves(partial(_of_label, "auroc", t, units), units.patient) for t in range(len(task.classes))]
        means = {
            name: mean_of(
                [found[f"{name}_{label}"] for label in task.classes], together if name == "auroc" else None, "label"
            )
            for name in _OF_LABEL
        }
        return {**means, **found}

    def trust(
        self, units: Units, task: Task, *, out_of_fold: bool, corrected: Units | None, alpha: float, seed: int
    ) -> dict[str, Any] | None:
        return trust_in_labels(
            units, task.classes, out_of_fold=out_of_fold, corrected=corrected, alpha=alpha, seed=seed
        )

    def doubts(self, units: Units, task: Task, level: str) -> list[str]:
        one = [
            label
            for label, counts in self.counts(units, task)["labels"].items()
            if 0 in (counts["positive"], counts["negative"])
        ]
        if one:
            return [f"Every tested {level} that knows {', '.join(one)} has the same value: its figures are null."]
        return []


def _of_label(name: str, t: int, units: Units, weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
    known = ~np.isnan(units.y[:, t])
    positive, score, drawn = units.y[known, t] == 1, units.p[known, t], weights[:, known]
    if not positive.any() or positive.all():
        return nothing(weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        if name == "brier":
            return drawn @ (score - positive) ** 2 / drawn.sum(axis=1)
        within = auprc_within if name == "auprc" else auroc_within
        return within(positive, score, drawn, strata=[at for _, at in units.only(known).strata()])


def _count(y: Float[ndarray, n]) -> dict[str, int]:
    positive, negative = int((y == 1).sum()), int((y == 0).sum())
    return {"positive": positive, "negative": negative, "unknown": len(y) - positive - negative}


def _discrimination(units: Units, t: int, label: str) -> dict[str, Any]:
    known = units.only(~np.isnan(units.y[:, t]))
    return curves_of(label, known.y[:, t] == 1, known.p[:, t], [at for _, at in known.strata()])
