"""Figures of a fixed cohort, one prediction a patient, each with the interval that holds what it states.

For external patients, whom finished models predict. Resampling is not asked where it fails: of few patients, a resample
rarely meets the ones that a figure hangs on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.special import expit, logit
from scipy.stats import t as student

from coverslip.eval.auroc_interval import FEW, auroc_interval
from coverslip.eval.interval import Interval, strata_of
from coverslip.eval.metrics import METRICS, bounds, decisions, plain, weighted
from coverslip.eval.proportion import effective_patients, share_of, wilson
from coverslip.eval.reduce import Units

ECE_REASON = "in few patients it is never near 0; beside it stands what a calibrated model shows by chance"
# With fewer in a class the one patient who is sure and wrong is often not met: intervals cover 80 to 93 % then.
LEAST_FOR_BRIER = 50
# Wilson's limits of few patients who are nearly all decided rightly or wrongly cover 92 %.
_EXACT_BELOW = 40
CONFIDENCE = 0.95


def fixed_cohort(units: Units, classes: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> dict[str, Interval]:
    """Every metric of `METRICS` by name.

    auroc               Newcombe's method 5 or BCa (`auroc_interval`); more classes: the mean of the classes' limits
    accuracy            Wilson; Clopper and Pearson under 40 patients
    balanced_accuracy   Clopper and Pearson's limits of the classes' recalls, which are of different patients, combined
    f1                  Wilson's limits of TP / (TP + FP + FN), of which f1 is a rising function
    auprc               Wilson's, with as many patients as have the class
    brier               t on the logit scale, from 50 in the smallest class; with fewer it would cover less than stated
    ece                 none: a resample adds chance a second time

    Where units are slides, as many patients count as the slides amount to. The mean of limits is for figures that may
    move together, and is rather too wide.
    """
    figures = {
        "auroc": _mean([auroc_interval(true, score, units.patient, resamples=resamples, seed=seed)
                        for true, score in _contrasts(units)]),
        "auprc": _mean([_auprc(units, k) for k in _positives(units)]),
        "balanced_accuracy": _balanced_accuracy(units),
        "f1": _mean([_f1(units, k) for k in _positives(units)]),
        "brier": _brier(units, classes),
        "ece": Interval(_value("ece", units), None, None, "none", reason=ECE_REASON),
        "accuracy": share(
            decisions(units.p) == units.y, units.patient, exact=effective_patients(units.patient) < _EXACT_BELOW
        ),
    }  # fmt: skip
    return {name: _doubted(figures[name], units, classes) for name in METRICS}


def _mean(parts: Sequence[Interval]) -> Interval:
    """The mean of figures with the mean of their limits: as wide as if all moved together."""
    if len(parts) == 1:
        return parts[0]
    how = f"mean of the classes' limits ({parts[0].how})"
    lacking = next((part for part in parts if part.value is None), None)
    if lacking is not None:
        return Interval(None, None, None, how, reason=lacking.reason)
    value = float(np.mean([part.value for part in parts]))
    if any(part.low is None or part.high is None for part in parts):
        return Interval(value, None, None, how, reason="a class has no interval")
    return Interval(
        value, float(np.mean([part.low for part in parts])), float(np.mean([part.high for part in parts])), how
    )


def share(hits: Bool[ndarray, n], patient: ndarray, *, exact: bool) -> Interval:
    """The share of all units that are hits: Clopper and Pearson where `exact`, else Wilson."""
    return share_of(hits, np.ones(len(hits), bool), patient, exact=exact)


def _balanced_accuracy(units: Units) -> Interval:
    """Recalls of different patients are independent: their squared distances to their limits add up (MOVER)."""
    how = "Clopper-Pearson limits of the classes' recalls, combined, 95%"
    decided = decisions(units.p)
    recalls = [share_of(decided == k, units.y == k, units.patient, exact=True) for k in range(units.p.shape[1])]
    if any(recall.value is None for recall in recalls):
        return Interval(None, None, None, how, reason="a class has no patient")
    value, low, high = (np.array([getattr(r, name) for r in recalls], dtype=float) for name in ("value", "low", "high"))
    mean, k = float(value.mean()), len(recalls)
    down, up = float(np.sqrt(((value - low) ** 2).sum())) / k, float(np.sqrt(((high - value) ** 2).sum())) / k
    return Interval(mean, max(0.0, mean - down), min(1.0, mean + up), how)


def _f1(units: Units, k: int) -> Interval:
    """Of the patients who have the class or are called so, a share is both; f1 = 2 share / (1 + share)."""
    how = "Wilson of TP / (TP + FP + FN), 95%"
    true, called = units.y == k, decisions(units.p) == k
    if not true.any():
        return Interval(None, None, None, how, reason="a class has no patient")
    share = share_of(true & called, true | called, units.patient)
    assert share.value is not None and share.low is not None and share.high is not None
    value, low, high = (2 * s / (1 + s) for s in (share.value, share.low, share.high))
    return Interval(value, low, high, how)


def _auprc(units: Units, k: int) -> Interval:
    """As a share of the patients of the class (Boyd, Eng and Page 2013, https://doi.org/10.1007/978-3-642-40994-3_29)."""
    how = "Wilson with the patients of the class, 95%"
    true = units.y == k
    two = np.stack([1 - units.p[:, k], units.p[:, k]], axis=1)
    value = plain(float(weighted("auprc", true.astype(np.int64), two, np.ones((1, len(units))))[0]))
    if value is None:
        return Interval(None, None, None, how, reason="needs patients with and without the class")
    n = effective_patients(units.patient[true])
    low, high = wilson(min(n, value * n), n)
    return Interval(value, low, high, how)


def _brier(units: Units, classes: Sequence[str]) -> Interval:
    """Student's t on the logit scale, since squares are skewed, with Welch's degrees of freedom over the classes."""
    how = f"t on the logit scale, {CONFIDENCE:.0%}"
    value = _value("brier", units)
    if value is None:
        return Interval(None, None, None, how, reason="nobody to count")
    scarce = min(units.counts(classes).values())
    if scarce < LEAST_FOR_BRIER:
        return Interval(value, None, None, how, reason=f"under {LEAST_FOR_BRIER} in the smallest class")
    square = ((units.p - np.eye(units.p.shape[1])[units.y]) ** 2).sum(axis=1)
    highest = bounds("brier", len(classes))[1]
    apart = (square * (highest / 2) - value) / len(units)
    apart -= (np.bincount(units.y, apart) / np.bincount(units.y))[units.y]
    patient_of, strata = strata_of(units.patient, units.y)
    adds = np.bincount(patient_of, apart)
    parts = [(float((adds[of] ** 2).sum()) * len(of) / (len(of) - 1), len(of) - 1) for of in strata if len(of) > 1]
    variance = sum(part for part, _ in parts)
    share = value / highest
    if variance <= 0 or not 0 < share < 1:
        return Interval(value, None, None, how, reason="the squares of all patients are the same")
    freedom = max(1.0, variance**2 / sum(part**2 / df for part, df in parts))
    error = np.sqrt(variance) / highest / (share * (1 - share))
    low, high = expit(logit(share) + np.array([-1, 1]) * student.ppf(0.5 + CONFIDENCE / 2, freedom) * error) * highest
    return Interval(value, float(low), float(high), how)


def _doubted(figure: Interval, units: Units, classes: Sequence[str]) -> Interval:
    counts = units.counts(classes)
    scarce = min(counts, key=lambda name: counts[name])
    if figure.low is None or figure.reason or not 0 < counts[scarce] < FEW:
        return figure
    return replace(figure, reason=f"only {counts[scarce]} of class {scarce}: a hint, no evidence")


def _contrasts(units: Units) -> list[tuple[Bool[ndarray, n], Float[ndarray, n]]]:
    return [(units.y == k, units.p[:, k]) for k in _positives(units)]


def _positives(units: Units) -> Sequence[int]:
    """The classes that are looked at against the rest: of two, the second alone."""
    return [1] if units.p.shape[1] == 2 else range(units.p.shape[1])


def _value(name: str, units: Units) -> float | None:
    return plain(float(weighted(name, units.y, units.p, np.ones((1, len(units))))[0]))
