"""Conformal prediction: sets of classes, or ranges of values, that hold the truth as often as stated.

The promise needs patients who are alike (exchangeable): the calibration patients, and those to be predicted. It is an
average over calibrations and patients, not for each patient. Calibration patients must neither have trained the model
nor stopped its training. `alpha` is the share that may be missed, .05 for 95 %.

split      calibrated on patients that no part of the model has seen: at least 1 - alpha
CV+        calibrated on the out-of-fold predictions of a cross-validation, whose models all predict the new patient:
           promises 1 - 2 alpha, gives about 1 - alpha (Barber et al. 2021, https://arxiv.org/abs/1905.02928)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.stats import beta

from coverslip.base.errors import TableError
from coverslip.eval.proportion import proportion

FORMAT = "coverslip.conformal/1"
# (n + 1)(1 - alpha) of 19 patients is 19 and not 19.000000000000004.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ConformalSets:
    """Thresholds for prediction sets: a class is in the set where 1 - its probability is at most its threshold.

    `thresholds` and `counts` have an entry a class; a threshold of 1 lets the class into every set, as it must where
    too few patients were there to rule it out (19 for 95 %).
    """

    alpha: float
    by_class: bool
    thresholds: tuple[float, ...]
    counts: tuple[int, ...]

    def sets(self, p: Float[ndarray, "m k"]) -> Bool[ndarray, "m k"]:
        """True where the class is in the patient's set. A set may be empty: no class fits, so abstain."""
        return 1 - np.asarray(p, dtype=np.float64) <= np.array(self.thresholds)

    def spread(self, confidence: float = 0.9) -> list[tuple[float, float]]:
        """For each class (or once, for all together), how far the coverage of one such calibration varies.

        It follows a beta distribution (Vovk 2012, https://arxiv.org/abs/1209.2673): this is what "95 %" means with so
        few patients.
        """
        tails = [0.5 - confidence / 2, 0.5 + confidence / 2]
        found = []
        for n in self.counts if self.by_class else self.counts[:1]:
            rank = _rank(n, self.alpha)
            ends = (1.0, 1.0) if rank > n else beta.ppf(tails, rank, n + 1 - rank)
            found.append((float(ends[0]), float(ends[1])))
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "alpha": self.alpha,
            "by_class": self.by_class,
            "thresholds": list(self.thresholds),
            "counts": list(self.counts),
            "promise": f"at least {1 - self.alpha:.0%} on average" + (", in each class" if self.by_class else ""),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ConformalSets:
        """
        Raises:
            TableError: not conformal sets of a format that is known.
        """
        if found.get("format") != FORMAT:
            raise TableError(f"Conformal sets of format {found.get('format')!r}.", fix=f"Accepted: {FORMAT!r}.")
        counts = tuple(int(n) for n in found["counts"])
        return cls(float(found["alpha"]), bool(found["by_class"]), tuple(map(float, found["thresholds"])), counts)


def split_conformal(
    y: Int[ndarray, n], p: Float[ndarray, "n k"], alpha: float = 0.05, *, by_class: bool = True
) -> ConformalSets:
    """Sets calibrated on patients that the model has not seen, one row each.

    `by_class` promises the coverage in every class, so that a rare class is not the one that is missed; a class with
    fewer than 1/alpha - 1 patients is then in every set. Otherwise the promise is over all classes together.

    Vovk et al. 2005; by class: Vovk 2012, https://arxiv.org/abs/1209.2673.
    """
    y, p = _checked(y, p, alpha)
    strange = 1 - p[np.arange(len(y)), y] if len(y) else np.zeros(0)
    num_classes = p.shape[1]
    members = [strange[y == k] for k in range(num_classes)] if by_class else [strange] * num_classes
    thresholds = tuple(_threshold(scores, alpha) for scores in members)
    return ConformalSets(alpha, by_class, thresholds, tuple(len(scores) for scores in members))


