"""Classification metrics of arrays, plain or for thousands of resamples at once.

Each metric is written once, with weights: row r of `weights` (r, n) says how often each of the n units was drawn in
resample r, and a plain metric is the case of one row of ones. Two classes: the second is the positive one. More:
macro averages of one class against the rest, every class counting the same.

A metric that cannot be computed (a class without a unit) is None, in resamples NaN; never a crash, never a guess.

auroc               area under the ROC curve by ranks; a tie counts half (Mann-Whitney)
auprc               average precision: sum of precision times the step in recall, no interpolation
balanced_accuracy   mean recall of the classes
f1                  of the positive class; more than two classes: mean of the classes' f1
brier               mean (p - y)² of the positive class, 0 to 1; more than two classes: summed over classes, 0 to 2
                    (Brier 1950, https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2)
ece                 expected calibration error in bins of equal numbers (`bins_of`): |mean p - observed fraction|,
                    weighted by the units in a bin. Two classes: of the positive class's probability; more: of the
                    predicted class's (Guo et al. 2017, https://arxiv.org/abs/1706.04599). It cannot be 0 by chance in
                    small samples: with 50 units a perfectly calibrated model shows about .1.
accuracy            fraction whose most probable class is the true one

The decision is the most probable class (two classes: over .5); a tie goes to the class named first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from coverslip.base.errors import TableError

# Bins hold the same number of units: ten of them, and at least this many units in each.
MOST_BINS = 10
LEAST_IN_BIN = 10
# Probabilities that passed through half precision or a CSV of few digits do not sum to 1 exactly.
SUM_TOLERANCE = 0.01


def classification_metrics(
    y: Int[ndarray, n], p: Float[ndarray, "n k"], classes: Sequence[str]
) -> dict[str, float | None]:
    """Every metric by name, None where it cannot be computed.

    `y` are class numbers, `p` probabilities in the order of `classes`.

    Raises:
        TableError: NaN, a value outside 0 to 1, or a row that does not sum to 1.
    """
    y, p = checked(y, p, classes)
    ones = np.ones((1, len(y)))
    return {name: plain(float(weighted(name, y, p, ones)[0])) for name in METRICS}


def weighted(
    name: str,
    y: Int[ndarray, n],
    p: Float[ndarray, "n k"],
    weights: Float[ndarray, "r n"],
    *,
    strata: Sequence[Int[ndarray, m]] | None = None,
) -> Float[ndarray, r]:
    """One metric for each row of weights; NaN where a row lacks what the metric needs.

    `strata` are the places of the units of each fold: auroc and auprc then rank units of one fold alone; auroc counts
    the pairs of all folds together, auprc the positives.
    """
    if not len(y):
        return np.full(len(weights), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        if name in _WITHIN and strata is not None:
            return _one_against_rest(partial(_WITHIN[name], strata=strata), y, p, weights)
        return METRICS[name](y, p, weights)


def auroc_within(
    positive: Bool[ndarray, n],
    score: Float[ndarray, n],
    weights: Float[ndarray, "r n"],
    *,
    strata: Sequence[Int[ndarray, m]],
) -> Float[ndarray, r]:
    """AUROC of pairs that stand in one stratum (fold), the pairs of all strata counted together."""
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for places in strata:
        hits, count = ranked_pairs(positive[places], score[places], weights[:, places])
        right, pairs = right + hits, pairs + count
    return np.divide(right, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def auprc_within(
    positive: Bool[ndarray, n],
    score: Float[ndarray, n],
    weights: Float[ndarray, "r n"],
    *,
    strata: Sequence[Int[ndarray, m]],
) -> Float[ndarray, r]:
    """Average precision of positives that are ranked among the units of their own stratum (fold).

    A stratum counts by its positives; one without a class has no ranking and is left out.
    """
    total, counted = np.zeros(len(weights)), np.zeros(len(weights))
    for places in strata:
        with np.errstate(divide="ignore", invalid="ignore"):
            area = auprc_of(positive[places], score[places], weights[:, places])
        positives = np.where(np.isnan(area), 0, weights[:, places] @ positive[places].astype(float))
        total, counted = total + np.nan_to_num(area) * positives, counted + positives
    return np.divide(total, counted, out=np.full(len(weights), np.nan), where=counted > 0)


def bounds(name: str, num_classes: int) -> tuple[float, float]:
    """Lowest and highest value the metric can take."""
    return 0.0, 2.0 if name == "brier" and num_classes > 2 else 1.0


def plain(value: float) -> float | None:
    """The number, or None for NaN: what JSON wants."""
    return None if np.isnan(value) else float(value)


def checked(
    y: Int[ndarray, n], p: Float[ndarray, "n k"], classes: Sequence[str], rows: Sequence[str] | None = None
) -> tuple[Int[ndarray, n], Float[ndarray, "n k"]]:
    """`y` as int64 and `p` as float64, checked; `rows` name the rows in errors.

    Raises:
        TableError: NaN, a value outside 0 to 1, or a row that does not sum to 1.
    """
    y = np.asarray(y, dtype=np.int64)
    p = np.asarray(p, dtype=np.float64)
    assert p.shape == (len(y), len(classes)) and len(classes) >= 2, (y.shape, p.shape, classes)
    assert not len(y) or (y.min() >= 0 and y.max() < len(classes)), "class numbers outside the classes"
    for wrong, what in (
        (~np.isfinite(p).all(axis=1), "is not a number"),
        ((p < 0).any(axis=1) | (p > 1).any(axis=1), "lies outside 0 to 1"),
        (np.abs(p.sum(axis=1) - 1) > SUM_TOLERANCE, "does not add up to 1 over the classes"),
    ):
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            name = rows[first] if rows is not None else f"row {first}"
            values = ", ".join(f"p_{c}={v:g}" for c, v in zip(classes, p[first]))
            raise TableError(
                f"Predictions, {name}: a probability {what} ({values}); {int(wrong.sum())} of {len(p)} rows.",
                fix="Probabilities are finite, from 0 to 1, and sum to 1: look for NaN in the features or the loss.",
                code="bad_probability",
            )
    return y, p


def decisions(p: Float[ndarray, "n k"]) -> Int[ndarray, n]:
    """The most probable class of each row; a tie goes to the class named first."""
    return np.argmax(p, axis=1)


def bins_of(stated: Float[ndarray, n]) -> Int[ndarray, n]:
    """The bin of each unit, 0 upwards: bins of equal numbers, ten at most; equal probabilities share a bin."""
    num_bins = int(np.clip(len(stated) // LEAST_IN_BIN, 1, MOST_BINS))
    _, inverse, counts = np.unique(stated, return_inverse=True, return_counts=True)
    # All of a tie take the place of its middle, so that the bin does not depend on the order of rows.
    middle = np.cumsum(counts) - (counts + 1) / 2
    _, packed = np.unique((middle * num_bins // max(len(stated), 1))[inverse], return_inverse=True)
    return packed


def _auroc(y: ndarray, p: ndarray, weights: ndarray) -> ndarray:
    return _one_against_rest(_auroc_of_class, y, p, weights)


def _auprc(y: ndarray, p: ndarray, weights: ndarray) -> ndarray:
    return _one_against_rest(auprc_of, y, p, weights)


def _one_against_rest(
    metric: Callable[[ndarray, ndarray, ndarray], ndarray], y: ndarray, p: ndarray, weights: ndarray
) -> ndarray:
    if p.shape[1] == 2:
        return metric(y == 1, p[:, 1], weights)
    return np.mean([metric(y == k, p[:, k], weights) for k in range(p.shape[1])], axis=0)


def _auroc_of_class(positive: ndarray, score: ndarray, weights: ndarray) -> ndarray:
    right, pairs = ranked_pairs(positive, score, weights)
    return right / pairs


def ranked_pairs(
    positive: Bool[ndarray, n], score: Float[ndarray, n], weights: Float[ndarray, "r n"]
) -> tuple[Float[ndarray, r], Float[ndarray, r]]:
    """Pairs of a positive and a negative that are ranked right (a tie counts half), and all pairs."""
    positives, negatives = _tie_groups(positive, score, weights)
    below = np.cumsum(negatives, axis=1) - negatives
    return (positives * (below + negatives / 2)).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1)


def auprc_of(positive: ndarray, score: ndarray, weights: ndarray) -> ndarray:
    """Average precision of one class against the rest, for each row of weights."""
    positives, negatives = _tie_groups(positive, -score, weights)
    hits = np.cumsum(positives, axis=1)
    called = hits + np.cumsum(negatives, axis=1)
    # Before the first drawn unit nothing is called positive; such a step has no weight either.
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    total = positives.sum(axis=1)
    area = (positives * precision).sum(axis=1) / total
    return np.where(negatives.sum(axis=1) > 0, area, np.nan)


def _tie_groups(positive: ndarray, score: ndarray, weights: ndarray) -> tuple[ndarray, ndarray]:
    """Weights (r, g) of positives and negatives for each distinct score, lowest first."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf) > 0)
    sorted_weights = weights[:, order]
    positives = sorted_weights * positive[order]
    negatives = sorted_weights - positives
    if len(starts) == len(order):
        return positives, negatives
    return np.add.reduceat(positives, starts, axis=1), np.add.reduceat(negatives, starts, axis=1)


