"""Cox's proportional hazards with a ridge, small and exact: the baseline for times.

The partial likelihood (Cox 1972, https://doi.org/10.1111/j.2517-6161.1972.tb00899.x), ties as Breslow (1974,
https://doi.org/10.2307/2529620) takes them, minus half the penalty times the squared length of the coefficients,
climbed by Newton's method to the top: the penalised likelihood has one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.linalg import cho_factor, cho_solve

_STEPS = 100
_CLOSE = 1e-12
# Linear predictors beyond this are a coefficient on its way to infinity; exp of them would overflow.
_FARTHEST = 50.0


@dataclass(frozen=True)
class Hazard:
    """The cumulative baseline hazard: `value` from `time` on, 0 before the first."""

    time: Float[ndarray, m]
    value: Float[ndarray, m]

    def at(self, times: Float[ndarray, g]) -> Float[ndarray, g]:
        """The cumulative hazard at these times."""
        return np.concatenate([[0.0], self.value])[np.searchsorted(self.time, times, side="right")]


@dataclass(frozen=True)
class CoxRidge:
    """A fitted model: the log hazard ratio against the training patients' mean is `(x - centre) @ coefficients`.

    `hazard` is Breslow's cumulative baseline hazard at that mean.
    """

    coefficients: Float[ndarray, e]
    centre: Float[ndarray, e]
    hazard: Hazard

    @classmethod
    def fit(
        cls, x: Float[ndarray, "n e"], time: Float[ndarray, n], event: Bool[ndarray, n], *, penalty: float
    ) -> CoxRidge:
        """The model of these patients. `penalty` is on the log-likelihood as a sum over patients, and is above 0, so
        that there is an answer whatever the data: without events, or with one, the coefficients are 0 or near it."""
        assert penalty > 0, penalty
        order = np.argsort(-np.asarray(time, dtype=np.float64), kind="stable")
        centre = x.mean(axis=0)
        rows, time, event = (x - centre)[order], np.asarray(time, dtype=np.float64)[order], np.asarray(event)[order]
        # With more columns than patients the answer lies in the span of the rows: fewer numbers to look for.
        basis = np.linalg.svd(rows, full_matrices=False)[2] if rows.shape[1] > len(rows) else np.eye(rows.shape[1])
        z = rows @ basis.T
        last = np.searchsorted(-time, -time, side="right") - 1  # the last of those followed as long, ties with it
        beta = np.zeros(z.shape[1])
        value = _penalised(beta, z, event, last, penalty)
        for _ in range(_STEPS):
            gradient, hessian = _slopes(beta, z, event, last, penalty)
            step = cho_solve(cho_factor(hessian), gradient)
            size = 1.0
            while (better := _penalised(beta + size * step, z, event, last, penalty)) < value and size > _CLOSE:
                size /= 2
            beta, before, value = beta + size * step, value, max(value, better)
            if np.abs(size * step).max(initial=0.0) < _CLOSE * max(1.0, np.abs(beta).max(initial=0.0)):
                break
            if value - before < _CLOSE * _CLOSE * max(1.0, abs(value)):
                break
        coefficients = basis.T @ beta
        return cls(coefficients, centre, _breslow(rows @ coefficients, time, event, last))

    def risk(self, x: Float[ndarray, "m e"]) -> Float[ndarray, m]:
        """The log hazard ratio of these patients."""
        return (x - self.centre) @ self.coefficients


def _sums(eta: Float[ndarray, n], last: ndarray) -> Float[ndarray, n]:
    """For each patient the sum of exp(eta) over those still followed at their time."""
    return np.cumsum(np.exp(np.clip(eta, -_FARTHEST, _FARTHEST)))[last]


def _penalised(beta: ndarray, z: ndarray, event: ndarray, last: ndarray, penalty: float) -> float:
    eta = z @ beta
    return float((eta - np.log(_sums(eta, last)))[event].sum() - penalty / 2 * beta @ beta)


def _slopes(
    beta: ndarray, z: ndarray, event: ndarray, last: ndarray, penalty: float
) -> tuple[Float[ndarray, e], Float[ndarray, "e e"]]:
    """Gradient of the penalised likelihood, and its curvature with the sign turned."""
    eta = z @ beta
    w = np.exp(np.clip(eta, -_FARTHEST, _FARTHEST))
    sums = np.cumsum(w)[last]
    means = (np.cumsum(w[:, None] * z, axis=0)[last] / sums[:, None])[event]
    # How much each patient stands in the sums of all events: sum over events of w / sum.
    share = np.zeros(len(z) + 1)
    np.add.at(share, last[event], 1 / sums[event])
    share = w * np.cumsum(share[:-1][::-1])[::-1]
    gradient = z[event].sum(axis=0) - share @ z - penalty * beta
    hessian = (z * share[:, None]).T @ z - means.T @ means
    return gradient, hessian + penalty * np.eye(len(beta))


def _breslow(eta: ndarray, time: ndarray, event: ndarray, last: ndarray) -> Hazard:
    steps = (1 / _sums(eta, last))[event]
    moments, place = np.unique(time[event], return_inverse=True)
    return Hazard(moments, np.cumsum(np.bincount(place, weights=steps, minlength=len(moments))))
