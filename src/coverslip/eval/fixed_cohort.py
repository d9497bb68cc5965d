"""Figures of a fixed cohort, one prediction a patient, each with the interval that holds what it states.

For external patients, whom finished models predict. Resampling is not asked where it fails: of few patients, a resample
rarely meets the ones that a figure hangs on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from coverslip.eval.auroc_interval import FEW, auroc_interval
from coverslip.eval.interval import Interval
from coverslip.eval.jackknife import LOGIT, as_many_as, mean_of, moves, on_scale, spread
from coverslip.eval.mean_interval import mean_limits
from coverslip.eval.metrics import METRICS, bounds, decisions, plain, weighted
from coverslip.eval.proportion import effective_patients, fewest_events, share_of, wilson
from coverslip.eval.reduce import Units

ECE_REASON = "in few patients it is never near 0; beside it stands what a calibrated model shows by chance"
# With fewer in a class the one patient who is sure and wrong is often not met: intervals cover 80 to 93 % then.
LEAST_FOR_BRIER = 50
CONFIDENCE = 0.95


def fixed_cohort(units: Units, classes: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> dict[str, Interval]:
    """Every metric of `METRICS` by name.

    auroc               Newcombe's method 5 or BCa (`auroc_interval`)
    accuracy            Clopper and Pearson
    balanced_accuracy   Clopper and Pearson's limits of the classes' recalls, which are of different patients, combined
    f1                  Wilson's limits of TP / (TP + FP + FN), of which f1 is a rising function
    auprc               Wilson's with the patients of the class; fewer where the jackknife's variance is larger
    brier               jackknife, t on the logit scale, from 50 in the smallest class; with fewer it would cover less
                        than stated
    ece                 none: a resample adds chance a second time

    Where units are slides, as many patients count as the slides amount to. Of more than two classes auroc, auprc and f1
    are means: auroc with the classes' limits combined by how they move together (`mean_limits`), the others with the
    mean of the limits, rather too wide: in few patients all are off in the same direction, which no correlation shows.
    """
    figures = {
        "auroc": _over_classes("auroc", units, [
            auroc_interval(units.y == k, units.p[:, k], units.patient, resamples=resamples, seed=seed)
            for k in _positives(units)
        ]),
        "auprc": _over_classes("auprc", units, [_auprc(units, k) for k in _positives(units)]),
        "balanced_accuracy": _balanced_accuracy(units),
        "f1": _over_classes("f1", units, [_f1(units, k) for k in _positives(units)]),
        "brier": _brier(units, classes),
        "ece": Interval(_value("ece", units), None, None, "none", reason=ECE_REASON),
        "accuracy": share(decisions(units.p) == units.y, units.patient),
    }  # fmt: skip
    return {name: _doubted(figures[name], units, classes) for name in METRICS}


def _over_classes(name: str, units: Units, parts: Sequence[Interval]) -> Interval:
    """The mean of a figure over classes; None where it is None for one of them. Of two classes it is the second's."""
    if len(parts) == 1:
        return parts[0]
    lacking = next((part for part in parts if part.value is None), None)
    if lacking is not None:
        return lacking
    each = None
    if name == "auroc":
        each = [moves(partial(_one_against_rest, name, k, units), units.patient) for k in _positives(units)]
    found = mean_of(parts, each, "class")
    # Few of a class are told by `_doubted`, which names the scarcest.
    return found if found.low is None else replace(found, reason="")


