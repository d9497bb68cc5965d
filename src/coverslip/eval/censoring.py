"""Curves of times that may be censored: survival, censoring, cumulative incidence. Small, so that nothing is needed.

Of equal times an event comes before a censoring: who is censored at a time was still at risk at it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.special import ndtri


@dataclass(frozen=True)
class Curve:
    """A step curve: `value` holds from `time` on (before the first time it is `start`), `low` and `high` are its
    pointwise 95 % limits, `at_risk` counts who was still followed at each time."""

    time: Float[ndarray, m]
    value: Float[ndarray, m]
    low: Float[ndarray, m]
    high: Float[ndarray, m]
    at_risk: Int[ndarray, m]
    start: float = 1.0

    def at(self, times: Float[ndarray, g]) -> Float[ndarray, g]:
        """The curve at these times."""
        place = np.searchsorted(self.time, times, side="right")
        return np.concatenate([[self.start], self.value])[place]


def kaplan_meier(time: Float[ndarray, n], event: Bool[ndarray, n], *, confidence: float = 0.95) -> Curve:
    """The survival curve (Kaplan and Meier 1958, https://doi.org/10.2307/2281868), one step an event time.

    Limits are on the scale of log(-log S) with Greenwood's variance (Kalbfleisch and Prentice 1980), so that they stay
    between 0 and 1; NaN where the curve is 0.
    """
    moments, deaths, at_risk = _moments(time, np.asarray(event, bool))
    value = np.cumprod(1 - deaths / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(deaths / (at_risk * (at_risk - deaths))) / np.log(value) ** 2
        half = ndtri(0.5 + confidence / 2) * np.sqrt(variance)
        loglog = np.log(-np.log(value))
        low, high = np.exp(-np.exp(loglog + half)), np.exp(-np.exp(loglog - half))
    return Curve(moments, value, low, high, at_risk)


def still_followed(time: Float[ndarray, n], event: Bool[ndarray, n], at: Float[ndarray, g]) -> Float[ndarray, g]:
    """G(t), the chance not to be censored up to a time: the Kaplan-Meier curve of censoring, at times `at`."""
    censored = ~np.asarray(event, bool)
    moments, lost, at_risk = _moments(time, censored)
    # Events of the same time are gone before anyone is censored.
    died = np.sort(time[~censored])
    dead = np.searchsorted(died, moments, side="right") - np.searchsorted(died, moments, side="left")
    value = np.cumprod(1 - lost / (at_risk - dead)) if len(moments) else np.zeros(0)
    return np.concatenate([[1.0], value])[np.searchsorted(moments, at, side="right")]


def cumulative_incidence(time: Float[ndarray, n], event: Int[ndarray, n], cause: int) -> Curve:
    """The chance that the cause has come, other causes being in its way (Aalen and Johansen 1978,
    https://www.jstor.org/stable/4615704), one step a time with an event. Its limits are NaN."""
    moments, deaths, at_risk = _moments(time, event > 0)
    survival = np.cumprod(1 - deaths / at_risk)
    before = np.concatenate([[1.0], survival[:-1]]) if len(moments) else survival
    mine = np.array([((event == cause) & (time == moment)).sum() for moment in moments])
    value = np.cumsum(before * mine / at_risk) if len(moments) else survival
    nothing = np.full(len(moments), np.nan)
    return Curve(moments, value, nothing, nothing, at_risk, start=0.0)


def drawn_survival(
    time: Float[ndarray, n], event: Bool[ndarray, n], weights: Float[ndarray, "r n"], at: Float[ndarray, g]
) -> Float[ndarray, "r g"]:
    """The Kaplan-Meier curve at times `at` for each row of weights: how often each unit was drawn."""
    moments = np.unique(time[event])
    moments = moments[moments <= np.max(at, initial=0.0)]
    if not len(moments):
        return np.ones((len(weights), len(at)))
    deaths = weights @ ((time[:, None] == moments) & event[:, None]).astype(float)
    at_risk = weights @ (time[:, None] >= moments).astype(float)
    steps = np.cumprod(1 - np.divide(deaths, at_risk, out=np.zeros_like(deaths), where=at_risk > 0), axis=1)
    steps = np.concatenate([np.ones((len(weights), 1)), steps], axis=1)
    return steps[:, np.searchsorted(moments, at, side="right")]


def _moments(
    time: Float[ndarray, n], which: Bool[ndarray, n]
) -> tuple[Float[ndarray, m], Int[ndarray, m], Int[ndarray, m]]:
    """The times of those in `which`, how many each has, and how many of all were still followed then."""
    moments, hits = np.unique(time[which], return_counts=True)
    at_risk = len(time) - np.searchsorted(np.sort(time), moments, side="left")
    return moments, hits, at_risk
