"""Is one method better than another? One pre-declared reference, one metric, one family of tests.

Across folds: the corrected t of Nadeau and Bengio on paired differences. On a fixed cohort: the paired test of DeLong.
Holm's correction is over one family, all methods against the reference; choosing the reference after the figures were
seen, or testing every pair, makes the p-values worthless. Subgroups are a family of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.stats import t as student

from coverslip.base.errors import SettingsError
from coverslip.eval.auroc_interval import FEW, delong_difference, placements
from coverslip.eval.folds import FoldSize
from coverslip.eval.interval import LEAST_FOLDS, SAME, Interval, nadeau_bengio
from coverslip.eval.metrics import LOWER_IS_BETTER


@dataclass(frozen=True)
class Difference:
    """One method against the reference: the difference with its interval, and p before and after Holm's correction.

    `difference` is method minus reference. p is None where no test is possible; `difference.reason` says why.
    """

    method: str
    value: float | None
    difference: Interval
    statistic: float | None
    p: float | None
    p_holm: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "value": self.value,
            "difference": self.difference.to_json(),
            "statistic": self.statistic,
            "p": self.p,
            "p_holm": self.p_holm,
        }


@dataclass(frozen=True)
class Comparison:
    """All methods against one reference on one metric: what `coverslip compare` and the report print."""

    metric: str
    reference: str
    reference_value: float | None
    test: str
    differences: tuple[Difference, ...]
    confidence: float = 0.95

    @property
    def family(self) -> str:
        """What Holm's correction is over, in words."""
        n = len(self.differences)
        return f"{n} {'method' if n == 1 else 'methods'} against {self.reference} on {self.metric}"

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "better": "lower" if self.metric in LOWER_IS_BETTER else "higher",
            "reference": {"method": self.reference, "value": self.reference_value},
            "test": self.test,
            "family": self.family,
            "methods": [difference.to_json() for difference in self.differences],
        }

    def sentences(self) -> list[str]:
        """The comparison in words, a sentence a method; what is not shown to differ is not called equal."""
        return [self._sentence(difference) for difference in self.differences]

    def _sentence(self, found: Difference) -> str:
        gap = found.difference
        if gap.value is None:
            return f"{found.method}: cannot be compared with {self.reference} ({gap.reason})."
        said = f"{found.method}: {self.metric} {gap.value:+.3f} against {self.reference}"
        if found.p_holm is None or gap.low is None or gap.high is None:
            return f"{said}; no test ({gap.reason})."
        said += f" ({gap.low:+.3f} to {gap.high:+.3f}), p {_p(found.p_holm)} after Holm's correction"
        if found.p_holm > 1 - self.confidence:
            return f"{said}: no difference shown."
        return f"{said}: {'better' if (gap.value > 0) != (self.metric in LOWER_IS_BETTER) else 'worse'}."


def compare_folds(
    metric: str,
    reference: str,
    values: Mapping[str, Sequence[float | None]],
    sizes: Sequence[FoldSize],
    *,
    bounds: tuple[float, float] = (-1.0, 1.0),
    confidence: float = 0.95,
) -> Comparison:
    """Methods that were trained and tested on the same folds, each against `reference`.

    `values` has, for each method, the metric of each fold in the order of `sizes`, None where it could not be computed;
    such folds are left out of the pair. `bounds` are those of a difference.

    Raises:
        SettingsError: the reference is not among the methods, or a method has another number of folds.
    """
    _reference_is_there(reference, values)
    for method, found in values.items():
        if len(found) != len(sizes):
            raise SettingsError(
                f"{method} has figures of {len(found)} folds and the split has {len(sizes)}.",
                fix="Methods are compared on the same folds.",
            )
    theirs = values[reference]
    differences = []
    for method in (name for name in values if name != reference):
        pairs = [
            (ours - base, size)
            for ours, base, size in zip(values[method], theirs, sizes)
            if ours is not None and base is not None
        ]
        differences.append(
            corrected_t(
                [gap for gap, _ in pairs],
                [size.train for _, size in pairs],
                [size.test for _, size in pairs],
                method=method,
                value=_mean(values[method]),
                bounds=bounds,
                confidence=confidence,
            )
        )
    test = "corrected t on paired fold differences (Nadeau and Bengio 2003)"
    return Comparison(metric, reference, _mean(theirs), test, _holm_over(differences), confidence)


def compare_scores(
    reference: str,
    scores: Mapping[str, Float[ndarray, n]],
    positive: Bool[ndarray, n],
    groups: Sequence[str] | ndarray | None = None,
    *,
    confidence: float = 0.95,
) -> Comparison:
    """AUROCs of fitted models on one fixed cohort, each against `reference`, by the paired test of DeLong.

    `scores` has one score a unit for each method; `groups` names the patient of each unit where units are slides.

    Raises:
        SettingsError: the reference is not among the methods.
        TableError: a score is NaN or infinite.
    """
    _reference_is_there(reference, scores)
    differences = [
        paired_delong(positive, scores[method], scores[reference], groups, method=method, confidence=confidence)
        for method in scores
        if method != reference
    ]
    both = bool(np.any(positive)) and not bool(np.all(positive))
    value = placements(positive, scores[reference], groups).auroc if both else None
    test = "paired DeLong on a fixed cohort, t with Welch's degrees of freedom"
    return Comparison("auroc", reference, value, test, _holm_over(differences), confidence)


