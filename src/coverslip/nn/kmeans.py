"""k-means on rows of one bag: a few passes from well spread starting rows."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor


def kmeans(x: Float[Tensor, "n d"], clusters: int, rng: np.random.Generator, *, passes: int = 10) -> Int64[Tensor, n]:
    """The cluster of each row, from 0 and without gaps: `clusters` of them, or as many as there are different rows.

    Lloyd's passes (1982, https://doi.org/10.1109/TIT.1982.1056489) from rows drawn with a chance in proportion to their
    squared distance to those drawn before (Arthur and Vassilvitskii 2007, https://doi.org/10.5555/1283383.1283494).
    """
    centres = _spread(x, clusters, rng)
    found = _nearest(x, centres)
    for _ in range(passes):
        counts = torch.bincount(found, minlength=len(centres)).to(x.dtype).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, found, x)
        # A cluster that lost its rows keeps its place, and may win some back.
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        moved = _nearest(x, centres)
        if torch.equal(moved, found):
            break
        found = moved
    return found.unique(return_inverse=True)[1]


def _spread(x: Float[Tensor, "n d"], clusters: int, rng: np.random.Generator) -> Float[Tensor, "k d"]:
    chosen = [int(rng.integers(len(x)))]
    distance = (x - x[chosen[0]]).square().sum(1)
    while len(chosen) < clusters:
        chance = distance.double().numpy()
        if chance.sum() <= 0:
            break
        chosen.append(int(rng.choice(len(x), p=chance / chance.sum())))
        distance = torch.minimum(distance, (x - x[chosen[-1]]).square().sum(1))
    return x[chosen]


def _nearest(x: Float[Tensor, "n d"], centres: Float[Tensor, "k d"]) -> Int64[Tensor, n]:
    # Squared distances less |x|^2, which is the same for every centre.
    return (centres.square().sum(1) - 2 * x @ centres.T).argmin(1)
