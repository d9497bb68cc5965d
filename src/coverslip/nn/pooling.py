"""From attention scores and rows to a bag's vectors: how scores become weights, and how weighted rows become one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from coverslip.nn.segments import Segments, full, logsumexp, softmax, weighted_sum

Weights = Literal["softmax", "sigmoid"]
Pooling = Literal["sum", "ggem", "low_rank"]

# Below this a value counts as this in a generalised mean: log 0 has no gradient.
_LEAST = 1e-6
_FIRST_POWER = 3.0


@dataclass(frozen=True)
class Pooled:
    """What a pool makes of B bags of M rows with K branches.

    `z` is a vector for each bag and branch, `weights` what each row counts in it. `attention` is the weights over their
    sum, so that a map reads the same whatever the weights add up to.
    """

    z: Float[Tensor, "b k w"]
    weights: Float[Tensor, "m k"]
    attention: Float[Tensor, "m k"]


class AttentionPool(nn.Module):
    """Scores s (m, K) and rows h (m, dim) of packed bags to K vectors a bag.

    How scores become weights a (`weights`):

    - `softmax`: over the bag. Rows compete, and weights sum to 1.
    - `sigmoid`: sigmoid(s - log N) in a bag of N rows. Rows do not compete: ten tiles of tumour weigh ten times what
      one does, up to a weight of 1 each. The shift keeps the sum near that of a softmax however many rows there are
      (Ramapuram et al. 2024, Theory, analysis, and best practices for sigmoid self-attention,
      https://arxiv.org/abs/2409.04431).

    How weighted rows become a vector (`pooling`):

    - `sum`: z = sum of a h.
    - `low_rank`: z = U sum of a h, with a U of `rank` x dim for each branch: heads look at sub-spaces of their own, and
      what follows them has K rank inputs, not K dim. No one paper pins the name down; this is the value projection of
      multi-head attention, with the rank free.
    - `ggem`: z = (sum of a max(h, 1e-6)^p)^(1/p), a channel at a time, with one learnt power p > 0 for each of `groups`
      runs of channels, and a normalised to sum 1: the group generalised mean (Ko et al. 2022,
      https://arxiv.org/abs/2212.04114), where attention stands for its even weights. p = 1 is the mean, a large p the
      maximum; p starts at 3. It is for rows without negative values, as a ReLU leaves them. With one group it is the
      generalised mean alone.

    `width` is the width of a vector. Weights and powers are computed in float32 or wider.
    """

    def __init__(
        self,
        dim: int,
        *,
        branches: int = 1,
        weights: Weights = "softmax",
        pooling: Pooling = "sum",
        rank: int = 64,
        groups: int = 8,
    ) -> None:
        super().__init__()
        self.weights, self.pooling = weights, pooling
        self.width = rank if pooling == "low_rank" else dim
        if pooling == "low_rank":
            if rank < 1:
                raise ValueError("rank is 1 or more")
            self.down = nn.Parameter(torch.empty(branches, rank, dim).uniform_(-(dim**-0.5), dim**-0.5))
        if pooling == "ggem":
            if not 1 <= groups <= dim:
                raise ValueError(f"groups must lie between 1 and {dim}, the width of a row")
            self.log_power = nn.Parameter(torch.full((groups,), math.log(_FIRST_POWER)))

    def forward(
        self,
        scores: Float[Tensor, "m k"],
        h: Float[Tensor, "m d"],
        segments: Segments,
        mask: Bool[Tensor, "m k"] | None = None,
    ) -> Pooled:
        """The bags' vectors; rows where `mask` is False have no weight."""
        scores = full(scores)
        if self.weights == "softmax":
            attention = softmax(scores, segments, mask)
            weights = attention
        else:
            shifted = scores - segments.lengths.to(scores.dtype).log()[segments.ids].unsqueeze(1)
            weights = torch.sigmoid(shifted) if mask is None else torch.sigmoid(shifted) * mask
            # Normalised in logs, so that it holds where every weight underflows.
            scores = functional.logsigmoid(shifted)
            attention = softmax(scores, segments, mask)
        if self.pooling == "ggem":
            return Pooled(self._generalised_mean(scores, full(h), segments, mask), attention, attention)
        z = weighted_sum(weights, h, segments)  # (b, k, d)
        if self.pooling == "low_rank":
            z = torch.einsum("bkd,krd->bkr", z, self.down.to(z.dtype))
        return Pooled(z, weights, attention)

    def row_terms(
        self, pooled: Pooled, h: Float[Tensor, "m d"], classifier: Float[Tensor, "o k w"]
    ) -> Float[Tensor, "m o"] | None:
        """What each row adds to a linear function of the vectors: over a bag the terms sum to it exactly.

        None for a generalised mean, which is no sum over rows.
        """
        if self.pooling == "ggem":
            return None
        a = pooled.weights
        if self.pooling == "low_rank":
            classifier = torch.einsum("okr,krd->okd", classifier, self.down)
        own = torch.einsum("md,okd->mko", h.to(a.dtype), classifier.to(a.dtype))
        return (a.unsqueeze(2) * own).sum(1)

    def _generalised_mean(self, scores: Tensor, h: Tensor, segments: Segments, mask: Tensor | None) -> Tensor:
        """In logs: (1/p) (logsumexp(s + p log h) - logsumexp(s)), so that no power overflows."""
        channels = torch.arange(h.shape[1], device=h.device)
        power = self.log_power.exp()[channels * len(self.log_power) // h.shape[1]]  # (d,)
        logs = power * h.clamp(min=_LEAST).log()  # (m, d)
        kept = [None] * scores.shape[1] if mask is None else [column.unsqueeze(1) for column in mask.unbind(1)]
        whole = logsumexp(scores, segments, mask)  # (b, k)
        parts = [
            logsumexp(logs + column.unsqueeze(1), segments, keep) - share.unsqueeze(1)
            for column, keep, share in zip(scores.unbind(1), kept, whole.unbind(1))
        ]
        return (torch.stack(parts, 1) / power).exp()  # (b, k, d)
