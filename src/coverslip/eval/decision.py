"""Decision curves: is acting on the model worth more than treating everyone, or no one?

At a threshold t, who would treat at a risk of t holds one missed case for as bad as (1 - t)/t needless treatments. Net
benefit is true positives less false positives at that price, per patient (Vickers and Elkin 2006,
https://doi.org/10.1177/0272989X06295361).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from coverslip.eval.interval import Interval
from coverslip.eval.proportion import effective_patients, wilson

THRESHOLDS = tuple(i / 20 for i in range(1, 20))
HOW = "Wilson's limits combined, 95%"


def decision_curve(
    positive: Bool[ndarray, n],
    p: Float[ndarray, n],
    groups: Sequence[str] | ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[dict[str, Any]]:
    """One entry a threshold, lowest first: net benefit of the model, of treating all, and the model less treating all.

    Treating no one is 0 by definition, so that `model` is also the gain over it. Intervals are for each threshold by
    itself. `p` are probabilities that must mean what they say: look at the calibration first. `groups` names the
    patient of each unit where units are slides; then as many patients count as the slides amount to. Empty without
    patients.
    """
    positive, p = np.asarray(positive, dtype=bool), np.asarray(p, dtype=np.float64)
    if not len(p):
        return []
    patients = effective_patients(np.arange(len(p)) if groups is None else np.asarray(groups))
    entries = []
    for t in thresholds:
        assert 0 < t < 1, "a threshold lies between 0 and 1"
        price, called = t / (1 - t), p >= t
        entries.append(
            {
                "threshold": float(t),
                "model": _less((positive & called).mean(), price, (~positive & called).mean(), patients).to_json(),
                "all": float(positive.mean() - price * (~positive).mean()),
                # Treating all treats whom the model leaves out: those without the disease are its gain.
                "versus_all": _less(
                    (~positive & ~called).mean(), 1 / price, (positive & ~called).mean(), patients, scale=price
                ).to_json(),
            }
        )
    return entries


def _less(gain: float, price: float, loss: float, n: float, *, scale: float = 1.0) -> Interval:
    """scale × (gain - price × loss) of two shares of the same n patients, with its interval.

    The limits of each share are Wilson's, combined with the correlation of two shares of one whole (Zou and Donner
    2008, https://doi.org/10.1002/sim.3095): it has a width also where no one is treated needlessly, which resampling
    has not.
    """
    low_gain, high_gain = wilson(gain * n, n)
    low_loss, high_loss = wilson(loss * n, n)
    full = (1 - gain) * (1 - loss)
    correlation = -np.sqrt(gain * loss / full) if full > 0 else 0.0
    value = gain - price * loss
    down, up = gain - low_gain, high_gain - gain
    more, fewer = price * (high_loss - loss), price * (loss - low_loss)
    low = value - np.sqrt(down**2 + more**2 - 2 * correlation * down * more)
    high = value + np.sqrt(up**2 + fewer**2 - 2 * correlation * up * fewer)
    # No more can be gained than everyone with the gain, nor lost than everyone with the loss.
    return Interval(float(scale * value), float(scale * max(low, -price)), float(scale * min(high, 1.0)), HOW)
