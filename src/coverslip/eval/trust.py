"""May the probabilities be acted on? Calibration, decision curves, abstention and prediction sets, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

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
    # Where too few patients taught anything, the corrected ones are the raw ones.
    acted = units.p if corrected is None or np.allclose(corrected.p, units.p, rtol=0, atol=1e-12) else corrected.p
    which = "raw" if acted is units.p else "recalibrated"
    positives = [1] if len(classes) == 2 else range(len(classes))

    def curves(k: int) -> dict[str, Any]:
        raw = {} if which == "raw" else {"raw": decision_curve(y == k, p[:, k], patient)}
        return {"curve": decision_curve(y == k, acted[:, k], patient), **raw}

    def abstention(stated: Float[ndarray, "n k"]) -> dict[str, Any] | None:
        return risk_coverage(stated.max(axis=1), decisions(stated) != y, patient)

    sure = abstention(acted) if len(units) else None
    if sure is not None and which != "raw":
        sure |= {"raw_aurc": (abstention(p) or {}).get("aurc")}
    return {
        "estimates": OUT_OF_FOLD if out_of_fold else FIXED,
        "probabilities": which,
        "calibration": calibration(y, p, classes, patient, seed=seed),
        "decision": [{"class": classes[k], "interval": HOW, "probabilities": which, **curves(k)} for k in positives],
        "abstention": sure,
        "sets": _sets(units, classes, out_of_fold=out_of_fold, alpha=alpha),
    }


def _sets(units: Units, classes: Sequence[str], *, out_of_fold: bool, alpha: float) -> dict[str, Any]:
    why = ""
    if not out_of_fold:
        why = "sets of other patients are calibrated on the run's own out-of-fold predictions"
    elif units.stratum is None:
        why = "patients are tested in several folds: no fold's predictions are apart from the others'"
    elif len(np.unique(units.patient.astype(str))) < len(units):
        why = "several slides of a patient: calibration and test slides would not be apart"
    if why or units.stratum is None:
        return {"coverage": None, "reason": why}
    found = coverage_over_folds(units.y, units.p, units.stratum, alpha)
    return {**found, "counts": units.counts(classes)}
