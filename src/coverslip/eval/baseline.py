"""The baseline that every report shows: a linear model on the mean and the spread of a bag's features.

A model with attention that does not beat it has learnt nothing from where the tiles lie. `coverslip.eval.linear` says
what the model is for each kind of task; none has a knob that could be chosen on the test folds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from coverslip.eval.linear import LinearModel, fit_logistic
from coverslip.eval.truth import Task


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
    head = fit_logistic(np.asarray(train_x, dtype=np.float64), np.asarray(train_y), seed=seed)
    return head.probabilities(np.asarray(test_x, dtype=np.float64), len(classes))


def baseline_predictions(
    task: Task,
    train_x: Float[ndarray, "n e"],
    train_y: Shaped[ndarray, "n ..."],
    test_x: Float[ndarray, "m e"],
) -> Float[ndarray, "m k"]:
    """The baseline's values of the columns of the kind of task (`coverslip.eval.truth` names them) for the test bags.

    `train_y` is as that module has it: classes, numbers, (n, t) labels with NaN, or (n, 2) times and events.
    """
    return LinearModel.fit(task, train_x, train_y).predict(test_x)