def corrected_t(
    differences: Sequence[float],
    n_train: float | Sequence[float],
    n_test: float | Sequence[float],
    *,
    method: str = "",
    value: float | None = None,
    bounds: tuple[float, float] = (-1.0, 1.0),
    confidence: float = 0.95,
) -> Difference:
    """The test that goes with `nadeau_bengio`: mean difference of J folds, t with J - 1 degrees of freedom, two-sided.

    The variance s²(1/J + n_test/n_train) knows that folds share training patients (Nadeau and Bengio 2003,
    https://doi.org/10.1023/A:1024068626366; repeated folds: Bouckaert and Frank 2004). Fewer than `LEAST_FOLDS` folds
    allow no test (of two, the error rate is twice what is stated), nor do folds that all differ by the same.
    """
    how = f"mean of folds, paired, Nadeau-Bengio, {confidence:.0%}"
    gaps = np.asarray(differences, dtype=np.float64)
    found = nadeau_bengio(gaps.tolist(), n_train, n_test, confidence=confidence, bounds=bounds, how=how)
    if len(gaps) < LEAST_FOLDS or np.ptp(gaps) < SAME:
        few = f"{len(gaps)} {'fold' if len(gaps) == 1 else 'folds'} in common, {LEAST_FOLDS} are needed"
        why = few if len(gaps) < LEAST_FOLDS else "every fold differs by the same"
        return Difference(method, value, replace(found, reason=why), None, None)
    ratio = float(np.mean(np.asarray(n_test, dtype=np.float64) / np.asarray(n_train, dtype=np.float64)))
    t = float(gaps.mean() / np.sqrt(gaps.var(ddof=1) * (1 / len(gaps) + ratio)))
    return Difference(method, value, found, t, float(2 * student.sf(abs(t), len(gaps) - 1)))


def paired_delong(
    positive: Bool[ndarray, n],
    score: Float[ndarray, n],
    reference: Float[ndarray, n],
    groups: Sequence[str] | ndarray | None = None,
    *,
    method: str = "",
    confidence: float = 0.95,
) -> Difference:
    """Two AUROCs on the same patients of a fixed cohort (DeLong et al. 1988, https://doi.org/10.2307/2531595).

    `statistic` is DeLong's z; p and interval take it for t with Welch's degrees of freedom, since the variance comes
    from as few patients as the smaller class has. Models that order every patient alike differ by 0 with p 1 and no
    interval. Never for out-of-fold scores put together: folds share training patients and have scales of their own.

    Raises:
        TableError: a score is NaN or infinite.
    """
    how = f"paired DeLong, {confidence:.0%}"
    positive = np.asarray(positive, dtype=bool)
    if positive.all() or not positive.any():
        empty = Interval(None, None, None, how, reason="AUROC needs patients of both classes")
        return Difference(method, None, empty, None, None)
    ours, theirs = placements(positive, score, groups), placements(positive, reference, groups)
    gap, variance, freedom = delong_difference(ours, theirs)
    scarce = min(ours.patients)
    if scarce < 2 or variance <= 1e-24:
        same = scarce >= 2 and gap == 0
        why = "one patient in a class" if scarce < 2 else "the difference has no spread over patients"
        return Difference(method, ours.auroc, Interval(gap, None, None, how, reason=why), None, 1.0 if same else None)
    error = float(np.sqrt(variance))
    half = float(student.ppf(0.5 + confidence / 2, freedom)) * error
    reason = f"only {scarce} in the smaller class: a hint, no evidence" if scarce < FEW else ""
    interval = Interval(gap, max(-1.0, gap - half), min(1.0, gap + half), how, reason=reason)
    return Difference(method, ours.auroc, interval, gap / error, float(2 * student.sf(abs(gap / error), freedom)))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for being one family (Holm 1979, https://www.jstor.org/stable/4615733).

    A test that could not be made stays None and counts: it was planned.
    """
    order = sorted((value, i) for i, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * value))
        corrected[i] = largest
    return corrected


def _holm_over(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    corrected = holm([difference.p for difference in differences])
    return tuple(replace(difference, p_holm=p) for difference, p in zip(differences, corrected))


def _reference_is_there(reference: str, methods: Mapping[str, object]) -> None:
    if reference not in methods:
        raise SettingsError(
            f"The reference {reference!r} is not among the methods.", fix=f"Accepted: {', '.join(methods)}."
        )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
