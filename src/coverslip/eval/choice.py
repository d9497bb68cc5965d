"""Which of several methods to choose, and how much of their order is noise. Never the largest figure as such.

The best of several methods has a figure that is too good, and on one cohort most differences between good methods are
noise. So the choice asks what was shown, and what a method costs: it begins at the reference that was declared before,
and leaves it for what is shown to be better, or for what is cheaper and not shown to be worse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from coverslip.eval.compare import Comparison, Difference
from coverslip.eval.folds import FoldSize
from coverslip.eval.interval import Interval, nadeau_bengio


@dataclass(frozen=True)
class Price:
    """What a method costs: numbers of its model, and processor or device seconds to train one fold, None unknown."""

    parameters: int | None
    seconds: float | None


@dataclass(frozen=True)
class Choice:
    """The method to take, why, and why not the others: sentences. None where nothing can be said."""

    method: str | None
    reasons: tuple[str, ...]
    others: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method, "reasons": list(self.reasons), "others": list(self.others)}


def mean_ranks(
    values: Mapping[str, Sequence[float | None]], sizes: Sequence[FoldSize], *, confidence: float = 0.95
) -> dict[str, Interval]:
    """The mean over folds of each method's rank, 1 the highest figure, ties shared; intervals as for any fold figure.

    Folds in which a method has no figure are left out for all; a method without any figure is not ranked. There is no
    critical difference as Demšar (2006, https://www.jmlr.org/papers/v7/demsar06a.html) draws it over data sets:
    Nemenyi's takes the rows for independent, and folds share their training patients. The interval is that of Nadeau
    and Bengio instead, which knows it.
    """
    ranked = {name: found for name, found in values.items() if any(value is not None for value in found)}
    common = [place for place in range(len(sizes)) if all(found[place] is not None for found in ranked.values())]
    if not ranked or not common:
        return {}
    table = np.array([[found[place] for place in common] for found in ranked.values()], dtype=np.float64)
    ranks = rankdata(-table, axis=0)
    return {
        name: nadeau_bengio(
            row.tolist(),
            [sizes[place].train for place in common],
            [sizes[place].test for place in common],
            confidence=confidence,
            bounds=(1.0, float(len(ranked))),
            how=f"mean rank over {len(common)} folds, Nadeau-Bengio, {confidence:.0%}",
        )
        for name, row in zip(ranked, ranks)
    }


def shown_worse(found: Difference, confidence: float = 0.95) -> bool:
    """True where a method is worse than the reference after Holm's correction. For figures of which more is better."""
    return _shown(found, confidence) and (found.difference.value or 0) < 0


def shown_better(found: Difference, confidence: float = 0.95) -> bool:
    """True where a method is better than the reference after Holm's correction."""
    return _shown(found, confidence) and (found.difference.value or 0) > 0


def choose(
    comparison: Comparison, baseline: Comparison, prices: Mapping[str, Price], *, margin: float, level: str
) -> Choice:
    """The method to take, for figures of which more is better (all headlines are).

    Where methods are shown to be better than the reference, the cheapest of them. Else the cheapest of the reference
    and of those that are not shown to be worse and whose mean lies at most `margin` below it: with few folds hardly
    anything is shown, and a mean far below the reference is no accident to build on. Cheap is few parameters; of as
    many, the reference, then few seconds, for a second more or less is no reason to leave what was declared.
    `baseline` has the methods against the linear model, `level` is what is counted: patient or slide.
    """
    reference, metric = comparison.reference, comparison.metric
    if comparison.reference_value is None:
        return Choice(None, (f"{reference}, the declared reference, has no {metric}: nothing can be chosen.",), ())
    found = {one.method: one for one in comparison.differences}
    better = [name for name, one in found.items() if shown_better(one, comparison.confidence)]
    fit = [name for name, one in found.items() if _no_worse(one, margin, comparison.confidence)]
    chosen = min(better or [reference, *fit], key=lambda name: _dearness(prices.get(name), declared=name == reference))
    reasons = [_why(chosen, found, bool(better), prices, comparison)]
    if chosen != reference and chosen not in better:
        gap = found[chosen].difference
        if gap.low is not None and gap.low < 0:
            reasons.append(
                f"Not shown to be worse is not shown to be equal: a loss of up to {-gap.low:.3f} {metric} against "
                f"{reference} is not ruled out by these {level}s."
            )
    reasons.append(_against_baseline(chosen, baseline))
    others = [
        _why_not(name, chosen, found.get(name), bool(better), fit, prices, margin, comparison)
        for name in [reference, *found]
        if name != chosen
    ]
    return Choice(chosen, tuple(reasons), tuple(others))


def noise(comparison: Comparison) -> str:
    """How much of the order of the methods is noise, in plain words."""
    metric, reference = comparison.metric, comparison.reference
    tested = [one for one in comparison.differences if one.p_holm is not None]
    if not tested:
        return f"No difference could be tested, so the order of the methods in {metric} says nothing."
    shown = [one for one in tested if _shown(one, comparison.confidence)]
    same = [one for one in tested if one not in shown]
    how_many = {0: "none is", 1: "1 is"}.get(len(shown), f"{len(shown)} are")
    said = (
        f"Of {len(tested)} {'method' if len(tested) == 1 else 'methods'} tested against {reference}, {how_many} shown "
        "to differ after Holm's correction."
    )
    if not same:
        return said
    means = [float(one.difference.value or 0) for one in same]
    halves = [(high - low) / 2 for one in same for low, high in _limits(one.difference)]
    half = float(np.median(halves)) if halves else float("nan")
    spread = max([*means, 0.0]) - min([*means, 0.0])
    return (
        f"{said} The rest and {reference} lie within {spread:.3f} {metric} of one another, and an interval of a "
        f"difference reaches {half:.3f} to either side: other folds, seeds or patients would give them another order."
    )


def _shown(found: Difference, confidence: float) -> bool:
    return found.p_holm is not None and found.p_holm <= 1 - confidence


def _no_worse(found: Difference, margin: float, confidence: float) -> bool:
    gap = found.difference.value
    tested = found.p_holm is not None or (gap == 0 and found.value is not None)
    return tested and gap is not None and gap >= -margin and not shown_worse(found, confidence)


def _dearness(price: Price | None, *, declared: bool) -> tuple[float, bool, float]:
    unknown = float("inf")
    if price is None:
        return unknown, not declared, unknown
    return (
        unknown if price.parameters is None else float(price.parameters),
        not declared,
        unknown if price.seconds is None else price.seconds,
    )


def _why(
    chosen: str,
    found: Mapping[str, Difference],
    better: bool,
    prices: Mapping[str, Price],
    comparison: Comparison,
) -> str:
    reference, metric = comparison.reference, comparison.metric
    if better:
        gap = found[chosen].difference
        only = "the cheapest method that is" if len(found) > 1 else "it is"
        return f"{chosen}: {only} shown to be better than {reference} ({metric} {_span(gap)})."
    if chosen == reference:
        return f"{chosen}: the declared reference; nothing is shown to be better, and nothing cheaper comes as near."
    gap = found[chosen].difference
    return (
        f"{chosen}: the cheapest method that is not shown to be worse than {reference} ({metric} {_span(gap)}): "
        f"{_cost(prices.get(chosen))}, against {_cost(prices.get(reference))}."
    )


def _why_not(
    name: str,
    chosen: str,
    one: Difference | None,
    better: bool,
    fit: Sequence[str],
    prices: Mapping[str, Price],
    margin: float,
    comparison: Comparison,
) -> str:
    reference, confidence = comparison.reference, comparison.confidence
    if one is None:
        return f"{name}: the reference; {chosen} is {'shown to be better' if better else 'cheaper'}."
    gap = one.difference
    if gap.value is None:
        return f"{name}: has no figure to be compared."
    if shown_worse(one, confidence):
        return f"{name}: shown to be worse than {reference} ({_span(gap)})."
    if shown_better(one, confidence):
        return f"{name}: shown to be better than {reference} too, and dearer ({_cost(prices.get(name))})."
    if better:
        return f"{name}: not shown to be better than {reference} ({_span(gap)})."
    if name in fit:
        return f"{name}: no difference to {reference} is shown ({_span(gap)}), and it is dearer: " + (
            f"{_cost(prices.get(name))}."
        )
    if gap.value < -margin:
        return (
            f"{name}: its mean lies {-gap.value:.3f} below {reference}, more than the margin of {margin:g} "
            "(compare.margin), though no difference is shown."
        )
    return f"{name}: could not be tested ({gap.reason or 'no interval'})."


def _against_baseline(chosen: str, baseline: Comparison) -> str:
    one = next((one for one in baseline.differences if one.method == chosen), None)
    if one is None or one.difference.value is None or one.p_holm is None:
        return f"Whether it beats the {baseline.reference} baseline could not be tested."
    gap = _span(one.difference)
    if shown_better(one, baseline.confidence):
        return f"It is shown to beat the {baseline.reference} baseline ({gap})."
    if shown_worse(one, baseline.confidence):
        return f"The {baseline.reference} baseline is shown to be better ({gap}): ask what the method is for."
    return (
        f"It is not shown to beat the {baseline.reference} baseline ({gap}): on this cohort the mean and spread of the "
        "features may do as well, and what the method adds is its maps."
    )


def _span(gap: Interval) -> str:
    return "".join([f"{gap.value:+.3f}", *(f", {low:+.3f} to {high:+.3f}" for low, high in _limits(gap))])


def _limits(gap: Interval) -> list[tuple[float, float]]:
    """Low and high, where there are any."""
    return [] if gap.low is None or gap.high is None else [(gap.low, gap.high)]


def _cost(price: Price | None) -> str:
    if price is None or price.parameters is None:
        return "cost unknown"
    seconds = "" if price.seconds is None else f" and {price.seconds:.3g} s a fold"
    return f"{price.parameters:,} parameters{seconds}"
