"""The table of sites: the same figures for the units of each site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from coverslip.eval.fold_rows import concordance_interval, fold_rows
from coverslip.eval.interval import Interval, percentiles
from coverslip.eval.kinds import KINDS
from coverslip.eval.reduce import Rows, UnitLevel, Units, reduce
from coverslip.eval.truth import Task

_MIXED = "units are tested in several folds, and their mean predictions mix the scales of several models"

Parts = tuple[ndarray, ndarray, Int[ndarray, "n"], Shaped[ndarray, "n ..."], Float[ndarray, "n k"]]
"""Unit, patient, fold, truth and prediction of each row."""


def site_table(
    units: Units,
    sites: Mapping[str, str],
    task: Task,
    *,
    level: UnitLevel,
    resamples: int,
    seed: int,
    rows: Rows | None = None,
) -> list[dict[str, Any]]:
    """One entry a site: counts, and figures with intervals, or null with the reason where something is too scarce.

    `sites` names the site of each unit; a unit that is not there counts as "not given". `rows` are those that `units`
    are the means of, where folds overlap: units of different folds are not ranked against each other.

    As for subgroups nothing is claimed under ten patients of the scarcest class, label, event or cause, and a figure
    that ranks (AUROC, c-index) has their interval (`concordance_interval`). Other figures have what a fixed cohort has,
    else resampled patients.
    """
    kind = KINDS[task.kind]
    parts = _of_units(units) if rows is None else _unit_folds(rows, level)
    tested = fold_rows(*parts, task)
    row_site = np.array([sites.get(str(unit), "not given") for unit in tested.unit], dtype=object)
    site_of = np.array([sites.get(str(unit), "not given") for unit in units.ids], dtype=object)
    table = []
    for site in sorted(set(site_of)):
        here, mine = units.only(site_of == site), tested.only(row_site == site)
        few = mine.too_few()
        entry: dict[str, Any] = {
            "site": site,
            f"{level}s": len(here),
            **kind.counts(here, task),
            **dict.fromkeys(kind.shown),
            "reason": few,
        }
        if "accuracy" in kind.names(task):
            entry["accuracy"] = kind.figures(here, task)["accuracy"]
        if few is None:
            fixed = _fixed(here, task, resamples, seed)
            for name in kind.shown:
                if name == mine.metric:
                    figure = concordance_interval(mine)
                elif name in kind.ranked and rows is not None:
                    figure = Interval(None, None, None, "none", reason=_MIXED)
                else:
                    figure = _other(name, here, task, fixed, resamples, seed)
                entry[name] = figure.to_json()
        table.append(entry)
    return table


def _fixed(here: Units, task: Task, resamples: int, seed: int) -> Mapping[str, Interval]:
    """Figures with a rule of their own. Where the kind has none for units of several folds, what counts each unit by
    itself may forget the folds; what ranks may not."""
    kind = KINDS[task.kind]
    found = kind.fixed(here, task, resamples, seed)
    if found is None:
        apart = kind.fixed(replace(here, stratum=None), task, resamples, seed) or {}
        found = {name: figure for name, figure in apart.items() if here.stratum is None or name not in kind.ranked}
    return found


def _other(name: str, here: Units, task: Task, fixed: Mapping[str, Interval], resamples: int, seed: int) -> Interval:
    """A figure by its own rule, or by resampled patients; ranks are those within folds."""
    if name in fixed:
        return replace(fixed[name], how=f"these fitted models, {fixed[name].how}")
    kind = KINDS[task.kind]

    def figure(weights: np.ndarray) -> np.ndarray:
        return kind.figure(name, here, weights, task)

    return percentiles(figure, name, here.patient, kind.groups(here, task), resamples, seed)


def _of_units(units: Units) -> Parts:
    fold = np.zeros(len(units), dtype=np.int64) if units.stratum is None else units.stratum
    return units.ids, units.patient, fold, units.y, units.p


def _unit_folds(rows: Rows, level: UnitLevel) -> Parts:
    """Each unit in each fold, folds numbered over repeats."""
    parts = []
    for number, (repeat, fold) in enumerate(rows.folds()):
        units = reduce(rows.only((rows.repeat == repeat) & (rows.fold == fold)), level)
        parts.append(_of_units(replace(units, stratum=np.full(len(units), number))))
    names, patient, numbers, y, p = (np.concatenate(part) for part in zip(*parts))
    return names, patient, numbers, y, p
