"""Two fixed models on the same patients of a fixed cohort: the difference of each figure, with its interval.

AUROC of two classes by the paired test of DeLong (`paired_delong`). Every other figure by the jackknife, both models
without the same patient: what both find hard or easy cancels. Resampled patients called two equally good models
different in up to 23 of 100 cohorts of 30 to 200 patients (simulated, BCa). Never for out-of-fold predictions put
together.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from coverslip.eval.auroc_interval import FEW
from coverslip.eval.compare import paired_delong
from coverslip.eval.interval import Interval
from coverslip.eval.jackknife import difference, spread
from coverslip.eval.kinds import KINDS
from coverslip.eval.metrics import plain
from coverslip.eval.reduce import Units
from coverslip.eval.truth import Task


def paired_differences(
    ours: Units,
    theirs: Units,
    task: Task,
    *,
    figures: tuple[Mapping[str, Interval], Mapping[str, Interval]],
) -> dict[str, Any]:
    """By figure: ours minus theirs as value, low, high, interval and reason; where a test was made `p`, two-sided.

    Both are of the same units in the same order, one prediction each; `figures` are those of each by itself. Null with
    its reason where a figure cannot be computed. No interval where a figure has none by itself, for what speaks against
    one speaks against the other, and where the scarcest thing that figures need has under 5, of which the
    jackknife says nothing.
    """
    assert np.array_equal(ours.ids, theirs.ids), "both models predict the same units"
    return {
        name: _delong(ours, theirs)
        if name == "auroc" and task.kind == "classification" and len(task.classes) == 2
        else _by_jackknife(name, ours, theirs, task, _without(name, figures)).to_json()
        for name in KINDS[task.kind].names(task)
    }


def _delong(ours: Units, theirs: Units) -> dict[str, Any]:
    found = paired_delong(ours.y == 1, ours.p[:, 1], theirs.p[:, 1], ours.patient)
    return {**found.difference.to_json(), "p": found.p}


def _without(name: str, figures: tuple[Mapping[str, Interval], Mapping[str, Interval]]) -> str:
    """Why a figure has no interval by itself; empty where both have one."""
    bare = [one[name] for one in figures if one[name].low is None or one[name].high is None]
    return (bare[0].reason or "the figure has no interval by itself") if bare else ""


def _by_jackknife(name: str, ours: Units, theirs: Units, task: Task, reason: str) -> Interval:
    kind = KINDS[task.kind]
    low, high = kind.bounds(name, task)
    how = "both without the same patient, jackknife, t, 95%"
    gap = partial(_gap, name, ours, theirs, task)
    scarce, what = kind.scarcest(ours, task)
    if scarce < FEW:
        reason = f"only {scarce} {what}: under {FEW} say nothing of a difference"
    value = plain(float(gap(np.ones((1, len(ours))))[0])) if len(ours) else None
    if reason or value is None:
        return Interval(value, None, None, how, reason=reason or "cannot be computed on these patients")
    return difference(value, spread(gap, ours.patient), (low - high, high - low), how)


def _gap(name: str, ours: Units, theirs: Units, task: Task, weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
    kind = KINDS[task.kind]
    return kind.figure(name, ours, weights, task) - kind.figure(name, theirs, weights, task)
