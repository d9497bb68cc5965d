"""Several events of which the first ends the time: each cause's own ranking, and its cumulative incidence.

c_index_<cause>  Harrell's c-index of risk_<cause> for the time to the cause, other causes taken as censoring: does who
                 has the cause earlier have the higher risk of it (cause-specific; ties of risk count half)
ibs_<cause>      integrated Brier score of the stated cumulative incidence, IPCW (Schoop et al. 2011,
                 https://doi.org/10.1002/bimj.201000073)
c_index, ibs     the mean over the causes for which the figure can be computed

Only units of one fold are ranked against each other.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from coverslip.eval.censoring import cumulative_incidence
from coverslip.eval.interval import Interval
from coverslip.eval.jackknife import mean_of, moves
from coverslip.eval.kind import Kind, mean_of_known, nothing
from coverslip.eval.reduce import Units
from coverslip.eval.survival import brier_interval, concordance, integrated_brier, ranked_interval
from coverslip.eval.truth import Task

_OF_CAUSE = ("c_index", "ibs")


class CompetingRisks(Kind):
    """The time to the first of several events."""

    headline: ClassVar[str] = "c_index"
    chance: ClassVar[float] = 0.5
    baseline: ClassVar[str] = "mean+sd Cox ridge, a cause each"
    shown: ClassVar[tuple[str, ...]] = ("c_index", "ibs")

    def names(self, task: Task) -> tuple[str, ...]:
        return (*_OF_CAUSE, *(f"{name}_{cause}" for cause in task.classes for name in _OF_CAUSE))

    def figure(self, name: str, units: Units, weights: Float[ndarray, "r n"], task: Task) -> Float[ndarray, r]:
        if not len(units):
            return nothing(weights)
        base = next(base for base in _OF_CAUSE if name == base or name.startswith(f"{base}_"))
        if name != base:
            return _of_cause(base, task.classes.index(name.removeprefix(f"{base}_")), units, weights, task)
        each = [_of_cause(base, c, units, weights, task) for c in range(len(task.classes))]
        return mean_of_known(each, len(weights))

    def groups(self, units: Units, task: Task) -> Int[ndarray, n]:
        return units.y[:, 1].astype(np.int64)

    def counts(self, units: Units, task: Task) -> dict[str, Any]:
        causes = {name: int((units.y[:, 1] == 1 + c).sum()) for c, name in enumerate(task.classes)}
        return {"events": {**causes, "censored": int((units.y[:, 1] == 0).sum())}}

    def scarcest(self, units: Units, task: Task) -> tuple[int, str]:
        counts = self.counts(units, task)["events"]
        scarce = min(task.classes, key=lambda name: counts[name])
        return counts[scarce], f"with the event {scarce}"

    def curves(self, units: Units, task: Task) -> dict[str, Any]:
        """The observed cumulative incidence of each cause in the halves of higher and lower risk of it."""
        return {"incidence": [_incidence(units, c, cause) for c, cause in enumerate(task.classes)]}

    def fixed(self, units: Units, task: Task, resamples: int, seed: int) -> dict[str, Interval] | None:
        """Of each cause as for one event (`Survival.fixed`); the means as over classes (`fixed_cohort`): c_index with
        the causes' limits combined, ibs with their mean."""
        found: dict[str, Interval] = {}
        for c, cause in enumerate(task.classes):
            mine = units.y[:, 1] == 1 + c
            by_end = mine & (units.y[:, 0] <= task.grid[-1])
            found[f"c_index_{cause}"] = ranked_interval(partial(_weighted, "c_index", c, units, task), units, mine)
            found[f"ibs_{cause}"] = brier_interval(partial(_weighted, "ibs", c, units, task), units, by_end)
        ranks = [moves(partial(_weighted, "c_index", c, units, task), units.patient) for c in range(len(task.classes))]
        for name, together in zip(_OF_CAUSE, (ranks, None)):
            found[name] = mean_of([found[f"{name}_{cause}"] for cause in task.classes], together, "cause")
        return found

    def doubts(self, units: Units, task: Task, level: str) -> list[str]:
        none = [name for name, n in self.counts(units, task)["events"].items() if n == 0 and name != "censored"]
        return [f"No tested {level} has the event {', '.join(none)}: its figures are null."] if none else []


def _of_cause(name: str, c: int, units: Units, weights: Float[ndarray, "r n"], task: Task) -> Float[ndarray, r]:
    happened = units.y[:, 1] == 1 + c
    if not happened.any():
        return nothing(weights)
    if name == "c_index":
        return concordance(units, units.p[:, c], happened, weights)
    grid, first = np.array(task.grid), len(task.classes) + c * len(task.grid)
    return integrated_brier(units, units.p[:, first : first + len(grid)], grid, weights, cause=1 + c)


def _weighted(name: str, c: int, units: Units, task: Task, weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
    return _of_cause(name, c, units, weights, task)


def _incidence(units: Units, c: int, cause: str) -> dict[str, Any]:
    high = np.zeros(len(units), dtype=bool)
    for _, places in units.strata():
        high[places] = units.p[places, c] > np.median(units.p[places, c])
    groups = []
    for name, which in (("lower risk", ~high), ("higher risk", high)):
        time, event = units.y[which, 0], units.y[which, 1].astype(np.int64)
        curve = cumulative_incidence(time, event, 1 + c)
        groups.append(
            {
                "name": name,
                "patients": int(which.sum()),
                "events": int((event == 1 + c).sum()),
                "time": [0.0, *curve.time.tolist()],
                "value": [0.0, *curve.value.tolist()],
            }
        )
    return {"cause": cause, "groups": groups, "cut": "median of each fold"}
