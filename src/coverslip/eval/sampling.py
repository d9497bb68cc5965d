"""How far a mean over folds would move with other test patients: the least width that its interval must have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.stats import t as student

from coverslip.eval.bootstrap import without_each
from coverslip.eval.interval import SAME, strata_of
from coverslip.eval.reduce import Units

# A figure of one fold's units for each row of weights; NaN where it cannot be computed.
FoldFigure = Callable[[Units, Float[ndarray, "r n"]], Float[ndarray, "r"]]


def sampling_half_width(
    figure: FoldFigure, folds: Sequence[Units], groups: Int[ndarray, n], *, confidence: float = 0.95
) -> float | None:
    """Half the width that other test patients alone give to the mean over folds of a figure; None: one decides it all.

    The jackknife: each patient is left out of every fold that tests them, and a fold that has no figure then is left
    out of the mean, as it would have been. Of an AUROC in one fold it is DeLong's variance. It is rather too wide than
    too narrow (Efron and Stein 1981, https://doi.org/10.1214/aos/1176345462), also where a class has three patients, of
    whom resamples would say too little. `groups` has, for the units of all folds one after another, what patients are
    drawn within (their class); where a group has one patient, all are taken together. The quantile is Student's with
    Welch's degrees of freedom over the groups. It knows nothing of what other training patients would have changed.
    """
    patients = np.concatenate([units.patient.astype(str) for units in folds])
    _, strata = strata_of(patients, groups)
    if min(len(members) for members in strata) == 1:
        _, strata = strata_of(patients, None)
    names = np.unique(patients)
    table = np.empty((len(names), len(folds)))
    # A fold of one patient has nobody left without them: nothing over nothing is no figure, and no fault.
    with np.errstate(divide="ignore", invalid="ignore"):
        for j, units in enumerate(folds):
            table[:, j] = figure(units, np.ones((1, len(units))))[0]
            here, of = np.unique(units.patient.astype(str), return_inverse=True)
            left_out = [figure(units, block) for block in without_each(of.reshape(-1))]
            table[np.searchsorted(names, here), j] = np.concatenate(left_out)
    known = ~np.isnan(table)
    if not known.any(axis=1).all():
        return None
    means = np.where(known, table, 0).sum(axis=1) / known.sum(axis=1)
    parts = [
        ((len(of) - 1) / len(of) * float(((means[of] - means[of].mean()) ** 2).sum()), len(of) - 1)
        for of in strata
        if len(of) > 1
    ]
    variance = sum(part for part, _ in parts)
    if variance <= SAME**2:
        return 0.0
    freedom = max(1.0, variance**2 / sum(part**2 / df for part, df in parts))
    return float(student.ppf(0.5 + confidence / 2, freedom)) * float(np.sqrt(variance))
