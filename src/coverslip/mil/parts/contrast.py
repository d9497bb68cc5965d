"""Contrast: vectors of the same class are drawn together and all others pushed apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from coverslip.nn.segments import full


class ContrastHead(nn.Module):
    """Vectors (n, width) to unit vectors (n, e) in float32: a linear map, ReLU, a linear map, L2 norm."""

    def __init__(self, width: int, e: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, e))

    def forward(self, h: Float[Tensor, "n width"]) -> Float[Tensor, "n e"]:
        return functional.normalize(full(self.layers(h)), dim=1)


@dataclass(frozen=True)
class Contrast:
    """The mean loss of the anchors that have a positive, and how many had none and were left out."""

    loss: Float[Tensor, ""]
    alone: Int64[Tensor, ""]


def supervised_contrast(
    z: Float[Tensor, "n e"],
    others: Float[Tensor, "m e"],
    agreement: Float[Tensor, "n m"],
    *,
    temperature: float,
    known: Bool[Tensor, m] | None = None,
) -> Contrast:
    """The supervised contrastive loss of unit vectors z against all z (a vector never against itself) and `others`:

        l_ij = log( exp(z_i.z_j / t) / sum over k != i of exp(z_i.z_k / t) )
        loss_i = - sum over j != i of w_ij l_ij / sum over j != i of w_ij

    Khosla et al. 2020, https://arxiv.org/abs/2004.11362, the form with the sum outside the logarithm. There w is 1 for
    vectors of the same class and 0 otherwise. Here `agreement` is w, n columns for z and then one for each of
    `others`, and may lie between, for bags that are mixed of two classes. An anchor whose w is 0 everywhere has no
    loss and is left out of the mean. Places of `others` where `known` is False are not there at all.
    """
    n = len(z)
    scores = similarity(z, torch.cat([z, others])) / temperature  # (n, n + m)
    there = ~torch.eye(n, len(z) + len(others), dtype=torch.bool, device=z.device)
    if known is not None:
        there = there & torch.cat([known.new_ones(n), known])
    weight = agreement.to(scores.dtype) * there
    # A vector with nobody to compare to would be a softmax over nothing: NaN, in the gradient too.
    absent = ~there & there.any(1, keepdim=True)
    log_share = scores.masked_fill(absent, -torch.inf).log_softmax(1).masked_fill(~there, 0)
    mass = weight.sum(1)
    loss = -(weight * log_share).sum(1) / torch.where(mass > 0, mass, 1)
    has = mass > 0
    return Contrast(loss.sum() / has.sum().clamp(min=1), (~has).sum())


def key_contrast(
    q: Float[Tensor, "n e"],
    k: Float[Tensor, "n e"],
    negatives: Float[Tensor, "m e"],
    *,
    temperature: float,
    known: Bool[Tensor, m] | None = None,
) -> Float[Tensor, ""]:
    """The loss of finding each query's own key among the negatives:

        - log( exp(q_i.k_i / t) / (exp(q_i.k_i / t) + sum over j of exp(q_i.n_j / t)) ), the mean over i

    InfoNCE with a queue, He et al. 2020 (MoCo), https://arxiv.org/abs/1911.05722. Negatives where `known` is False are
    not there; with none at all the loss is 0.
    """
    own = (q * k).sum(1, keepdim=True)
    against = similarity(q, negatives)
    if known is not None:
        against = against.masked_fill(~known, -torch.inf)
    return -(torch.cat([own, against], 1) / temperature).log_softmax(1)[:, 0].mean()


def similarity(a: Float[Tensor, "n e"], b: Float[Tensor, "m e"]) -> Float[Tensor, "n m"]:
    """Inner products in full precision: divided by a small temperature, the rounding of bfloat16 would be the loss."""
    with torch.autocast(a.device.type, enabled=False):
        return full(a) @ full(b).T
