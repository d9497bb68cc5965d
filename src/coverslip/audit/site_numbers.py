"""Does the site tell a number? How much of its variance the sites explain, out of fold and beyond chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from coverslip.audit.probe import (
    FOLDS,
    LEAST_PATIENTS,
    RED_P,
    RED_R2,
    Probe,
    counted,
    dealt,
    nothing,
    probe,
)
from coverslip.base.random import stream
from coverslip.eval.kinds import KINDS
from coverslip.eval.reduce import Units
from coverslip.eval.truth import Task

_WHAT = "number from site"
_SHUFFLES = 9999
_AT_ONCE = 500


def number_from_site(y: Float[ndarray, n], sites: Sequence[str | None], *, seed: int = 0) -> Probe:
    """r2 of telling a patient's number from the site alone: the mean of the other folds' patients of that site, with
    one patient's worth of everybody, so that a site of one patient is not believed; a site that they do not have is the
    mean of all. `y` has one number a patient, in the units of the target. Guessing gives 0, or a little less.

    The interval is that of any r2 of numbers (jackknife over patients), so it is null under 20 patients.
    """
    y, site, counts = _known(y, sites)
    if len(counts) < 2:
        return nothing(_WHAT, "r2", 0.0, counts, "one site")
    if len(y) < LEAST_PATIENTS:
        return nothing(_WHAT, "r2", 0.0, counts, f"{len(y)} patients, under {LEAST_PATIENTS}")
    fold = dealt(np.zeros(len(y), dtype=np.int64), FOLDS, seed)
    told = np.zeros(len(y))
    for f in range(FOLDS):
        train, test = fold != f, fold == f
        total = np.bincount(site[train], y[train], len(counts))
        seen = np.bincount(site[train], minlength=len(counts))
        told[test] = ((total + y[train].mean()) / (seen + 1))[site[test]]
    names = np.arange(len(y)).astype(str)
    task = Task("regression", "number", ())
    figure = (KINDS["regression"].fixed(Units(names, names, y, told[:, None]), task, 0, seed) or {})["r2"]
    red = figure.value is not None and figure.value >= RED_R2 and (figure.low or 0) > 0
    return probe(_WHAT, "r2", figure, 0.0, counts, red=red)


def explained_by_site(y: Float[ndarray, n], sites: Sequence[str | None], *, seed: int = 0) -> dict[str, Any]:
    """The share of a number's variance that lies between sites, corrected for what chance gives (epsilon squared,
    Kelley 1935, https://doi.org/10.1073/pnas.21.9.554), and p of as large a share among 9,999 shuffles of the numbers.

    For numbers this is what Cramér's V is for classes; red from the square of V's limit on.
    """
    y, site, counts = _known(y, sites)
    told: dict[str, Any] = {"cramers_v": None, "explained": None, "p": None, "red": False}
    n, r = len(y), len(counts)
    if r < 2 or n <= r:
        return {**told, "reason": "one site" if r < 2 else "as many sites as patients"}
    total = float(((y - y.mean()) ** 2).sum())
    if np.ptp(y) == 0:
        return {**told, "reason": "every patient has the same number"}
    size = np.bincount(site, minlength=r)
    member = np.eye(r)[site] / np.sqrt(size)

    def between(rows: Float[ndarray, "b n"]) -> Float[ndarray, b]:
        return ((rows @ member) ** 2).sum(axis=1)

    centred = y - y.mean()
    real = float(between(centred[None, :])[0])
    chance = stream(seed, "audit", "explained by site")
    as_large = 0
    for start in range(0, _SHUFFLES, _AT_ONCE):
        rows = np.tile(centred, (min(_AT_ONCE, _SHUFFLES - start), 1))
        as_large += int((between(chance.permuted(rows, axis=1)) >= real - 1e-9 * total).sum())
    share = max(0.0, 1 - ((total - real) / (n - r)) / (total / (n - 1)))
    p = (1 + as_large) / (1 + _SHUFFLES)
    return {**told, "explained": share, "p": p, "red": bool(share >= RED_R2 and p < RED_P), "reason": None}


def _known(
    y: Float[ndarray, n], sites: Sequence[str | None]
) -> tuple[Float[ndarray, m], Int[ndarray, m], dict[str, int]]:
    """The numbers of patients whose site is known, the number of each one's site, and how many each site has."""
    rows = [i for i, site in enumerate(sites) if site is not None and site == site]
    counts = counted([str(sites[i]) for i in rows])
    place = {name: k for k, name in enumerate(counts)}
    return np.asarray(y, float)[rows], np.array([place[str(sites[i])] for i in rows], dtype=np.int64), counts