def _balanced_accuracy(y: ndarray, p: ndarray, weights: ndarray) -> ndarray:
    decided = decisions(p)
    recalls = [
        (weights @ ((y == k) & (decided == k)).astype(float)) / (weights @ (y == k).astype(float))
        for k in range(p.shape[1])
    ]
    return np.mean(recalls, axis=0)


def _f1(y: ndarray, p: ndarray, weights: ndarray) -> ndarray:
    decided = decisions(p)
    scores = []
    for k in range(1, 2) if p.shape[1] == 2 else range(p.shape[1]):
        true = weights @ (y == k).astype(float)
        called = weights @ (decided == k).astype(float)
        hits = weights @ ((y == k) & (decided == k)).astype(float)
        # Without a true case every f1 would be 0, whatever the model does: not computed.
        scores.append(np.where(true > 0, 2 * hits / (true + called), np.nan))
    return np.mean(scores, axis=0)


def _brier(y: ndarray, p: ndarray, weights: ndarray) -> ndarray:
    truth = np.eye(p.shape[1])[y]
    squares = (p[:, 1] - truth[:, 1]) ** 2 if p.shape[1] == 2 else ((p - truth) ** 2).sum(axis=1)
    return weights @ squares / weights.sum(axis=1)


def _ece(y: ndarray, p: ndarray, weights: ndarray) -> ndarray:
    decided = decisions(p)
    stated, true = (p[:, 1], y == 1) if p.shape[1] == 2 else (p[np.arange(len(p)), decided], decided == y)
    found = np.full(len(weights), np.nan)
    for r, row in enumerate(weights):
        # Bins hold equal numbers of what was drawn, so each draw has bins of its own.
        drawn = np.repeat(np.arange(len(y)), row.astype(np.int64))
        if len(drawn):
            found[r] = np.abs(np.bincount(bins_of(stated[drawn]), (stated - true)[drawn])).sum() / len(drawn)
    return found


def _accuracy(y: ndarray, p: ndarray, weights: ndarray) -> ndarray:
    return weights @ (decisions(p) == y).astype(float) / weights.sum(axis=1)


METRICS: dict[str, Callable[[ndarray, ndarray, ndarray], ndarray]] = {
    "auroc": _auroc,
    "auprc": _auprc,
    "balanced_accuracy": _balanced_accuracy,
    "f1": _f1,
    "brier": _brier,
    "ece": _ece,
    "accuracy": _accuracy,
}
# Those that rank: models of different folds have different scales.
_WITHIN = {"auroc": auroc_within, "auprc": auprc_within}
LOWER_IS_BETTER = frozenset({"brier", "ece"})
