"""What probabilities of ordered levels say: the level that is decided, and how likely a level or a higher one is."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


def median_level(p: Float[ndarray, "n k"]) -> Int[ndarray, n]:
    """The first level at which the probabilities, added up from the lowest, reach a half."""
    # A sum of ten .1 may miss the half that it is by a rounding error.
    return (np.cumsum(p, axis=1) >= 0.5 - 1e-12).argmax(axis=1) if len(p) else np.zeros(0, dtype=np.int64)


def at_least(p: Float[ndarray, "n k"], level: int) -> Float[ndarray, n]:
    """P(y >= level)."""
    return p[:, level:].sum(axis=1)