def cv_plus_sets(
    y: Int[ndarray, n],
    p: Float[ndarray, "n k"],
    fold: Int[ndarray, n],
    new: Float[ndarray, "f m k"],
    alpha: float = 0.05,
    *,
    by_class: bool = True,
    ordered: bool = False,
) -> Bool[ndarray, "m k"]:
    """CV+ sets of new patients: True where the class is in the set. Promises 1 - 2 alpha, on average.

    `y`, `p` and `fold` are out-of-fold predictions, one row a patient; `new` are the probabilities that the model of
    each fold gives the new patients. A class is left out where it looks stranger, to the models that did not see them,
    than enough of the calibration patients did (Romano, Sesia and Candès 2020, https://arxiv.org/abs/2006.02544).
    `ordered` classes are levels: how strange one is, is how far it lies from the median (`not_beyond`), and sets have
    no gaps.
    """
    y, p = _checked(y, p, alpha)
    if ordered:
        p, new = not_beyond(p), not_beyond(new)
    strange = 1 - p[np.arange(len(y)), y]
    inside = np.ones(new.shape[1:], dtype=bool)
    for k in range(p.shape[1]):
        members = np.flatnonzero(y == k) if by_class else np.arange(len(y))
        stranger = (strange[members][:, None] < (1 - new[:, :, k])[fold[members]]).sum(axis=0)
        inside[:, k] = stranger < (1 - alpha) * (len(members) + 1) - _ROUNDING
    return without_gaps(inside) if ordered else inside


def not_beyond(p: Float[ndarray, "*n k"]) -> Float[ndarray, "*n k"]:
    """For each level the smaller of P(y <= level) and P(y >= level): half and more at the median, falling on both sides
    of it. Sets of levels that are high enough in it lie around the median, without gaps, as sets of ordered labels
    should (after Lu, Angelopoulos and Pomerantz 2022, https://arxiv.org/abs/2207.02238)."""
    upto = np.cumsum(p, axis=-1)
    # The last sum is 1 but for rounding, and nothing is beyond the ends.
    return np.clip(np.minimum(upto, 1 - upto + p), 0.0, 1.0)


def without_gaps(inside: Bool[ndarray, "m k"]) -> Bool[ndarray, "m k"]:
    """All levels between the lowest and the highest of each set. Limits that differ by level can leave a gap; filling
    it only adds, so what a set promises it keeps."""
    from_below = np.logical_or.accumulate(inside, axis=1)
    from_above = np.logical_or.accumulate(inside[:, ::-1], axis=1)[:, ::-1]
    filled: Bool[ndarray, "m k"] = from_below & from_above
    return filled


def cv_plus_interval(
    residual: Float[ndarray, n], fold: Int[ndarray, n], new: Float[ndarray, "f m"], alpha: float = 0.05
) -> tuple[Float[ndarray, m], Float[ndarray, m]]:
    """CV+ limits of a number for new patients. Promises 1 - 2 alpha, on average; infinite with too few patients.

    `residual` is the out-of-fold |truth - prediction| of each patient, `fold` whose model made it, `new` what the model
    of each fold predicts for the new patients.
    """
    _checked_alpha(alpha)
    if not np.isfinite(residual).all():
        raise TableError("Residuals to calibrate on hold NaN.", fix="Leave patients without a value out.")
    n = len(residual)
    rank = _rank(n, alpha)
    if rank > n:
        return np.full(new.shape[1], -np.inf), np.full(new.shape[1], np.inf)
    centre = new[fold]
    low = np.sort(centre - residual[:, None], axis=0)[n - rank]
    high = np.sort(centre + residual[:, None], axis=0)[rank - 1]
    return low, high


