"""Resampling of patients: BCa for any figure, and one draw of patients across all folds where folds overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import ndtr, ndtri

from coverslip.eval.interval import NO_SPREAD, SAME, Interval, resampled_weights, strata_of
from coverslip.eval.metrics import plain, weighted
from coverslip.eval.reduce import Units

# A figure for each row of weights, NaN where it cannot be computed: what `coverslip.eval.metrics.weighted` gives.
Statistic = Callable[[Float[ndarray, "r n"]], Float[ndarray, "r"]]
_BLOCK = 4_000_000


def bca(
    statistic: Statistic,
    groups: Sequence[str] | ndarray,
    y: Int[ndarray, n] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    how: str | None = None,
) -> Interval:
    """A figure with the bias-corrected and accelerated interval of resampled patients.

    `groups` names the patient of each unit, drawn whole; with `y` they are drawn within the same classes, so that every
    resample has the classes of the sample. `statistic` takes weights (r, n), how often each unit was drawn. The
    acceleration is from leaving out each patient in turn, within the strata (Efron 1987,
    https://doi.org/10.1080/01621459.1987.10478410; several samples: Davison and Hinkley 1997, section 5.4).

    None where the figure cannot be computed, or where every resample gives the same.
    """
    how = how or f"these fitted models, test patients resampled, BCa, {resamples}, {confidence:.0%}"
    if not len(groups):
        return Interval(None, None, None, how, reason="nobody to count")
    value = plain(float(statistic(np.ones((1, len(groups))))[0]))
    if value is None:
        return Interval(None, None, None, how, reason="cannot be computed on these patients")
    draws = np.concatenate([statistic(block) for block in resampled_weights(groups, y, resamples, seed)])
    known = draws[~np.isnan(draws)]
    undefined = resamples - len(known)
    if not len(known) or np.ptp(known) < SAME:
        return Interval(value, None, None, how, undefined, NO_SPREAD)
    below = (known < value - SAME).mean() + (np.abs(known - value) <= SAME).mean() / 2
    # All draws on one side of the figure: as far as this many draws can tell.
    bias = float(ndtri(np.clip(below, 0.5 / len(known), 1 - 0.5 / len(known))))
    acceleration = _acceleration(statistic, value, groups, y)
    tails = bias + ndtri([0.5 - confidence / 2, 0.5 + confidence / 2])
    low, high = np.quantile(known, ndtr(bias + tails / (1 - acceleration * tails)))
    return Interval(value, max(bounds[0], float(low)), min(bounds[1], float(high)), how, undefined)


def across_folds(
    metric: str,
    folds: Sequence[Units],
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """The mean of the folds' figures, with patients drawn once across all folds: for folds that overlap.

    A patient who is tested in several folds is drawn as often in each of them, so the folds move together as they do in
    truth. Within a fold only its own patients are compared. It says what other test patients would have done to these
    fitted models; it does not know what other training patients would have changed. A fold that cannot be computed in a
    resample leaves that resample out.
    """
    how = f"mean of {len(folds)} folds, these fitted models, patients drawn once across all folds, {resamples}"
    how += f", {confidence:.0%}"
    known = [units for units in folds if not np.isnan(weighted(metric, units.y, units.p, np.ones((1, len(units))))[0])]
    if not known:
        return Interval(None, None, None, how, reason=f"{metric} cannot be computed in any fold")
    patients, first = np.unique(np.concatenate([units.patient.astype(str) for units in known]), return_index=True)
    place = [np.searchsorted(patients, units.patient.astype(str)) for units in known]

    def mean_of_folds(weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
        return np.mean([weighted(metric, units.y, units.p, weights[:, at]) for units, at in zip(known, place)], axis=0)

    value = float(mean_of_folds(np.ones((1, len(patients))))[0])
    outcome = np.concatenate([units.y for units in known])[first]
    draws = np.concatenate([mean_of_folds(block) for block in resampled_weights(patients, outcome, resamples, seed)])
    usable = draws[~np.isnan(draws)]
    undefined = resamples - len(usable)
    if not len(usable) or np.ptp(usable) < SAME:
        return Interval(value, None, None, how, undefined, NO_SPREAD)
    if undefined > resamples / 2:
        return Interval(value, None, None, how, undefined, f"{metric} is undefined in most resamples of some fold")
    low, high = np.quantile(usable, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(value, float(low), float(high), how, undefined)


def _acceleration(
    statistic: Statistic, value: float, groups: Sequence[str] | ndarray, y: Int[ndarray, n] | None
) -> float:
    """A sixth of the skewness of the figure, from what each patient adds to it."""
    patient_of, strata = strata_of(groups, y)
    size = np.empty(int(patient_of.max()) + 1)
    for members in strata:
        size[members] = len(members)
    left_out = np.concatenate([statistic(block) for block in without_each(patient_of)])
    adds = np.nan_to_num((size - 1) * (value - left_out))
    spread = ((adds / size) ** 2).sum()
    return float(((adds / size) ** 3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0


def without_each(patient_of: Int[ndarray, n]) -> Iterator[Float[ndarray, "r n"]]:
    """Blocks of rows that leave out each patient in turn."""
    num_patients = int(patient_of.max()) + 1
    rows = max(1, _BLOCK // len(patient_of))
    for start in range(0, num_patients, rows):
        patients = np.arange(start, min(start + rows, num_patients))
        yield (patient_of[None, :] != patients[:, None]).astype(np.float64)
