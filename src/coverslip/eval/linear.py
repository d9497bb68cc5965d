"""Linear models of every kind of task, as plain numbers that make the trip through JSON.

Logistic regression for classes, for each label, and for each threshold between levels; ridge for numbers; Cox's model
for times, and for each cause. All are fitted on standardised columns under one belief about their size, so that none
has a knob that could be chosen on the test folds; coefficients are kept in the units of the columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray
from scipy.special import expit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from coverslip.base.errors import TableError
from coverslip.eval.cox import CoxRidge, Hazard
from coverslip.eval.truth import Task

FORMAT = "coverslip.linear/1"
# How far the logit of a typical row may lie from 0 before the data speak: a variance of 4 is a standard deviation of 2,
# odds of 1 to 7. Spread over the e standardised columns it is a prior variance, which is scikit-learn's C, of 4 / e
# each, so that wide features are not overfitted.
_LOGIT_VARIANCE = 4.0
# The same for the log hazard ratio against the average patient: a standard deviation of 1, a ratio of 1 to 2.7.
_LOG_HAZARD_VARIANCE = 1.0
_NONE = np.zeros(0)


@dataclass(frozen=True)
class Head:
    """One fitted equation or several: `x @ weights.T + bias`. `seen` are the classes that training rows had, `hazard`
    the cumulative baseline hazard of a model for times."""

    weights: Float[ndarray, "k e"]
    bias: Float[ndarray, k]
    seen: tuple[int, ...] = ()
    hazard: Hazard = field(default_factory=lambda: Hazard(_NONE, _NONE))

    def scores(self, x: Float[ndarray, "m e"]) -> Float[ndarray, "m k"]:
        """The linear predictors."""
        return np.asarray(x, dtype=np.float64) @ self.weights.T + self.bias

    def probabilities(self, x: Float[ndarray, "m e"], num_classes: int) -> Float[ndarray, "m c"]:
        """Probabilities of classes; one that training rows did not have gets 0."""
        p = np.zeros((len(x), num_classes))
        if len(self.seen) == 1:
            p[:, self.seen[0]] = 1.0
        elif len(self.seen) == 2:
            p[:, self.seen[1]] = expit(self.scores(x)[:, 0])
            p[:, self.seen[0]] = 1 - p[:, self.seen[1]]
        elif self.seen:
            p[:, self.seen] = softmax(self.scores(x), axis=1)
        return p

    def to_json(self) -> dict[str, Any]:
        return {
            "weights": self.weights.tolist(),
            "bias": self.bias.tolist(),
            "seen": list(self.seen),
            "hazard": {"time": self.hazard.time.tolist(), "value": self.hazard.value.tolist()},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Head:
        bias = np.array(found["bias"], dtype=np.float64)
        weights = np.array(found["weights"], dtype=np.float64).reshape(len(bias), -1)
        hazard = Hazard(*(np.array(found["hazard"][name], dtype=np.float64) for name in ("time", "value")))
        return cls(weights, bias, tuple(map(int, found["seen"])), hazard)


@dataclass(frozen=True)
class LinearModel:
    """A fitted linear model of one kind of task; a frozen value."""

    task: Task
    heads: tuple[Head, ...]

    @classmethod
    def fit(cls, task: Task, x: Float[ndarray, "n e"], y: Shaped[ndarray, "n ..."]) -> LinearModel:
        """The model of these rows. `y` is as `coverslip.eval.truth` has it: classes, numbers, (n, t) labels with NaN,
        or (n, 2) times and events. A column that never varies says nothing."""
        return cls(task, tuple(_FITS[task.kind](task, np.asarray(x, dtype=np.float64), y)))

    def predict(self, x: Float[ndarray, "m e"]) -> Float[ndarray, "m k"]:
        """The values of the columns of the kind of task, which `task.reader.predictions` names."""
        return _SAYS[self.task.kind](self.task, self.heads, np.asarray(x, dtype=np.float64))

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "heads": [head.to_json() for head in self.heads]}

    @classmethod
    def from_json(cls, task: Task, found: Mapping[str, Any]) -> LinearModel:
        """
        Raises:
            TableError: not a linear model of a format that is known.
        """
        if found.get("format") != FORMAT:
            raise TableError(f"A linear model of format {found.get('format')!r}.", fix=f"Accepted: {FORMAT!r}.")
        return cls(task, tuple(Head.from_json(head) for head in found["heads"]))


def fit_logistic(x: Float[ndarray, "n e"], y: Int[ndarray, n], *, seed: int = 0) -> Head:
    """A logistic regression with L2 at C = 4 / e on standardised columns; classes weigh the same whatever their
    numbers, so probabilities are those of a cohort with equal classes."""
    seen = tuple(np.unique(y).tolist())
    if len(seen) < 2:
        return Head(np.zeros((1, x.shape[1])), np.zeros(1), seen)
    centre, scale = _spread(x)
    model = LogisticRegression(
        C=_LOGIT_VARIANCE / x.shape[1], class_weight="balanced", max_iter=2000, random_state=seed
    )
    with warnings.catch_warnings():
        # Separable classes stop at max_iter now and then; the ridge keeps the answer unique to many digits by then.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((x - centre) / scale, y)
    return _unscaled(model.coef_, model.intercept_, centre, scale, seen)


def _fit_classes(task: Task, x: ndarray, y: ndarray) -> list[Head]:
    return [fit_logistic(x, y)]


def _fit_labels(task: Task, x: ndarray, y: ndarray) -> list[Head]:
    heads = []
    for t in range(len(task.classes)):
        known = ~np.isnan(y[:, t])
        heads.append(fit_logistic(x[known], y[known, t].astype(np.int64)))
    return heads


def _fit_levels(task: Task, x: ndarray, y: ndarray) -> list[Head]:
    """A logistic regression a threshold (Frank and Hall 2001, https://doi.org/10.1007/3-540-44795-4_13)."""
    return [fit_logistic(x, (y >= k).astype(np.int64)) for k in range(1, len(task.classes))]


def _fit_numbers(task: Task, x: ndarray, y: ndarray) -> list[Head]:
    """Ridge under the belief that the columns explain half of the variance, spread evenly over the e of them."""
    centre, scale = _spread(x)
    model = Ridge(alpha=float(x.shape[1])).fit((x - centre) / scale, y)
    return [_unscaled(model.coef_[None], np.array([model.intercept_]), centre, scale)]


def _fit_times(task: Task, x: ndarray, y: ndarray) -> list[Head]:
    return [_fit_cox(x, y[:, 0], y[:, 1] > 0)]


def _fit_causes(task: Task, x: ndarray, y: ndarray) -> list[Head]:
    """Cox's model a cause, other causes taken as censoring."""
    return [_fit_cox(x, y[:, 0], y[:, 1] == 1 + c) for c in range(len(task.classes))]


def _fit_cox(x: ndarray, time: Float[ndarray, n], event: ndarray) -> Head:
    centre, scale = _spread(x)
    model = CoxRidge.fit((x - centre) / scale, time, event, penalty=x.shape[1] / _LOG_HAZARD_VARIANCE)
    bias = -model.centre @ model.coefficients
    head = _unscaled(model.coefficients[None], np.array([bias]), centre, scale)
    return Head(head.weights, head.bias, (), model.hazard)


def _spread(x: ndarray) -> tuple[Float[ndarray, e], Float[ndarray, e]]:
    """Mean and standard deviation of each column; infinite where it never varies, so that it says nothing."""
    centre, spread = x.mean(axis=0), x.std(axis=0)
    return centre, np.where(spread > 1e-12 * np.maximum(1.0, np.abs(centre)), spread, np.inf)


def _unscaled(weights: ndarray, bias: ndarray, centre: ndarray, scale: ndarray, seen: Sequence[int] = ()) -> Head:
    """The equation in the units of the columns."""
    weights = weights / scale
    return Head(weights, bias - weights @ centre, tuple(seen))


def _say_classes(task: Task, heads: Sequence[Head], x: ndarray) -> Float[ndarray, "m k"]:
    return heads[0].probabilities(x, len(task.classes))


def _say_labels(task: Task, heads: Sequence[Head], x: ndarray) -> Float[ndarray, "m t"]:
    # A label of which nothing was known in training could as well be there as not.
    said = [head.probabilities(x, 2)[:, 1] if head.seen else np.full(len(x), 0.5) for head in heads]
    return np.stack(said, axis=1) if said else np.zeros((len(x), 0))


def _say_levels(task: Task, heads: Sequence[Head], x: ndarray) -> Float[ndarray, "m k"]:
    """Each threshold no likelier to be reached than the one below."""
    above = [head.probabilities(x, 2)[:, 1] for head in heads]
    reached = np.minimum.accumulate(np.stack([np.ones(len(x)), *above, np.zeros(len(x))], axis=1), axis=1)
    return -np.diff(reached, axis=1)


def _say_numbers(task: Task, heads: Sequence[Head], x: ndarray) -> Float[ndarray, "m 1"]:
    return heads[0].scores(x)


def _say_times(task: Task, heads: Sequence[Head], x: ndarray) -> Float[ndarray, "m k"]:
    risk = heads[0].scores(x)
    survival = np.exp(-heads[0].hazard.at(np.array(task.grid)) * np.exp(risk))
    return np.concatenate([risk, survival], axis=1)


def _say_causes(task: Task, heads: Sequence[Head], x: ndarray) -> Float[ndarray, "m k"]:
    """A risk a cause, and incidences from all causes' hazards together."""
    risks = [head.scores(x) for head in heads]
    steps = np.unique(np.concatenate([head.hazard.time for head in heads] or [_NONE]))
    jumps = [np.diff(head.hazard.at(steps), prepend=0.0) * np.exp(risk) for head, risk in zip(heads, risks)]
    survival = np.exp(-np.cumsum(sum(jumps), axis=1)) if len(steps) else np.zeros((len(x), 0))
    before = np.concatenate([np.ones((len(x), 1)), survival[:, :-1]], axis=1)[:, : len(steps)]
    curves = []
    for jump in jumps:
        incidence = np.cumsum(before * -np.expm1(-jump), axis=1)
        curves.append(np.pad(incidence, ((0, 0), (1, 0)))[:, np.searchsorted(steps, np.array(task.grid), side="right")])
    return np.concatenate([*risks, *curves], axis=1)


_FITS: dict[str, Callable[[Task, ndarray, ndarray], list[Head]]] = {
    "classification": _fit_classes,
    "multilabel": _fit_labels,
    "ordinal": _fit_levels,
    "regression": _fit_numbers,
    "survival": _fit_times,
    "survival_cox": _fit_times,
    "survival_parametric": _fit_times,
    "competing_risks": _fit_causes,
}
_SAYS: dict[str, Callable[[Task, Sequence[Head], ndarray], ndarray]] = {
    "classification": _say_classes,
    "multilabel": _say_labels,
    "ordinal": _say_levels,
    "regression": _say_numbers,
    "survival": _say_times,
    "survival_cox": _say_times,
    "survival_parametric": _say_times,
    "competing_risks": _say_causes,
}
