"""The baseline that every report shows: logistic regression on the mean and the spread of a bag's features.

A model with attention that does not beat it has learnt nothing from where the tiles lie.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

NAME = "mean+sd logistic"
# How far the logit of a typical bag may lie from 0 before the data speak: a variance of 4 is a standard deviation of 2,
# odds of 1 to 7. Fixed, so that the baseline has no knob to be chosen on the test folds. Spread over the e standardised
# columns it is a prior variance, which is scikit-learn's C, of 4 / e each, so that wide features are not overfitted.
_LOGIT_VARIANCE = 4.0


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
    train_x = np.asarray(train_x, dtype=np.float64)
    centre, spread = train_x.mean(axis=0), train_x.std(axis=0)
    # A column that never varies in training says nothing, and must not blow up in the test rows.
    scale = np.where(spread > 1e-12 * np.maximum(1.0, np.abs(centre)), spread, np.inf)
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
        model.fit((train_x - centre) / scale, train_y)
    p[:, model.classes_] = model.predict_proba((np.asarray(test_x, dtype=np.float64) - centre) / scale)
    return p
