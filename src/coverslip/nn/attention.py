"""Attention whose matrix is never made, and what single rows add to logits behind a norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coverslip.nn.segments import Segments, full

# What the fused kernels of GPUs take in every precision.
_ALIGNED = 8


def attend(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h m e"],
    v: Float[Tensor, "b h m f"],
    taken: Bool[Tensor, "b m"] | None = None,
) -> Float[Tensor, "b h n f"]:
    """softmax(q k^T) v of each bag and head, in memory of n + m, forward and backward.

    Places that are not `taken` are looked at by none. torch's fused kernels go over it in blocks. They want one width
    for all three, so narrower ones are filled up with zeros, which change no product.
    """
    width = -(-max(q.shape[-1], v.shape[-1]) // _ALIGNED) * _ALIGNED
    wide_q, wide_k, wide_v = (F.pad(values, (0, width - values.shape[-1])) for values in (q, k, v))
    mask = None if taken is None else taken[:, None, None]
    return F.scaled_dot_product_attention(wide_q, wide_k, wide_v, attn_mask=mask, scale=1.0)[..., : v.shape[-1]]


def logit_shares(
    shares: Float[Tensor, "m e"],
    out: Float[Tensor, "d e"],
    c: Float[Tensor, "b d"],
    norm: nn.LayerNorm,
    classifier: nn.Linear,
    segments: Segments,
) -> Float[Tensor, "m k"]:
    """What each row adds to classifier(norm(c)), where its part of its bag's c is `out` applied to its share.

    A norm subtracts a mean, divides by a spread and scales. All but the spread is linear; with the spread that c has,
    the terms of c's parts add up to the logits, less the biases: Kobayashi et al. 2021, https://arxiv.org/abs/2109.07152.
    """
    with torch.autocast(c.device.type, enabled=False):
        slope = full(classifier.weight * norm.weight)  # (k, d)
        slope = (slope - slope.mean(1, keepdim=True)) @ full(out)  # (k, e)
        spread = (full(c).var(1, correction=0) + norm.eps).sqrt()  # (b)
        return full(shares) @ slope.T / spread[segments.ids].unsqueeze(1)
