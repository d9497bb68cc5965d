"""Deep embedded clustering of packed rows: how much a row belongs to each centre, and the loss that sharpens it.

Xie, Girshick, Farhadi: Unsupervised deep embedding for clustering analysis, ICML 2016,
https://arxiv.org/abs/1511.06335.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from coverslip.nn.segments import Segments, full, mean, total


def memberships(z: Float[Tensor, "m d"], centres: Float[Tensor, "k d"]) -> Float[Tensor, "m k"]:
    """q: how much each row belongs to each centre, by a Student kernel of one degree of freedom; sums to 1 a row.

    q_ik = (1 + |z_i - centre_k|^2)^-1, divided by its sum over k.
    """
    z, centres = full(z), full(centres)
    with torch.autocast(z.device.type, enabled=False):
        apart = z.square().sum(1, keepdim=True) - 2 * z @ centres.T + centres.square().sum(1)
    # What rounding takes below zero is no distance.
    near = 1 / (1 + apart.clamp(min=0))
    return near / near.sum(1, keepdim=True)


def sharpened(q: Float[Tensor, "m k"], segments: Segments) -> Float[Tensor, "m k"]:
    """p: what memberships are to become; sums to 1 a row, and has no gradient.

    p_ik = q_ik^2 / f_k, divided by its sum over k, where f_k is the sum of q_ik over the rows of the bag: rows that
    belong somewhere do so more, and large clusters do not swallow small ones.
    """
    q = q.detach()
    squares = q.square() / total(q, segments)[segments.ids]
    return squares / squares.sum(1, keepdim=True)


def sharpening_loss(q: Float[Tensor, "m k"], segments: Segments) -> Float[Tensor, b]:
    """KL(p || q) of each bag, the mean over its rows, in nats; 0 for a bag of one row."""
    p = sharpened(q, segments)
    return mean((torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(1), segments)
