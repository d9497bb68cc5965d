"""What the report draws of classes: ROC, precision-recall, confusion and reliability. Plain lists for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from coverslip.eval.metrics import ECE_BINS, calibration_parts, decisions
from coverslip.eval.proportion import wilson
from coverslip.eval.reduce import Units


def roc(true: Bool[ndarray, n], score: Float[ndarray, n]) -> dict[str, list[float]] | None:
    """The ROC curve's corners from (0, 0) to (1, 1); None where a class is missing."""
    hits, false_alarms = _cumulated(true, score)
    if not true.any() or true.all():
        return None
    tpr = np.concatenate([[0.0], hits / hits[-1]])
    fpr = np.concatenate([[0.0], false_alarms / false_alarms[-1]])
    # Points in the middle of a straight run draw nothing.
    inner = (np.diff(tpr[:-1]) * np.diff(fpr[1:])) != (np.diff(tpr[1:]) * np.diff(fpr[:-1]))
    keep = np.concatenate([[True], inner, [True]])
    return {"fpr": fpr[keep].tolist(), "tpr": tpr[keep].tolist()}


def precision_recall(true: Bool[ndarray, n], score: Float[ndarray, n]) -> dict[str, list[float]] | None:
    """Recall and precision at each threshold from the highest, and the prevalence; None where a class is missing.

    The area in steps under it is auprc: no point is added at recall 0.
    """
    if not true.any() or true.all():
        return None
    hits, false_alarms = _cumulated(true, score)
    return {"recall": (hits / hits[-1]).tolist(), "precision": (hits / (hits + false_alarms)).tolist()}


def _cumulated(true: Bool[ndarray, n], score: Float[ndarray, n]) -> tuple[ndarray, ndarray]:
    """True and false positives when everything from a distinct score upwards is called, highest first."""
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.flatnonzero(np.diff(score[order], append=-np.inf) < 0)
    hits = np.cumsum(true[order])[last_of_tie]
    return hits, last_of_tie + 1 - hits


def discrimination(units: Units, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One entry a class against the rest (two classes: the second alone): class, prevalence, roc, pr."""
    entries = []
    for k in [1] if len(classes) == 2 else range(len(classes)):
        true, score = units.y == k, units.p[:, k]
        entries.append(
            {
                "class": classes[k],
                "prevalence": float(true.mean()) if len(true) else None,
                "roc": roc(true, score),
                "pr": precision_recall(true, score),
            }
        )
    return entries


def confusion(units: Units, classes: Sequence[str]) -> dict[str, Any]:
    """Counts with a row for each true class and a column for each decision, and how was decided."""
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (units.y, decisions(units.p)), 1)
    rule = f"p({classes[1]}) over 0.5" if len(classes) == 2 else "most probable class"
    return {"classes": list(classes), "counts": counts.tolist(), "decision": rule}


def reliability(units: Units, classes: Sequence[str]) -> dict[str, Any]:
    """For each bin of the stated probability that holds units: how often it came true, with Wilson's 95 % interval.

    The bins are those of ece, which is the mean of |stated - observed| weighted by n.
    """
    stated, true, bin_of = calibration_parts(units.y, units.p)
    bins = []
    for b in range(ECE_BINS):
        inside = bin_of == b
        n, hits = int(inside.sum()), int(true[inside].sum())
        if n:
            low, high = wilson(hits, n)
            bins.append(
                {
                    "from": b / ECE_BINS,
                    "to": (b + 1) / ECE_BINS,
                    "n": n,
                    "stated": float(stated[inside].mean()),
                    "observed": hits / n,
                    "low": low,
                    "high": high,
                }
            )
    of = f"p({classes[1]})" if len(classes) == 2 else "probability of the decided class"
    return {"of": of, "interval": "Wilson, 95%", "bins": bins}
