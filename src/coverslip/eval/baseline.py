"""The baseline that every report shows: a linear model on the mean and the spread of a bag's features.

A model with attention that does not beat it has learnt nothing from where the tiles lie. Logistic regression for
classes, for each label, and for each threshold between levels; ridge for numbers; Cox's model for times, and for each
cause. None has a knob that could be chosen on the test folds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from coverslip.eval.cox import CoxRidge, Hazard
from coverslip.eval.truth import Task

# How far the logit of a typical bag may lie from 0 before the data speak: a variance of 4 is a standard deviation of 2,
# odds of 1 to 7. Fixed, so that the baseline has no knob to be chosen on the test folds. Spread over the e standardised
# columns it is a prior variance, which is scikit-learn's C, of 4 / e each, so that wide features are not overfitted.
_LOGIT_VARIANCE = 4.0
# The same for the log hazard ratio against the average patient: a standard deviation of 1, a ratio of 1 to 2.7.
_LOG_HAZARD_VARIANCE = 1.0


def mean_sd(rows: Float[ndarray, "n d"]) -> Float[ndarray, "2d"]:
    """Mean and then standard deviation of each feature over a bag's rows; sums run in float64."""
    return np.concatenate([rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)])


def mean_sd_logistic(
    train_x: Float[ndarray, "n e"],
    train_y: Int[ndarray, n],
    test_x: Float[ndarray, "m e"],
    classes: Sequence[str],
    seed: int = 0,
) -> Float[ndarray, "m k"]:
    """Probabilities of the test bags in the order of `classes`.

    Rows are bags as `mean_sd` gives them. Each column is standardised with the training rows' mean and standard
    deviation; L2 with C = 4 / e; classes weigh the same whatever their numbers, so probabilities are those of a cohort
    with equal classes. A class without a training bag gets probability 0.
    """
    train_x, test_x = _standardised(train_x, test_x)
    seen = np.unique(train_y)
    p = np.zeros((len(test_x), len(classes)))
    if len(seen) == 1:
        p[:, seen[0]] = 1.0
        return p
    model = LogisticRegression(
        C=_LOGIT_VARIANCE / train_x.shape[1], class_weight="balanced", max_iter=2000, random_state=seed
    )
    with warnings.catch_warnings():
        # Separable classes stop at max_iter now and then; the ridge keeps the answer unique to many digits by then.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train_x, train_y)
    p[:, model.classes_] = model.predict_proba(test_x)
    return p


def baseline_predictions(
    task: Task,
    train_x: Float[ndarray, "n e"],
    train_y: Shaped[ndarray, "n ..."],
    test_x: Float[ndarray, "m e"],
) -> Float[ndarray, "m k"]:
    """The baseline's values of the columns of the kind of task (`coverslip.eval.truth` names them) for the test bags.

    `train_y` is as that module has it: classes, numbers, (n, t) labels with NaN, or (n, 2) times and events.
    """
    return _BASELINES[task.kind](task, train_x, train_y, test_x)


def _classes(task: Task, train_x: ndarray, train_y: ndarray, test_x: ndarray) -> Float[ndarray, "m k"]:
    return mean_sd_logistic(train_x, train_y, test_x, task.classes)


def _labels(task: Task, train_x: ndarray, train_y: ndarray, test_x: ndarray) -> Float[ndarray, "m t"]:
    p = np.full((len(test_x), len(task.classes)), 0.5)
    for t in range(len(task.classes)):
        known = ~np.isnan(train_y[:, t])
        if known.any():
            y = train_y[known, t].astype(np.int64)
            p[:, t] = mean_sd_logistic(train_x[known], y, test_x, ("0", "1"))[:, 1]
    return p


