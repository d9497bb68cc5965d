"""Intervals of any figure of a fixed cohort, from what each patient adds to it.

Each patient is left out in turn. What the figure then loses gives its variance, and how unevenly patients carry that
variance gives its degrees of freedom: where a few events carry it all, Student's t is as wide as for those few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit, logit, ndtri
from scipy.stats import t as student

from coverslip.eval.auroc_interval import FEW, hanley_mcneil, newcombe
from coverslip.eval.bootstrap import Statistic, without_each
from coverslip.eval.interval import NO_SPREAD, SAME, Interval, strata_of
from coverslip.eval.mean_interval import correlations, mean_limits

CONFIDENCE = 0.95
# A variance below this of the figure's square is of rounding alone.
_ROUNDING = 1e-20


@dataclass(frozen=True)
class Spread:
    """The variance of a figure over other patients of the same kind, and the degrees of freedom it is known with.
    `patients` counts those it is from."""

    variance: float
    freedom: float
    patients: int


# There and back between a figure and a line without ends, and the slope of the way there.
Scale = tuple[Callable[[float], float], Callable[[float], float], Callable[[float], float]]
LOGIT: Scale = (lambda v: float(logit(v)), lambda s: float(expit(s)), lambda v: 1 / (v * (1 - v)))
LOG: Scale = (lambda v: float(np.log(v)), lambda s: float(np.exp(s)), lambda v: 1 / v)
FISHER: Scale = (lambda v: float(np.arctanh(v)), lambda s: float(np.tanh(s)), lambda v: 1 / (1 - v**2))
# Of 1 less a ratio of sums of squares, such as r2: the ratio's logarithm.
EXPLAINED: Scale = (lambda v: float(-np.log1p(-v)), lambda s: float(-np.expm1(-s)), lambda v: 1 / (1 - v))


def spread(statistic: Statistic, groups: Sequence[str] | ndarray) -> Spread | None:
    """The jackknife over patients (Tukey 1958; Efron and Stein 1981, https://doi.org/10.1214/aos/1176345462).

    `statistic` takes weights (r, n), how often each unit counts; `groups` names the patient of each unit. Degrees of
    freedom are Satterthwaite's for a variance of n values of kurtosis k, 2 n / (k - 1), from 1 to n - 1. None with one
    patient, or where leaving one out leaves no figure.
    """
    apart = moves(statistic, groups)
    return None if apart is None else spread_of(apart)


def moves(statistic: Statistic, groups: Sequence[str] | ndarray) -> Float[ndarray, g] | None:
    """How far leaving each patient out moves the figure from the mean of all that are left; None as in `spread`."""
    if not len(groups):
        return None
    patient_of, _ = strata_of(groups, None)
    if int(patient_of.max()) < 1:
        return None
    left_out = np.concatenate([statistic(block) for block in without_each(patient_of)])
    return None if np.isnan(left_out).any() else left_out - left_out.mean()


def spread_of(apart: Float[ndarray, g]) -> Spread:
    """From how far each patient's leaving moves the figure."""
    num = len(apart)
    square = apart**2
    total = float(square.sum())
    share = float((square**2).sum()) / total**2 if total > 0 else 1.0
    freedom = 2 / max(share - 1 / num, 2 / max(num - 1, 1))
    return Spread(total * (num - 1) / num, max(1.0, freedom), num)


def on_scale(value: float, found: Spread | None, scale: Scale, name: str, *, least_variance: float = 0.0) -> Interval:
    """Student's t on a scale without ends; `least_variance` is on that scale, for figures whose variance is known to be
    no smaller."""
    how = f"jackknife over patients, t on the {name} scale, {CONFIDENCE:.0%}"
    if found is None:
        return Interval(value, None, None, how, reason="too few patients: without one of them there is no figure")
    there, back, slope = scale
    with np.errstate(divide="ignore", invalid="ignore"):
        at, steep = there(value), slope(value) if np.isfinite(there(value)) else np.nan
    if not np.isfinite(at) or found.variance <= _ROUNDING * max(value**2, 1e-300):
        return Interval(value, None, None, how, reason=NO_SPREAD)
    sd = float(np.sqrt(max(found.variance * steep**2, least_variance)))
    half = float(student.ppf(0.5 + CONFIDENCE / 2, found.freedom)) * sd
    with np.errstate(over="ignore"):
        return Interval(value, back(at - half), back(at + half), how)


def as_many_as(share: float, found: Spread | None) -> float:
    """The number of patients of whom a share has the jackknife's variance, Student's t for z; infinite where it has
    none."""
    if found is None or found.variance <= _ROUNDING:
        return float("inf")
    tail = 0.5 + CONFIDENCE / 2
    uncertain = float(student.ppf(tail, found.freedom) / ndtri(tail)) ** 2
    # A share that is next to 0 or 1 is of one patient at least.
    return max(1.0, share * (1 - share) / (found.variance * uncertain))


def difference(value: float, found: Spread | None, bounds: tuple[float, float], how: str) -> Interval:
    """A difference of two figures of the same patients, by Student's t: it is near even on both sides as it is. None of
    figures that differ by the same whoever is left out."""
    if found is None:
        return Interval(value, None, None, how, reason="too few patients: without one of them there is no figure")
    if found.variance <= SAME**2:
        return Interval(value, None, None, how, reason="without anyone the difference is the same: it has no spread")
    half = float(student.ppf(0.5 + CONFIDENCE / 2, found.freedom)) * float(np.sqrt(found.variance))
    return Interval(value, max(bounds[0], value - half), min(bounds[1], value + half), how)


def ranked(value: float, num_first: float, num_other: float, found: Spread | None, what: str) -> Interval:
    """A share of pairs in the right order: Newcombe's method 5 with so many who come first and so many others, widened
    where the jackknife's variance is the larger. Never without a width; under 5 who come first it is marked."""
    assert -1e-9 <= value <= 1 + 1e-9, value
    # Sums of weights that are no whole numbers may pass 1 by a rounding error.
    value = min(max(value, 0.0), 1.0)
    tail = 0.5 + CONFIDENCE / 2
    assumed = hanley_mcneil(value, num_first, num_other)
    stretch = 1.0
    if found is not None and assumed > 0:
        uncertain = float(student.ppf(tail, found.freedom) / ndtri(tail)) ** 2
        stretch = max(1.0, found.variance * uncertain / assumed)
    low, high = newcombe(value, num_first, num_other, confidence=CONFIDENCE, stretch=stretch)
    widened = ", widened to the jackknife's variance" if stretch > 1 else ""
    reason = f"only {num_first:.3g} {what}: a hint, no evidence" if num_first < FEW else ""
    return Interval(value, low, high, f"Newcombe's method 5{widened}, {CONFIDENCE:.0%}", reason=reason)


def mean_of(parts: Sequence[Interval], moved: Sequence[Float[ndarray, g] | None] | None, what: str) -> Interval:
    """The mean of the figures that can be computed, with their limits combined by how they move together
    (`mean_limits`); where `moved` is None as if all moved as one. `what` the parts are of: "label", "cause". No
    interval where one of those figures has none. Where a part cannot be computed the mean is of something else than it
    would be in other patients, and `reason` says so."""
    known = [part for part in parts if part.value is not None]
    how = f"mean of each {what}'s limits" if moved is None else f"each {what}'s limits, combined"
    if not known:
        return Interval(None, None, None, how, reason=f"cannot be computed for any {what}")
    how = f"{how} ({known[0].how})" if known[0].low is not None else how
    value = float(np.mean([part.value for part in known]))
    lacking = len(parts) - len(known)
    partial = f"{lacking} of {len(parts)} {what}s cannot be computed: the mean is of the others" if lacking else ""
    reason = next((part.reason for part in known if part.reason), partial)
    if any(part.low is None or part.high is None for part in known):
        return Interval(value, None, None, "none", reason=reason or f"a {what} has no interval")
    each = [None] * len(parts) if moved is None else moved
    together = correlations([one for part, one in zip(parts, each, strict=True) if part.value is not None])
    return Interval(*mean_limits([part.limits for part in known], together), how, reason=reason)
