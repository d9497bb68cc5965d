"""The table of sites: the same figures for the units of each site."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from coverslip.eval.interval import percentiles
from coverslip.eval.kinds import KINDS
from coverslip.eval.reduce import UnitLevel, Units
from coverslip.eval.truth import Task

# With fewer units in its smallest class a site gets counts and no figure: resampling five patients already says little.
LEAST_IN_CLASS = 5


def site_table(
    units: Units,
    sites: Mapping[str, str],
    task: Task,
    *,
    level: UnitLevel,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """One entry a site: counts, and figures with intervals, or null with the reason where a class has too few.

    `sites` names the site of each unit; a unit that is not there counts as "not given".
    """
    kind = KINDS[task.kind]
    site_of = np.array([sites.get(str(unit), "not given") for unit in units.ids], dtype=object)
    table = []
    for site in sorted(set(site_of)):
        here = units.only(site_of == site)
        entry: dict[str, Any] = {
            "site": site,
            f"{level}s": len(here),
            **kind.counts(here, task),
            **dict.fromkeys(kind.shown),
            "reason": None,
        }
        if "accuracy" in kind.names(task):
            entry["accuracy"] = kind.figures(here, task)["accuracy"]
        number, what = kind.scarcest(here, task)
        if number < LEAST_IN_CLASS:
            entry["reason"] = f"{number} {what}: under {LEAST_IN_CLASS}, too few for a figure"
        else:
            for name in kind.shown:
                figure = partial(_figure, name, here, task)
                groups = kind.groups(here, task)
                entry[name] = percentiles(figure, name, here.patient, groups, resamples, seed).to_json()
        table.append(entry)
    return table


def _figure(name: str, units: Units, task: Task, weights: np.ndarray) -> np.ndarray:
    return KINDS[task.kind].figure(name, units, weights, task)