def coverage_over_folds(
    y: Int[ndarray, n],
    p: Float[ndarray, "n k"],
    fold: Int[ndarray, n],
    alpha: float = 0.05,
    *,
    by_class: bool = True,
    ordered: bool = False,
) -> dict[str, Any]:
    """How often sets hold the truth in a cross-validation: the average over folds with its spread, and the sets' sizes.

    Each fold's patients get sets calibrated on the out-of-fold predictions of the other folds. Their models are others,
    so this is an estimate of what `split_conformal` gives and no promise. `coverage` is null without two folds.
    `ordered` classes are levels, whose sets have no gaps, as in `cv_plus_sets`.
    """
    y, p = _checked(y, p, alpha)
    if ordered:
        p = not_beyond(p)
    inside = np.zeros(p.shape, dtype=bool)
    folds = np.unique(fold)
    for f in folds if len(folds) > 1 else []:
        calibrated = split_conformal(y[fold != f], p[fold != f], alpha, by_class=by_class)
        inside[fold == f] = calibrated.sets(p[fold == f])
    inside = without_gaps(inside) if ordered else inside
    if len(folds) < 2:
        return {"aim": 1 - alpha, "by_class": by_class, "coverage": None, "reason": "needs two folds"}
    right, size = inside[np.arange(len(y)), y], inside.sum(axis=1)
    by_fold = [float(right[fold == f].mean()) for f in folds]
    return {
        "aim": 1 - alpha,
        "by_class": by_class,
        "coverage": _over_folds(by_fold),
        "classes": [proportion(int(right[y == k].sum()), int((y == k).sum())).to_json() for k in range(p.shape[1])],
        "set_size": float(size.mean()),
        "one_class": float((size == 1).mean()),
        "every_class": float((size == p.shape[1]).mean()),
        "empty": float((size == 0).mean()),
    }


def range_coverage_over_folds(
    y: Float[ndarray, n], p: Float[ndarray, n], fold: Int[ndarray, n], alpha: float = 0.05
) -> dict[str, Any]:
    """How often ranges hold the true number in a cross-validation, and how wide they are; beside `coverage_over_folds`.

    Each fold's patients get their prediction give or take what the other folds' misses |y - p| are under in all but a
    share alpha. `half_width` (units of the target) is the mean over folds; null where fewer than 1 / alpha - 1 other
    patients set no limit for some fold: its ranges hold every number (`unlimited` is their share).
    """
    _checked_alpha(alpha)
    folds = np.unique(fold)
    if len(folds) < 2:
        return {"aim": 1 - alpha, "coverage": None, "reason": "needs two folds"}
    miss = np.abs(np.asarray(y, dtype=np.float64) - p)
    reach = []
    for f in folds:
        others = np.sort(miss[fold != f])
        rank = _rank(len(others), alpha)
        reach.append(np.inf if rank > len(others) else float(others[rank - 1]))
    by_fold = [float((miss[fold == f] <= r).mean()) for f, r in zip(folds, reach)]
    finite = bool(np.isfinite(reach).all())
    return {
        "aim": 1 - alpha,
        "coverage": _over_folds(by_fold),
        "half_width": float(np.mean(reach)) if finite else None,
        "unlimited": float(np.isinf(np.array(reach)[np.searchsorted(folds, fold)]).mean()),
        "reason": None,
    }


def _over_folds(shares: list[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(shares)), "sd": float(np.std(shares, ddof=1)), "folds": shares}


def _threshold(scores: Float[ndarray, n], alpha: float) -> float:
    rank = _rank(len(scores), alpha)
    return 1.0 if rank > len(scores) else float(np.sort(scores)[rank - 1])


def _rank(n: int, alpha: float) -> int:
    """Which of n sorted calibration scores is the limit; over n where there are too few to set one."""
    return int(np.ceil((n + 1) * (1 - alpha) - _ROUNDING))


def _checked_alpha(alpha: float) -> None:
    assert 0 < alpha < 1, "alpha is the share that may be missed, between 0 and 1"


def _checked(y: ndarray, p: ndarray, alpha: float) -> tuple[Int[ndarray, n], Float[ndarray, "n k"]]:
    _checked_alpha(alpha)
    y, p = np.asarray(y, dtype=np.int64), np.asarray(p, dtype=np.float64)
    if not np.isfinite(p).all():
        raise TableError("Predictions to calibrate on hold NaN.", fix="Look for NaN in the features or the loss.")
    return y, p
