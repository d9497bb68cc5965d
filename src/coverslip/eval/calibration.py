"""Do stated probabilities come true? Reliability, ECE, Brier's parts, slope and intercept, each with its interval.

Everything here is about pairs (stated, came true), one a patient. More than two classes are looked at in two ways, and
which one is said: `classwise`, each class's probability against the rest; `top label`, the probability of the decided
class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import f as f_distribution

from coverslip.base.random import stream
from coverslip.eval.interval import Interval
from coverslip.eval.metrics import bins_of, decisions
from coverslip.eval.proportion import effective_patients, wilson

# A probability of 0 or 1 has no logit; models in half precision state them.
_EDGE = 1e-6
# Slope and intercept are searched for within this; further out the data do not bound them.
_FAR = 50.0


@dataclass(frozen=True)
class Bin:
    """Patients of like stated probability: how many, what was stated on average, and how often it came true."""

    low_edge: float
    high_edge: float
    n: int
    stated: float
    observed: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | int]:
        return {
            "from": self.low_edge,
            "to": self.high_edge,
            "n": self.n,
            "stated": self.stated,
            "observed": self.observed,
            "low": self.low,
            "high": self.high,
        }


@dataclass(frozen=True)
class BrierParts:
    """Brier's score in parts: brier = reliability - resolution + uncertainty + within_variance - within_covariance.

    Reliability: how far bins are from coming true as stated (0 is best). Resolution: how far bins are from the
    prevalence (more is better). Uncertainty: prevalence times its complement. The last two are what bins hide: the
    variance of stated probabilities within bins, and twice their covariance with the outcome (Murphy 1973,
    https://doi.org/10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2; Stephenson et al. 2008,
    https://doi.org/10.1175/2007WAF2006116.1).
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within_variance: float
    within_covariance: float

    def to_json(self) -> dict[str, float]:
        return dict(vars(self))


def reliability_bins(
    stated: Float[ndarray, n],
    true: Bool[ndarray, n],
    groups: Sequence[str] | ndarray | None = None,
    *,
    confidence: float = 0.95,
) -> list[Bin]:
    """Bins of equal numbers with Wilson's interval of how often it came true.

    `groups` names the patient of each unit where units are slides; intervals then count patients.
    """
    found = []
    bin_of = bins_of(stated)
    for b in range(int(bin_of.max()) + 1 if len(stated) else 0):
        inside = bin_of == b
        n, hits = int(inside.sum()), int(true[inside].sum())
        patients = n if groups is None else effective_patients(np.asarray(groups)[inside])
        low, high = wilson(hits / n * patients, patients, confidence=confidence)
        here = stated[inside]
        found.append(Bin(float(here.min()), float(here.max()), n, float(here.mean()), hits / n, low, high))
    return found


def expected_calibration_error(stated: Float[ndarray, n], true: Bool[ndarray, n]) -> float | None:
    """ECE in bins of equal numbers: mean |stated - observed|, weighted by the patients of a bin; None without any."""
    if not len(stated):
        return None
    bin_of = bins_of(stated)
    return float(np.abs(np.bincount(bin_of, stated - true)).sum() / len(stated))


def ece_by_chance(stated: Float[ndarray, n], *, draws: int = 1000, seed: int = 0) -> dict[str, float] | None:
    """The ECE that a perfectly calibrated model of these probabilities shows: mean and 95 % quantile.

    Outcomes are drawn as stated (Bröcker and Smith 2007, https://doi.org/10.1175/WAF993.1). An observed ECE below the
    quantile is no evidence of miscalibration. ECE is never 0 by chance in few patients, so it gets this in place of an
    interval: resampling adds the chance a second time and would centre on too high a value.
    """
    if not len(stated):
        return None
    bin_of = bins_of(stated)
    member = np.eye(int(bin_of.max()) + 1)[bin_of]
    outcomes = stream(seed, "evaluation", "ece").random((draws, len(stated))) < stated
    errors = np.abs((stated - outcomes) @ member).sum(axis=1) / len(stated)
    return {"mean": float(errors.mean()), "quantile_95": float(np.quantile(errors, 0.95))}


def brier_parts(stated: Float[ndarray, n], true: Bool[ndarray, n]) -> BrierParts | None:
    """Brier's score of the stated probabilities, 0 to 1, in its parts; the sum is exact. None without patients."""
    if not len(stated):
        return None
    bin_of, outcome = bins_of(stated), np.asarray(true, dtype=np.float64)
    n = np.bincount(bin_of)
    mean_stated, mean_true = np.bincount(bin_of, stated) / n, np.bincount(bin_of, outcome) / n
    prevalence = outcome.mean()
    apart = stated - mean_stated[bin_of]
    return BrierParts(
        brier=float(((stated - outcome) ** 2).mean()),
        reliability=float((n * (mean_stated - mean_true) ** 2).sum() / n.sum()),
        resolution=float((n * (mean_true - prevalence) ** 2).sum() / n.sum()),
        uncertainty=float(prevalence * (1 - prevalence)),
        within_variance=float((apart**2).mean()),
        within_covariance=float(2 * (apart * (outcome - mean_true[bin_of])).mean()),
    )


def slope_and_intercept(
    stated: Float[ndarray, n],
    true: Bool[ndarray, n],
    groups: Sequence[str] | ndarray | None = None,
    *,
    confidence: float = 0.95,
) -> tuple[Interval, Interval]:
    """Calibration slope, and calibration in the large, with profile likelihood intervals.

    Slope: of the logistic regression of the outcome on logit(stated); 1 is right, under 1 is overconfident (Cox 1958,
    https://doi.org/10.1093/biomet/45.3-4.562). Intercept: of the same with the slope held at 1; 0 is right, over 0
    means that it happens more often than stated. None without both outcomes; a limit is None where the data do not
    bound it (the classes are separated). `groups` names the patient of each unit where units are slides; the likelihood
    then counts for as many patients as the slides amount to.
    """
    how = f"profile likelihood, {confidence:.0%}"
    outcome = np.asarray(true, dtype=np.float64)
    if len(outcome) < 2 or outcome.min() == outcome.max():
        nothing = Interval(None, None, None, how, reason="needs patients with and without the outcome")
        return nothing, nothing
    x = logit(np.clip(stated, _EDGE, 1 - _EDGE))
    counted = 1.0 if groups is None else effective_patients(groups) / len(outcome)
    # F for chi-square, as t for z: with 25 patients the slope's limits cover 93 % otherwise.
    drop = float(f_distribution.ppf(confidence, 1, max(1.0, counted * len(outcome) - 2))) / 2 / counted
    intercept = _profiled(lambda a: _log_likelihood(a + x, outcome), drop, how)
    if np.ptp(x) < 1e-9:
        return Interval(None, None, None, how, reason="every patient has the same stated probability"), intercept
    slope = _profiled(lambda b: _best_intercept(b * x, outcome), drop, how)
    return slope, intercept


def calibration(
    y: Int[ndarray, n],
    p: Float[ndarray, "n k"],
    classes: Sequence[str],
    groups: Sequence[str] | ndarray | None = None,
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """All of the above as plain values for JSON, an entry for each probability that is looked at.

    Two classes: of the second class's probability. More: each class against the rest (classwise), and the decided
    class (top label) last. `groups` names the patient of each unit where units are slides.
    """
    views = (
        [(f"p({classes[1]})", p[:, 1], y == 1)]
        if len(classes) == 2
        else [(f"p({name}), classwise", p[:, k], y == k) for k, name in enumerate(classes)]
        + [("probability of the decided class, top label", p.max(axis=1), decisions(p) == y)]
    )
    return [_entry(of, stated, true, groups, seed) for of, stated, true in views]


def _entry(of: str, stated: ndarray, true: ndarray, groups: Any, seed: int) -> dict[str, Any]:
    slope, intercept = slope_and_intercept(stated, true, groups)
    parts = brier_parts(stated, true)
    return {
        "of": of,
        "n": len(stated),
        "came_true": int(np.sum(true)),
        "bins": [b.to_json() for b in reliability_bins(stated, true, groups)],
        "bins_are": "of equal numbers of patients; intervals Wilson, 95%",
        "ece": expected_calibration_error(stated, true),
        "ece_by_chance": ece_by_chance(stated, seed=seed),
        "brier": None if parts is None else parts.to_json(),
        "slope": slope.to_json(),
        "intercept": intercept.to_json(),
    }


def _profiled(log_likelihood: Any, drop: float, how: str) -> Interval:
    """Where a concave likelihood is highest, and where it has fallen by `drop` on either side."""
    low, high = -_FAR, _FAR
    golden = (np.sqrt(5) - 1) / 2
    for _ in range(90):
        a, b = high - golden * (high - low), low + golden * (high - low)
        low, high = (a, high) if log_likelihood(a) < log_likelihood(b) else (low, b)
    best = (low + high) / 2
    reason = "the stated probabilities separate the classes: the data set no bound"
    if abs(best) > _FAR - 1:
        return Interval(None, None, None, how, reason=reason)
    top = log_likelihood(best) - drop

    def fallen(x: float) -> float:
        return float(log_likelihood(x) - top)

    limits = [brentq(fallen, *sorted((best, end)), xtol=1e-12) if fallen(end) < 0 else None for end in (-_FAR, _FAR)]
    return Interval(best, limits[0], limits[1], how, reason="" if None not in limits else reason)


def _best_intercept(offset: Float[ndarray, n], outcome: Float[ndarray, n]) -> float:
    """The highest log likelihood over intercepts, where the expected number of outcomes is the observed one."""
    target = outcome.sum()

    def surplus(a: float) -> float:
        return float(expit(a + offset).sum() - target)

    reach = float(np.abs(offset).max()) + 40.0
    return _log_likelihood(brentq(surplus, -reach, reach, xtol=1e-12) + offset, outcome)


def _log_likelihood(logits: Float[ndarray, n], outcome: Float[ndarray, n]) -> float:
    return float(-np.logaddexp(0, np.where(outcome > 0, -logits, logits)).sum())
