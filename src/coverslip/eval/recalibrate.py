"""Recalibration: learnt on inner out-of-fold predictions, kept with a model, applied by `predict`.

The predictions to learn from must be of patients that neither trained the model nor stopped its training; else the
model looks calibrated there and is not elsewhere. How much is learnt depends on how many patients there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.isotonic import IsotonicRegression

from coverslip.base.errors import SettingsError, TableError

Method = Literal["none", "temperature", "platt", "isotonic", "venn_abers"]

# Patients from whom each method learns: one number, two numbers, a whole curve.
TEMPERATURE_FROM = 20
PLATT_FROM = 80
CURVE_FROM = 200
# Patients of the smallest class that a shift of the intercept is learnt from; with fewer a temperature has to do.
LEAST_IN_CLASS = 10
FORMAT = "coverslip.recalibration/1"
_EDGE = 1e-6
# A slope of 0 would make all patients alike; a negative one would turn the model round.
_SLOPES = (0.05, 20.0)


@dataclass(frozen=True)
class Recalibration:
    """How probabilities are corrected; a frozen value that makes the trip through JSON.

    temperature  softmax(slope log p)
    platt        softmax(slope log p + shift); for two classes this is Platt's sigmoid
    isotonic     a rising staircase for each class against the rest, then divided by the sum
    venn_abers   as isotonic, each patient placed among the calibration patients once with and once without the outcome
    """

    method: Method
    n: int
    reason: str
    slope: float = 1.0
    shift: tuple[float, ...] = ()
    # For each class: scores of the calibration patients, lowest first, and the step or the outcome at each.
    scores: tuple[tuple[float, ...], ...] = ()
    steps: tuple[tuple[float, ...], ...] = ()

    def apply(self, p: Float[ndarray, "n k"]) -> Float[ndarray, "n k"]:
        """Corrected probabilities; rows sum to 1."""
        p = np.asarray(p, dtype=np.float64)
        if self.method == "none":
            return p
        if self.method in ("temperature", "platt"):
            return softmax(self.slope * _logits(p) + np.array(self.shift or np.zeros(p.shape[1])), axis=1)
        corrected = np.stack([self._curve(k, score) for k, score in enumerate(_columns(p))], axis=1)
        if p.shape[1] == 2:
            return np.concatenate([1 - corrected, corrected], axis=1)
        total = corrected.sum(axis=1, keepdims=True)
        return np.where(total > 0, corrected / np.where(total > 0, total, 1), p)

    def _curve(self, k: int, score: Float[ndarray, n]) -> Float[ndarray, n]:
        known, steps = np.array(self.scores[k]), np.array(self.steps[k])
        if self.method == "isotonic":
            return np.interp(score, known, steps)
        distinct, inverse = np.unique(score, return_inverse=True)
        return np.array([_venn_abers(known, steps, s) for s in distinct])[inverse]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "method": self.method,
            "n": self.n,
            "reason": self.reason,
            "slope": self.slope,
            "shift": list(self.shift),
            "scores": [list(scores) for scores in self.scores],
            "steps": [list(steps) for steps in self.steps],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Recalibration:
        """
        Raises:
            TableError: not a recalibration of a format that is known.
        """
        if found.get("format") != FORMAT:
            raise TableError(f"A recalibration of format {found.get('format')!r}.", fix=f"Accepted: {FORMAT!r}.")
        return cls(
            found["method"],
            int(found["n"]),
            str(found["reason"]),
            float(found["slope"]),
            tuple(map(float, found["shift"])),
            tuple(tuple(map(float, scores)) for scores in found["scores"]),
            tuple(tuple(map(float, steps)) for steps in found["steps"]),
        )


def recalibration(
    y: Int[ndarray, n], p: Float[ndarray, "n k"], *, method: Method | Literal["auto"] = "auto"
) -> Recalibration:
    """The correction that this many patients allow, learnt from them; one row a patient.

    "auto": under 20 patients none, to 80 a temperature, then Platt's two numbers. A class with under 10 patients allows
    a temperature at most, one with none nothing. Isotonic and Venn-Abers from 200 patients, where asked for.

    Raises:
        SettingsError: the method asked for needs more patients than there are.
        TableError: a probability is NaN.
    """
    y, p = np.asarray(y, dtype=np.int64), np.asarray(p, dtype=np.float64)
    if not np.isfinite(p).all():
        raise TableError("Predictions to recalibrate on hold NaN.", fix="Look for NaN in the features or the loss.")
    n, scarce = len(y), int(np.bincount(y, minlength=p.shape[1]).min()) if len(y) else 0
    chosen, reason = _chosen(n, scarce, method)
    if chosen == "none":
        return Recalibration("none", n, reason)
    if chosen == "temperature":
        return Recalibration("temperature", n, reason, slope=_fit_softmax(y, p, shifted=False)[0])
    if chosen == "platt":
        slope, shift = _fit_softmax(y, p, shifted=True)
        return Recalibration("platt", n, reason, slope=slope, shift=tuple(shift))
    outcomes = [(y == k).astype(np.float64) for k in ([1] if p.shape[1] == 2 else range(p.shape[1]))]
    scores, steps = zip(*(_staircase(chosen, s, true) for s, true in zip(_columns(p), outcomes)))
    return Recalibration(chosen, n, reason, scores=scores, steps=steps)


def _chosen(n: int, scarce: int, method: str) -> tuple[Method, str]:
    if n < TEMPERATURE_FROM or scarce == 0:
        if method not in ("auto", "none"):
            raise SettingsError(
                f"Recalibration by {method} has {n} patients and {scarce} of the smallest class to learn from.",
                fix=f"From {TEMPERATURE_FROM} patients of all classes; 'auto' does none under that.",
            )
        why = (
            "a class has no patient" if scarce == 0 and n >= TEMPERATURE_FROM else f"under {TEMPERATURE_FROM} patients"
        )
        return "none", f"{why}: nothing learnt"
    if method == "none":
        return "none", "as asked"
    if method in ("isotonic", "venn_abers"):
        if n < CURVE_FROM:
            raise SettingsError(
                f"Recalibration by {method} has {n} patients to learn from.",
                fix=f"It needs {CURVE_FROM}; with fewer use 'auto', which takes a temperature or Platt's two numbers.",
            )
        return ("isotonic", "as asked") if method == "isotonic" else ("venn_abers", "as asked")
    if method == "temperature":
        return "temperature", "as asked"
    if scarce < LEAST_IN_CLASS:
        return "temperature", f"{scarce} of the smallest class, under {LEAST_IN_CLASS}: no shift learnt"
    if n < PLATT_FROM:
        return "temperature", f"{n} patients, under {PLATT_FROM}: no shift learnt"
    return "platt", f"{n} patients"


def _fit_softmax(y: ndarray, p: ndarray, *, shifted: bool) -> tuple[float, list[float]]:
    """Slope and shift of least log loss; the slope stays positive, so that the order of patients is kept."""
    z, k = _logits(p), p.shape[1]
    # Platt's targets: not quite 0 and 1, so that separated classes do not drive the slope to infinity.
    counts = np.bincount(y, minlength=k)
    high, low = (counts + 1) / (counts + 2), 1 / (counts + 2) / max(k - 1, 1)
    target = np.where(np.eye(k, dtype=bool)[y], high[y][:, None], low[y][:, None])

    def loss(theta: ndarray) -> tuple[float, ndarray]:
        logits = np.exp(theta[0]) * z + np.concatenate([[0.0], theta[1:]]) if shifted else np.exp(theta[0]) * z
        gap = softmax(logits, axis=1) - target
        slope_step = (gap * np.exp(theta[0]) * z).sum()
        steps = np.concatenate([[slope_step], gap.sum(axis=0)[1:]]) if shifted else np.array([slope_step])
        return float(-(target * log_softmax(logits, axis=1)).sum()), steps

    start = np.zeros(k if shifted else 1)
    bounds = [tuple(np.log(_SLOPES))] + [(-20.0, 20.0)] * (len(start) - 1)
    theta = minimize(loss, start, jac=True, bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-10}).x
    return float(np.exp(theta[0])), [0.0, *map(float, theta[1:])] if shifted else []


def _staircase(method: str, score: ndarray, outcome: ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    order = np.argsort(score, kind="stable")
    score, outcome = score[order], outcome[order]
    if method == "venn_abers":
        return tuple(score.tolist()), tuple(outcome.tolist())
    # No staircase of n patients is sure: an end that is all of one kind would else state 0 or 1.
    sure = 1 / (len(score) + 2)
    fit = IsotonicRegression(y_min=sure, y_max=1 - sure, out_of_bounds="clip").fit(score, outcome)
    return tuple(fit.X_thresholds_.tolist()), tuple(fit.y_thresholds_.tolist())


def _venn_abers(known: Float[ndarray, n], outcome: Float[ndarray, n], score: float) -> float:
    """One probability from the pair of an inductive Venn-Abers predictor, p1 / (1 - p0 + p1).

    Vovk, Petej and Fedorova 2015, https://arxiv.org/abs/1511.00213.
    """
    place = np.append(known, score)
    p0, p1 = (
        IsotonicRegression(y_min=0.0, y_max=1.0).fit(place, np.append(outcome, label)).predict([score])[0]
        for label in (0.0, 1.0)
    )
    return float(p1 / (1 - p0 + p1))


def _logits(p: ndarray) -> ndarray:
    return np.log(np.clip(p, _EDGE, None))


def _columns(p: ndarray) -> list[ndarray]:
    """The scores that a curve is learnt for: of the second class, or of every class where there are more than two."""
    return [p[:, 1]] if p.shape[1] == 2 else list(p.T)