def _one_against_rest(name: str, k: int, units: Units, weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
    """auroc or auprc of one class."""
    two = np.stack([1 - units.p[:, k], units.p[:, k]], axis=1)
    return weighted(name, (units.y == k).astype(np.int64), two, weights)


def share(hits: Bool[ndarray, n], patient: ndarray) -> Interval:
    """The share of all units that are hits, by Clopper and Pearson: Wilson's limits cover 92 % of few patients who are
    nearly all decided rightly, and 93.5 % of forty."""
    return share_of(hits, np.ones(len(hits), bool), patient, exact=True)


def _balanced_accuracy(units: Units) -> Interval:
    """Recalls of different patients are independent: their squared distances to their limits add up (MOVER)."""
    how = "Clopper-Pearson limits of the classes' recalls, combined, 95%"
    decided = decisions(units.p)
    recalls = [share_of(decided == k, units.y == k, units.patient, exact=True) for k in range(units.p.shape[1])]
    if any(recall.value is None for recall in recalls):
        return Interval(None, None, None, how, reason="a class has no patient")
    return Interval(*mean_limits([recall.limits for recall in recalls], np.eye(len(recalls))), how)


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
    """As a share of the patients of the class (Boyd, Eng and Page 2013, https://doi.org/10.1007/978-3-642-40994-3_29).

    Where a few patients of the other class lie among the first, as with long tails, they move all precisions at once:
    by the class alone intervals covered 89 to 94 % then. So it counts for as few as the jackknife's variance says.
    """
    how = "Wilson with the patients of the class, 95%"
    true = units.y == k
    statistic = partial(_one_against_rest, "auprc", k, units)
    value = plain(float(statistic(np.ones((1, len(units))))[0]))
    if value is None:
        return Interval(None, None, None, how, reason="needs patients with and without the class")
    n = effective_patients(units.patient[true])
    fewer = as_many_as(value, spread(statistic, units.patient))
    if fewer < n:
        n, how = fewer, how.replace("class,", "class, widened to the jackknife's variance,")
    low, high = wilson(min(n, value * n), n)
    return Interval(value, low, high, how)


def _brier(units: Units, classes: Sequence[str]) -> Interval:
    """By the jackknife, Student's t on the logit scale, since squares are skewed.

    Other patients show the classes in other numbers, and a rare class has larger squares: where it is not of 50 by
    expectation but by chance, the score is off. So the limits reach as far as the score that these patients would give
    with the fewest of the class that are likely in a cohort which has 50 (`fewest_events`).
    """
    how = f"t on the logit scale, {CONFIDENCE:.0%}"
    value = _value("brier", units)
    if value is None:
        return Interval(None, None, None, how, reason="nobody to count")
    num, rare = min((len(np.unique(units.patient[units.y == k])), k) for k in range(len(classes)))
    if num < LEAST_FOR_BRIER:
        return Interval(value, None, None, how, reason=f"under {LEAST_FOR_BRIER} in the smallest class")
    highest = bounds("brier", len(classes))[1]

    def share(weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
        return weighted("brier", units.y, units.p, weights) / highest

    found = on_scale(value / highest, spread(share, units.patient), LOGIT, "logit")
    if found.low is None or found.high is None:
        return replace(found, value=value)
    has, fewest = units.y == rare, fewest_events(num, LEAST_FOR_BRIER) / num
    part = float(has.mean())
    fewer = float(share(np.where(has, fewest, (1 - part * fewest) / (1 - part))[None, :])[0])
    low, high = min(found.low, fewer), max(found.high, fewer)
    return replace(found, value=value, low=low * highest, high=high * highest)


def _doubted(figure: Interval, units: Units, classes: Sequence[str]) -> Interval:
    counts = units.counts(classes)
    scarce = min(counts, key=lambda name: counts[name])
    if figure.low is None or figure.reason or not 0 < counts[scarce] < FEW:
        return figure
    return replace(figure, reason=f"only {counts[scarce]} of class {scarce}: a hint, no evidence")


def _positives(units: Units) -> Sequence[int]:
    """The classes that are looked at against the rest: of two, the second alone."""
    return [1] if units.p.shape[1] == 2 else range(units.p.shape[1])


def _value(name: str, units: Units) -> float | None:
    return plain(float(weighted(name, units.y, units.p, np.ones((1, len(units))))[0]))
