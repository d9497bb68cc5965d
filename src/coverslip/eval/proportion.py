"""Intervals of a proportion: so many hits of so many patients, each counted once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from scipy.optimize import brentq
from scipy.special import gammainc, ndtri
from scipy.stats import beta

from coverslip.eval.interval import Interval

_TAIL = 0.025


def wilson(hits: float, n: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953).

    Never without width, and covers close to what it states on the average over proportions. `n` may be fractional:
    what weighted or clustered counts amount to.
    """
    assert n > 0 and 0 <= hits <= n, (hits, n)
    z2 = float(ndtri(0.5 + confidence / 2)) ** 2
    centre = (hits + z2 / 2) / (n + z2)
    half = np.sqrt(z2 * (hits * (n - hits) / n + z2 / 4)) / (n + z2)
    low = 0.0 if hits == 0 else max(0.0, float(centre - half))
    return low, 1.0 if hits == n else min(1.0, float(centre + half))


def clopper_pearson(hits: float, n: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a proportion (Clopper and Pearson 1934, https://doi.org/10.1093/biomet/26.4.404).

    Covers at least what it states for every proportion, so it is wider than Wilson's. `n` may be fractional.
    """
    assert n > 0 and 0 <= hits <= n, (hits, n)
    tail = 0.5 - confidence / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


def proportion(hits: int, n: int, *, exact: bool = False, confidence: float = 0.95) -> Interval:
    """hits / n with Wilson's interval, or Clopper and Pearson's where `exact`; all None where nobody was counted."""
    how = f"{'Clopper-Pearson' if exact else 'Wilson'}, {confidence:.0%}"
    if n == 0:
        return Interval(None, None, None, how, reason="nobody to count")
    low, high = (clopper_pearson if exact else wilson)(hits, n, confidence=confidence)
    return Interval(hits / n, low, high, how)


def share_of(
    hits: Bool[ndarray, n], of: Bool[ndarray, n], patient: ndarray, *, exact: bool = False, confidence: float = 0.95
) -> Interval:
    """The share of the units `of` that are hits, with limits for as many patients as they amount to."""
    how = f"{'Clopper-Pearson' if exact else 'Wilson'}, {confidence:.0%}"
    hits, of = np.asarray(hits, dtype=bool), np.asarray(of, dtype=bool)
    if not of.any():
        return Interval(None, None, None, how, reason="nobody to count")
    share, n = float(hits[of].mean()), effective_patients(np.asarray(patient)[of])
    low, high = (clopper_pearson if exact else wilson)(min(n, share * n), n, confidence=confidence)
    return Interval(share, low, high, how)


def effective_patients(groups: Sequence[str] | ndarray) -> float:
    """As many patients as the units amount to, by Kish: (sum of units)² / sum of units².

    `groups` names the patient of each unit. Ten slides of ten patients are ten; ten of one patient are one; where one
    patient brings most of the slides, it is less than the number of patients.
    """
    if not len(groups):
        return 0.0
    _, units = np.unique(np.asarray(groups).astype(str), return_counts=True)
    return float(units.sum() ** 2 / (units**2).sum())


def fewest_events(num: int, least: int) -> float:
    """The lower 95 % limit of the expected number of events, of a cohort that has `num` of them and would not be looked
    at with fewer than `least`: the mean at which `num` or more are as rare among such cohorts as a tail of 2.5 %.

    Events are counted as Poisson's (Garwood 1936, https://doi.org/10.2307/2333958, has the limit without the
    condition). 0 where `num` is `least`: however few are expected, a cohort that is looked at has as many.
    """
    assert num >= least, (num, least)
    if num == least:
        return 0.0
    # gammainc(k, mean) is the chance of k or more.
    return float(brentq(lambda mean: gammainc(num, mean) - _TAIL * gammainc(least, mean), 1e-3, num))
