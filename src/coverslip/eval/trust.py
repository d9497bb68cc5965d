"""May predictions be acted on? Calibration, decision curves, abstention and prediction sets, as plain values.

Every kind of task has one block with the same keys: `estimates` (whose figures these are), `probabilities` (which were
acted on), `calibration`, `decision`, `abstention` and `sets`. Times have none: how their curves come true stands under
`calibration_at`, and there are no ranges of times, since how often they hold cannot be known of patients who are
censored without taking for granted who they are (Candès, Lei and Ren 2023, https://arxiv.org/abs/2103.09763).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from coverslip.eval.abstention import risk_coverage
from coverslip.eval.calibration import calibration
from coverslip.eval.conformal import coverage_over_folds, range_coverage_over_folds
from coverslip.eval.decision import HOW, decision_curve
from coverslip.eval.levels import at_least, median_level
from coverslip.eval.metrics import decisions
from coverslip.eval.reduce import Units

OUT_OF_FOLD = (
    "out-of-fold predictions of all folds together: these fitted models on average. Each fold's model has a scale of "
    "its own; a model made of all of them, or of more patients, may be better or worse calibrated. Intervals know of "
    "other test patients, not of other training patients."
)
FIXED = "the model as it stands, on these patients: intervals are for other patients of their kind."


def trust(
    units: Units,
    classes: Sequence[str],
    *,
    out_of_fold: bool,
    corrected: Units | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> dict[str, Any]:
    """Calibration, decision curves, abstention and, of a cross-validation, the coverage of conformal sets that may miss
    a share `alpha`.

    `estimates` says whose figures these are. Two classes: of the second; more: each class against the rest. `units.y`
    are class numbers, `units.p` their raw probabilities, `corrected.p` the recalibrated ones of the same units. What is
    done at a stated risk needs probabilities that mean what they say, and raw ones of a model that was trained with
    balanced classes do not: so decision curves and abstention are of the recalibrated ones where there are any
    (`probabilities` says which), with the raw ones beside. `calibration` is of the raw ones; the block `recalibration`
    has both. Sets are made of raw ones, as `predict` makes them: they hold as often as stated whatever the calibration.
    """
    y, p, patient = units.y, units.p, units.patient
    acted, which = _acted(units, corrected)
    positives = [1] if len(classes) == 2 else range(len(classes))
    return {
        "estimates": OUT_OF_FOLD if out_of_fold else FIXED,
        "probabilities": which,
        "calibration": calibration(y, p, classes, patient, seed=seed),
        "decision": [_decision(classes[k], y == k, p[:, k], acted[:, k], which, patient) for k in positives],
        "abstention": _abstention(
            *((stated.max(axis=1), decisions(stated) != y) for stated in _both(p, acted, which)), patient=patient
        ),
        "sets": _sets(units, classes, out_of_fold=out_of_fold, alpha=alpha),
    }


def trust_in_levels(
    units: Units,
    levels: Sequence[str],
    *,
    out_of_fold: bool,
    corrected: Units | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> dict[str, Any]:
    """As `trust`, of ordered levels: the chance of each level or a higher one takes the place of a class, the median
    level is what is decided, as sure as its own probability, and prediction sets have no gaps."""
    y, p, patient = units.y, units.p, units.patient
    acted, which = _acted(units, corrected)
    calibrations, curves = [], []
    for k, level in enumerate(levels[1:], start=1):
        above, name = y >= k, f"{level} or higher"
        raw, stated = (np.clip(at_least(q, k), 0.0, 1.0) for q in (p, acted))
        two = np.stack([1 - raw, raw], axis=1)
        calibrations += calibration(above.astype(np.int64), two, (f"below {level}", name), patient, seed=seed)
        curves.append(_decision(name, above, raw, stated, which, patient))

    def decided(stated: Float[ndarray, "n k"]) -> tuple[Float[ndarray, n], Bool[ndarray, n]]:
        level = median_level(stated)
        return stated[np.arange(len(stated)), level], level != y

    return {
        "estimates": OUT_OF_FOLD if out_of_fold else FIXED,
        "probabilities": which,
        "calibration": calibrations,
        "decision": curves,
        "abstention": _abstention(*map(decided, _both(p, acted, which)), patient=patient),
        "sets": _sets(units, levels, out_of_fold=out_of_fold, alpha=alpha, ordered=True),
    }


def trust_in_labels(
    units: Units,
    labels: Sequence[str],
    *,
    out_of_fold: bool,
    corrected: Units | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> dict[str, Any]:
    """As `trust`, of labels: each by itself, as two classes over the units that know it. `labels` has the abstention
    and the sets of each; what a set promises it promises of its label, not of all labels at once."""
    parts = {
        label: trust(
            _one_label(units, t, units.y),
            (f"no {label}", label),
            out_of_fold=out_of_fold,
            corrected=None if corrected is None else _one_label(corrected, t, units.y),
            alpha=alpha,
            seed=seed,
        )
        for t, label in enumerate(labels)
    }
    which = sorted({part["probabilities"] for part in parts.values()}, reverse=True)
    return {
        "estimates": OUT_OF_FOLD if out_of_fold else FIXED,
        "probabilities": which[0] if which else "raw",
        "calibration": [entry for part in parts.values() for entry in part["calibration"]],
        "decision": [entry for part in parts.values() for entry in part["decision"]],
        "abstention": None,
        "sets": {"coverage": None, "reason": "several labels: each by itself, under labels"},
        "labels": {label: {"abstention": part["abstention"], "sets": part["sets"]} for label, part in parts.items()},
    }


def trust_in_numbers(units: Units, *, out_of_fold: bool, alpha: float = 0.05) -> dict[str, Any]:
    """Of numbers the coverage and width of conformal ranges. They come with no probability, so there is nothing to
    calibrate or to decide at a risk, and no confidence to abstain by: `no_probability` says so."""
    why = _not_apart(units, out_of_fold=out_of_fold)
    if why or units.stratum is None:
        sets: dict[str, Any] = {"coverage": None, "reason": why}
    else:
        sets = {**range_coverage_over_folds(units.y, units.p[:, 0], units.stratum, alpha), "of": "ranges"}
    return {
        "estimates": OUT_OF_FOLD if out_of_fold else FIXED,
        "probabilities": None,
        "no_probability": "numbers are predicted without a probability: there is nothing to calibrate, to decide at a "
        "risk, or to abstain by",
        "calibration": [],
        "decision": [],
        "abstention": None,
        "sets": sets,
    }


def _one_label(units: Units, t: int, truth: Float[ndarray, "n t"]) -> Units:
    known = ~np.isnan(truth[:, t])
    part, p = units.only(known), units.p[known, t]
    return replace(part, y=truth[known, t].astype(np.int64), p=np.stack([1 - p, p], axis=1))


def _acted(units: Units, corrected: Units | None) -> tuple[Float[ndarray, "n k"], str]:
    """The probabilities that are acted on, and which they are. Where too few patients taught anything, the corrected
    ones are the raw ones."""
    if corrected is None or np.allclose(corrected.p, units.p, rtol=0, atol=1e-12):
        return units.p, "raw"
    return corrected.p, "recalibrated"


def _both(raw: Float[ndarray, "n k"], acted: Float[ndarray, "n k"], which: str) -> list[Float[ndarray, "n k"]]:
    return [acted] if which == "raw" else [acted, raw]


def _decision(
    name: str,
    positive: Bool[ndarray, n],
    raw: Float[ndarray, n],
    acted: Float[ndarray, n],
    which: str,
    patient: ndarray,
) -> dict[str, Any]:
    beside = {} if which == "raw" else {"raw": decision_curve(positive, raw, patient)}
    curve = decision_curve(positive, acted, patient)
    return {"class": name, "interval": HOW, "probabilities": which, "curve": curve, **beside}


def _abstention(
    acted: tuple[Float[ndarray, n], Bool[ndarray, n]],
    raw: tuple[Float[ndarray, n], Bool[ndarray, n]] | None = None,
    *,
    patient: ndarray,
) -> dict[str, Any] | None:
    """Confidence and whether it was wrong, by what is acted on; `raw_aurc` is the area by raw probabilities."""
    found = risk_coverage(*acted, patient)
    if found is not None and raw is not None:
        found["raw_aurc"] = (risk_coverage(*raw, patient) or {}).get("aurc")
    return found


def _sets(
    units: Units, classes: Sequence[str], *, out_of_fold: bool, alpha: float, ordered: bool = False
) -> dict[str, Any]:
    why = _not_apart(units, out_of_fold=out_of_fold)
    if why or units.stratum is None:
        return {"coverage": None, "reason": why}
    found = coverage_over_folds(units.y, units.p, units.stratum, alpha, ordered=ordered)
    return {**found, "counts": units.counts(classes)}


def _not_apart(units: Units, *, out_of_fold: bool) -> str:
    """Why calibration and test units would not be apart; empty where they are."""
    if not out_of_fold:
        return "sets of other patients are calibrated on the run's own out-of-fold predictions"
    if units.stratum is None:
        return "patients are tested in several folds: no fold's predictions are apart from the others'"
    if len(np.unique(units.patient.astype(str))) < len(units):
        return "several slides of a patient: calibration and test slides would not be apart"
    return ""
