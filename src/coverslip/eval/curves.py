"""What the report draws: ROC, precision-recall, confusion, reliability, and a table of sites. Plain lists for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from coverslip.eval.interval import patient_bootstrap
from coverslip.eval.metrics import ECE_BINS, calibration_parts, classification_metrics, decisions
from coverslip.eval.proportion import wilson
from coverslip.eval.reduce import UnitLevel, Units

# With fewer units in its smallest class a site gets counts and no figure: resampling five patients already says little.
LEAST_IN_CLASS = 5
SITE_METRICS = ("auroc", "balanced_accuracy")


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


def site_table(
    units: Units,
    sites: Mapping[str, str],
    classes: Sequence[str],
    *,
    level: UnitLevel,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """One entry a site: counts, and figures with intervals, or null with the reason where a class has too few.

    `sites` names the site of each unit; a unit that is not there counts as "not given".
    """
    site_of = np.array([sites.get(str(unit), "not given") for unit in units.ids], dtype=object)
    table = []
    for site in sorted(set(site_of)):
        here = units.only(site_of == site)
        counts = here.counts(classes)
        scarce = min(counts, key=lambda name: counts[name])
        entry: dict[str, Any] = {
            "site": site,
            f"{level}s": len(here),
            "classes": counts,
            **dict.fromkeys(SITE_METRICS),
            "accuracy": classification_metrics(here.y, here.p, classes)["accuracy"],
            "reason": None,
        }
        if counts[scarce] < LEAST_IN_CLASS:
            entry["reason"] = f"{counts[scarce]} of class {scarce}: under {LEAST_IN_CLASS}, too few for a figure"
        else:
            for metric in SITE_METRICS:
                figure = patient_bootstrap(metric, here.y, here.p, here.patient, resamples, seed)
                entry[metric] = figure.to_json()
        table.append(entry)
    return table