def _levels(task: Task, train_x: ndarray, train_y: ndarray, test_x: ndarray) -> Float[ndarray, "m k"]:
    """A logistic regression a threshold (Frank and Hall 2001, https://doi.org/10.1007/3-540-44795-4_13), each no higher
    than the one below."""
    above = [
        mean_sd_logistic(train_x, (train_y >= k).astype(np.int64), test_x, ("0", "1"))[:, 1]
        for k in range(1, len(task.classes))
    ]
    reached = np.minimum.accumulate(np.stack([np.ones(len(test_x)), *above, np.zeros(len(test_x))], axis=1), axis=1)
    return -np.diff(reached, axis=1)


def _numbers(task: Task, train_x: ndarray, train_y: ndarray, test_x: ndarray) -> Float[ndarray, "m 1"]:
    """Ridge under the belief that the features explain half of the variance, spread evenly over the e columns."""
    train_x, test_x = _standardised(train_x, test_x)
    model = Ridge(alpha=float(train_x.shape[1])).fit(train_x, train_y)
    return model.predict(test_x)[:, None]


def _times(task: Task, train_x: ndarray, train_y: ndarray, test_x: ndarray) -> Float[ndarray, "m k"]:
    risk, hazard = _cox(train_x, train_y[:, 0], train_y[:, 1] > 0, test_x)
    survival = np.exp(-hazard.at(np.array(task.grid)) * np.exp(risk)[:, None])
    return np.concatenate([risk[:, None], survival], axis=1)


def _causes(task: Task, train_x: ndarray, train_y: ndarray, test_x: ndarray) -> Float[ndarray, "m k"]:
    """Cox's model a cause, other causes taken as censoring; incidences from all causes' hazards together."""
    fitted = [_cox(train_x, train_y[:, 0], train_y[:, 1] == 1 + c, test_x) for c in range(len(task.classes))]
    grid = np.array(task.grid)
    steps = np.unique(np.concatenate([hazard.time for _, hazard in fitted] or [np.zeros(0)]))
    jumps = [np.diff(hazard.at(steps), prepend=0.0) * np.exp(risk)[:, None] for risk, hazard in fitted]
    survival = np.exp(-np.cumsum(sum(jumps), axis=1)) if len(steps) else np.zeros((len(test_x), 0))
    before = np.concatenate([np.ones((len(test_x), 1)), survival[:, :-1]], axis=1)[:, : len(steps)]
    curves = []
    for jump in jumps:
        incidence = np.cumsum(before * -np.expm1(-jump), axis=1)
        curves.append(np.pad(incidence, ((0, 0), (1, 0)))[:, np.searchsorted(steps, grid, side="right")])
    return np.concatenate([np.stack([risk for risk, _ in fitted], axis=1), *curves], axis=1)


def _cox(
    train_x: ndarray, time: Float[ndarray, n], event: ndarray, test_x: ndarray
) -> tuple[Float[ndarray, m], Hazard]:
    train_x, test_x = _standardised(train_x, test_x)
    model = CoxRidge.fit(train_x, time, event, penalty=train_x.shape[1] / _LOG_HAZARD_VARIANCE)
    return model.risk(test_x), model.hazard


def _standardised(train_x: ndarray, test_x: ndarray) -> tuple[Float[ndarray, "n e"], Float[ndarray, "m e"]]:
    """Both with the training rows' mean and standard deviation."""
    train_x, test_x = np.asarray(train_x, dtype=np.float64), np.asarray(test_x, dtype=np.float64)
    centre, spread = train_x.mean(axis=0), train_x.std(axis=0)
    # A column that never varies in training says nothing, and must not blow up in the test rows.
    scale = np.where(spread > 1e-12 * np.maximum(1.0, np.abs(centre)), spread, np.inf)
    return (train_x - centre) / scale, (test_x - centre) / scale


_BASELINES: dict[str, Callable[[Task, ndarray, ndarray, ndarray], ndarray]] = {
    "classification": _classes,
    "multilabel": _labels,
    "ordinal": _levels,
    "regression": _numbers,
    "survival": _times,
    "survival_cox": _times,
    "survival_parametric": _times,
    "competing_risks": _causes,
}
