"""The limits of a mean of figures of the same patients: of classes, labels, causes or thresholds.

Each figure has an interval of its own, and some move together: a patient who is missed in one class is often called
another. How much they do is seen when patients are left out in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

# Squared moves that add up to less are of rounding alone.
_ROUNDING = 1e-24


def mean_limits(
    limits: Sequence[tuple[float, float, float]], together: Float[ndarray, "k k"]
) -> tuple[float, float, float]:
    """The mean of k figures, and its limits. `limits` are (value, low, high) of each, `together` how they correlate.

    With d the distances of the figures to their lower limits and R the correlations, the mean lies sqrt(d' R d) / k
    over its lower limit, and likewise under its upper one (MOVER: Zou and Donner 2008,
    https://doi.org/10.1002/sim.3095; of figures that are correlated Zou 2007,
    https://doi.org/10.1037/1082-989X.12.4.399). Where all correlations are 1 these are the means of the limits.
    """
    value, low, high = np.array(limits, dtype=np.float64).T
    down, up = (float(np.sqrt(apart @ together @ apart)) / len(value) for apart in (value - low, high - value))
    mean = float(value.mean())
    return mean, mean - down, mean + up


def correlations(moves: Sequence[Float[ndarray, g] | None]) -> Float[ndarray, "k k"]:
    """Of each two figures, from how far leaving each of g patients out moves them. None under 0, so that nothing is
    narrower than independent figures make it; 1 where a figure is moved by nobody or its moves are not known."""
    k = len(moves)
    together = np.ones((k, k))
    known = [(i, one) for i, one in enumerate(moves) if one is not None and float(one @ one) > _ROUNDING]
    if known:
        places, rows = [i for i, _ in known], np.stack([one for _, one in known])
        product = rows @ rows.T
        size = np.sqrt(product.diagonal())
        together[np.ix_(places, places)] = np.clip(product / np.outer(size, size), 0.0, 1.0)
    return together
