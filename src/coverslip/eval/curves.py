"""What the report draws of classes: ROC, precision-recall and confusion. Plain lists for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from coverslip.eval.metrics import decisions
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


def curves_of(
    name: str, true: Bool[ndarray, n], score: Float[ndarray, n], strata: Sequence[Int[ndarray, m]]
) -> dict[str, Any]:
    """class, prevalence, roc and pr of one class against the rest; the means over folds of their curves.

    `strata` are the places of each fold's units. A mean curve is vertical (of the folds' tpr at each fpr, of their
    precision at each recall; Fawcett 2006, https://doi.org/10.1016/j.patrec.2005.10.010), so that its `area` is the
    mean of the folds' areas, and no score is ever compared with one of another fold's model. `folds` counts those that
    have a curve.
    """
    rocs = [found for at in strata if (found := roc(true[at], score[at])) is not None]
    steps = [found for at in strata if (found := precision_recall(true[at], score[at])) is not None]
    return {
        "class": name,
        "prevalence": float(true.mean()) if len(true) else None,
        "roc": _mean_roc(rocs) if rocs else None,
        "pr": _mean_steps(steps) if steps else None,
    }


def _mean_roc(curves: Sequence[dict[str, list[float]]]) -> dict[str, Any]:
    """The mean tpr at each fpr at which a curve turns; before and after the step where one rises upright."""
    at = np.unique(np.concatenate([curve["fpr"] for curve in curves]))
    before, after = np.zeros(len(at)), np.zeros(len(at))
    for curve in curves:
        fpr, tpr = np.array(curve["fpr"]), np.array(curve["tpr"])
        between = np.interp(at, fpr, tpr)
        corner = np.isin(at, fpr)
        left, right = np.searchsorted(fpr, at, side="left"), np.searchsorted(fpr, at, side="right") - 1
        before += np.where(corner, tpr[left], between) / len(curves)
        after += np.where(corner, tpr[right], between) / len(curves)
    fpr, tpr = np.repeat(at, 2), np.stack([before, after], axis=1).reshape(-1)
    keep = np.insert((np.diff(fpr) > 0) | (np.diff(tpr) > 0), 0, True)
    fpr, tpr = fpr[keep], tpr[keep]
    return {"fpr": fpr.tolist(), "tpr": tpr.tolist(), "area": float(np.trapezoid(tpr, fpr)), "folds": len(curves)}


def _mean_steps(curves: Sequence[dict[str, list[float]]]) -> dict[str, Any]:
    """The mean precision at each recall that a curve reaches; between two of them a curve has the later one's."""
    recall = np.unique(np.concatenate([curve["recall"] for curve in curves]))
    recall = recall[recall > 0]
    precision = np.zeros(len(recall))
    for curve in curves:
        # Several thresholds of one recall: the first has the highest precision, and is the step's.
        reached, place = np.unique(curve["recall"], return_index=True)
        here = np.searchsorted(reached, recall, side="left")
        precision += np.array(curve["precision"])[place[here]] / len(curves)
    area = float((np.diff(recall, prepend=0.0) * precision).sum())
    return {"recall": recall.tolist(), "precision": precision.tolist(), "area": area, "folds": len(curves)}


def discrimination(units: Units, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One entry a class against the rest (two classes: the second alone), as `curves_of`."""
    strata = [places for _, places in units.strata()]
    kept = [1] if len(classes) == 2 else range(len(classes))
    return [curves_of(classes[k], units.y == k, units.p[:, k], strata) for k in kept]


def confusion(units: Units, classes: Sequence[str]) -> dict[str, Any]:
    """Counts with a row for each true class and a column for each decision, and how was decided."""
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (units.y, decisions(units.p)), 1)
    rule = f"p({classes[1]}) over 0.5" if len(classes) == 2 else "most probable class"
    return {"classes": list(classes), "counts": counts.tolist(), "decision": rule}
