"""AUROC of a fixed test cohort: one model, one score a patient. The interval, DeLong's variance and the paired test.

Scores of different folds are on different scales, so nothing here is for out-of-fold scores put together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.special import ndtri
from scipy.stats import rankdata
from scipy.stats import t as student

from coverslip.base.errors import TableError
from coverslip.eval.bootstrap import bca
from coverslip.eval.interval import Interval
from coverslip.eval.metrics import weighted

# Patients are resampled where this many are in the smaller class, and this many of them are as good as misplaced
# (their number times 1 - AUROC). With fewer a resample rarely meets the few patients that the figure hangs on.
RESAMPLED_FROM = 50
MISPLACED_FROM = 10
# Under this many in a class the interval is shown with a warning.
FEW = 5
# Whom few patients do not show: the one in fifty whom the model ranks like a toss-up, .6 of a patient at
# most. Cohorts that happen to lack them have an AUROC that is too high and a variance that is too small; without them
# intervals covered 90 to 93 % where the smaller class scatters wider or a part of it looks like the other.
UNSEEN, UNSEEN_PATIENTS = 0.02, 0.6
# Near 0 and 1 Newcombe's variance is next to nothing, and the stretch would have no bounds: the variance is taken where
# .3 of a patient of the smaller class are misplaced, within these limits.
NEAREST_PATIENTS, NEAREST = 0.3, (0.0075, 0.0125)


@dataclass(frozen=True)
class Placements:
    """An AUROC, and how much each patient pulls it up or down (DeLong, DeLong and Clarke-Pearson 1988).

    `positive` and `negative` (g,) hold, for each patient, the sum of the placements of his positive and of his negative
    units, less the AUROC, over the number of units in the class. `patients` counts those with a positive and with a
    negative unit; `effective` counts them as if all had as many units.
    """

    auroc: float
    positive: Float[ndarray, g]
    negative: Float[ndarray, g]
    patients: tuple[int, int]
    effective: tuple[float, float]


def auroc_interval(
    positive: Bool[ndarray, n],
    score: Float[ndarray, n],
    groups: Sequence[str] | ndarray | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """AUROC of a fixed cohort, with an interval for other patients of its kind.

    In small cohorts Newcombe's method 5, widened where DeLong's variance is the larger; in large ones BCa over
    patients: from 50 in the smaller class, of whom at least 10 are as good as misplaced, their number times 1 - AUROC.
    `groups` names the patient of each unit where units are slides; then patients count, not slides. Under 5 in a class
    the interval stands with a warning as its `reason`; without one of the classes all is None.

    Raises:
        TableError: a score is NaN or infinite.
    """
    positive, score = _checked(positive, score)
    patients = np.arange(len(score)).astype(str) if groups is None else np.asarray(groups, dtype=str)
    if positive.all() or not positive.any():
        how = f"Newcombe's method 5, {confidence:.0%}"
        return Interval(None, None, None, how, reason="AUROC needs patients of both classes")
    found = placements(positive, score, patients)
    scarce = min(found.patients)
    if scarce >= RESAMPLED_FROM and scarce * min(found.auroc, 1 - found.auroc) >= MISPLACED_FROM:
        y, p = positive.astype(np.int64), np.stack([-score, score], axis=1)
        return bca(
            lambda weights: weighted("auroc", y, p, weights),
            patients,
            y,
            resamples=resamples,
            seed=seed,
            confidence=confidence,
        )
    stretch = _stretch(found, confidence)
    low, high = newcombe(found.auroc, *found.effective, confidence=confidence, stretch=stretch)
    widened = ", widened to DeLong's variance" if stretch > 1 else ""
    reason = f"only {scarce} in the smaller class: a hint, no evidence" if scarce < FEW else ""
    return Interval(found.auroc, low, high, f"Newcombe's method 5{widened}, {confidence:.0%}", reason=reason)


def newcombe(
    auroc: float, num_positive: float, num_negative: float, *, confidence: float = 0.95, stretch: float = 1.0
) -> tuple[float, float]:
    """Limits of an AUROC by Newcombe's method 5: within 0 to 1, and never without a width.

    The limits θ solve |auroc - θ| = z sqrt(V(θ)) with Hanley and McNeil's variance, made the same for both classes:
    V(θ) = θ(1-θ) / (m n) [1 + N (1-θ)/(2-θ) + N θ/(1+θ)], N = (m + n)/2 - 1
    (Newcombe 2006, https://doi.org/10.1002/sim.2324). `stretch` multiplies V.
    """
    assert num_positive > 0 and num_negative > 0
    shared = (num_positive + num_negative) / 2 - 1
    return newcombe_of_pairs(auroc, num_positive * num_negative, shared, confidence, stretch)


def newcombe_of_pairs(
    value: float, pairs: float, shared: float, confidence: float = 0.95, stretch: float = 1.0
) -> tuple[float, float]:
    """`newcombe` for a share of any pairs in the right order: m n is the number of pairs, N the others with whom a pair
    shares a patient, averaged over its two. Pairs within folds are fewer than m n, and share fewer."""
    assert 0 <= value <= 1 and pairs > 0 and stretch >= 1
    z2 = stretch * float(ndtri(0.5 + confidence / 2)) ** 2

    def inside(theta: float) -> bool:
        return (value - theta) ** 2 <= z2 * _variance_of_pairs(theta, pairs, shared)

    return _edge(value, 0.0, inside), _edge(value, 1.0, inside)


def placements(
    positive: Bool[ndarray, n], score: Float[ndarray, n], groups: Sequence[str] | ndarray | None = None
) -> Placements:
    """What DeLong's method needs, by ranks; ties count half. Both classes must be there."""
    positive, score = _checked(positive, score)
    m, n = int(positive.sum()), int((~positive).sum())
    assert m and n, "both classes must be there"
    among_all = rankdata(score)
    # The share of the other class that a unit is on the right side of.
    v10 = (among_all[positive] - rankdata(score[positive])) / n
    v01 = 1 - (among_all[~positive] - rankdata(score[~positive])) / m
    auroc = float(v10.mean())
    _, patient_of = np.unique(np.arange(len(score)) if groups is None else np.asarray(groups), return_inverse=True)
    num_patients = int(patient_of.max()) + 1
    units = [np.bincount(patient_of[which], minlength=num_patients) for which in (positive, ~positive)]
    return Placements(
        auroc,
        np.bincount(patient_of[positive], (v10 - auroc) / m, num_patients),
        np.bincount(patient_of[~positive], (v01 - auroc) / n, num_patients),
        (int((units[0] > 0).sum()), int((units[1] > 0).sum())),
        # Kish: patients who bring most of the slides count for fewer than they are.
        (float(m**2 / (units[0] ** 2).sum()), float(n**2 / (units[1] ** 2).sum())),
    )


def delong_variance(
    positive: Bool[ndarray, n], score: Float[ndarray, n], groups: Sequence[str] | ndarray | None = None
) -> float | None:
    """DeLong's variance of an AUROC; None with fewer than two patients in a class.

    DeLong, DeLong and Clarke-Pearson 1988, https://doi.org/10.2307/2531595; where `groups` give several units to a
    patient, Obuchowski 1997, https://doi.org/10.2307/2533958.
    """
    found = placements(positive, score, groups)
    return None if min(found.patients) < 2 else sum(_variance_parts(found))


def delong_difference(first: Placements, second: Placements) -> tuple[float, float, float]:
    """First minus second AUROC on the same patients, its variance, and Welch's degrees of freedom."""
    assert first.patients == second.patients
    both = Placements(
        first.auroc - second.auroc,
        first.positive - second.positive,
        first.negative - second.negative,
        first.patients,
        first.effective,
    )
    parts = _variance_parts(both)
    return both.auroc, max(0.0, sum(parts)), _degrees_of_freedom(both, parts)


def _variance_parts(found: Placements) -> tuple[float, float, float]:
    """Variance from drawing positives, from drawing negatives, and twice their covariance within patients."""
    with_positive, with_negative = found.patients
    shared = float((found.positive * found.negative).sum())
    num_patients = len(found.positive)
    return (
        float((found.positive**2).sum()) * with_positive / max(with_positive - 1, 1),
        float((found.negative**2).sum()) * with_negative / max(with_negative - 1, 1),
        2 * shared * num_patients / max(num_patients - 1, 1),
    )


def _degrees_of_freedom(found: Placements, parts: tuple[float, float, float]) -> float:
    """Welch and Satterthwaite's, as in the test of Brunner and Munzel: a variance from few patients is uncertain."""
    spread = parts[0] ** 2 / max(found.patients[0] - 1, 1) + parts[1] ** 2 / max(found.patients[1] - 1, 1)
    return max(1.0, (parts[0] + parts[1]) ** 2 / spread) if spread > 0 else 1.0


def _stretch(found: Placements, confidence: float) -> float:
    m, n = found.effective
    return stretch_over(found, m * n, (m + n) / 2 - 1, confidence)


def stretch_over(found: Placements, pairs: float, shared: float, confidence: float) -> float:
    """How much larger DeLong's variance is than Newcombe's of these pairs; at least 1.

    Newcombe's V takes the classes to scatter alike. Where the rarer one scatters twice as far it is too small by up to
    a half, and the interval would cover 86 % instead of 95. DeLong's variance is taken twice, and the larger ratio
    counts: as it is; and with the patients whom few do not show, one in fifty of each class who are ranked like
    toss-ups, .6 of a patient at most.
    """
    if min(found.patients) < 2:
        return 1.0
    parts = _variance_parts(found)
    tail = 0.5 + confidence / 2
    uncertain = float(student.ppf(tail, _degrees_of_freedom(found, parts)) / ndtri(tail)) ** 2
    delong, assumed = sum(parts) * uncertain, _variance_of_pairs(found.auroc, pairs, shared)
    toss_up = (found.auroc - 0.5) ** 2
    unseen = sum(min(UNSEEN, UNSEEN_PATIENTS / number) * toss_up / number for number in found.effective)
    edge = min(max(NEAREST_PATIENTS / min(found.effective), NEAREST[0]), NEAREST[1])
    bounded = _variance_of_pairs(min(max(found.auroc, edge), 1 - edge), pairs, shared)
    return max(1.0, delong / assumed if assumed > 0 else 1.0, (delong + unseen) / bounded)


def hanley_mcneil(theta: float, m: float, n: float) -> float:
    return _variance_of_pairs(theta, m * n, (m + n) / 2 - 1)


def _variance_of_pairs(theta: float, pairs: float, shared: float) -> float:
    return theta * (1 - theta) / pairs * (1 + shared * (1 - theta) / (2 - theta) + shared * theta / (1 + theta))


def _edge(inner: float, outer: float, inside: Callable[[float], bool]) -> float:
    """The last value on the way from `inner` to `outer` that is inside, by halving to the last digit."""
    if inner == outer:
        return outer
    for _ in range(100):
        middle = (inner + outer) / 2
        inner, outer = (middle, outer) if inside(middle) else (inner, middle)
    return inner


def _checked(positive: ndarray, score: ndarray) -> tuple[Bool[ndarray, n], Float[ndarray, n]]:
    positive, score = np.asarray(positive, dtype=bool), np.asarray(score, dtype=np.float64)
    assert positive.shape == score.shape and score.ndim == 1, (positive.shape, score.shape)
    wrong = np.flatnonzero(~np.isfinite(score))
    if len(wrong):
        raise TableError(
            f"Scores, row {wrong[0]}: {score[wrong[0]]} is no number; {len(wrong)} of {len(score)} rows.",
            fix="A score is a finite number: look for NaN in the features or the loss.",
        )
    return positive, score
