"""May the probabilities be acted on? Calibration, decision curves, abstention and prediction sets, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coverslip.eval.abstention import risk_coverage
from coverslip.eval.calibration import calibration
from coverslip.eval.conformal import coverage_over_folds
from coverslip.eval.decision import HOW, decision_curve
from coverslip.eval.metrics import decisions
from coverslip.eval.reduce import Units

OUT_OF_FOLD = (
    "out-of-fold predictions of all folds together: these fitted models on average. Each fold's model has a scale of "
    "its own; a model made of all of them, or of more patients, may be better or worse calibrated. Intervals know of "
    "other test patients, not of other training patients."
)
FIXED = "the model as it stands, on these patients: intervals are for other patients of their kind."


def trust(units: Units, classes: Sequence[str], *, out_of_fold: bool, seed: int = 0) -> dict[str, Any]:
    """Calibration, decision curves, abstention and, of a cross-validation, the coverage of conformal sets at 95 %.

    `estimates` says whose figures these are. Two classes: of the second; more: each class against the rest. `units.y`
    are class numbers, `units.p` their probabilities.
    """
    y, p, patient = units.y, units.p, units.patient
    positives = [1] if len(classes) == 2 else range(len(classes))
    return {
        "estimates": OUT_OF_FOLD if out_of_fold else FIXED,
        "calibration": calibration(y, p, classes, patient, seed=seed),
        "decision": [
            {"class": classes[k], "interval": HOW, "curve": decision_curve(y == k, p[:, k], patient)} for k in positives
        ],
        "abstention": risk_coverage(p.max(axis=1), decisions(p) != y, patient) if len(units) else None,
        "sets": _sets(units, classes, out_of_fold=out_of_fold),
    }


def _sets(units: Units, classes: Sequence[str], *, out_of_fold: bool) -> dict[str, Any]:
    why = ""
    if not out_of_fold:
        why = "sets of other patients are calibrated on the run's own out-of-fold predictions"
    elif units.stratum is None:
        why = "patients are tested in several folds: no fold's predictions are apart from the others'"
    elif len(np.unique(units.patient.astype(str))) < len(units):
        why = "several slides of a patient: calibration and test slides would not be apart"
    if why or units.stratum is None:
        return {"coverage": None, "reason": why}
    found = coverage_over_folds(units.y, units.p, units.stratum)
    return {**found, "counts": units.counts(classes)}
