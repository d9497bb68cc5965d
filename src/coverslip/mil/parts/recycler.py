"""A few tokens for the rows that a training step leaves out, so that what they say is not lost."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coverslip.mil.bags import Bags
from coverslip.nn.segments import Segments, full, softmax, total
from coverslip.train import Remembered

# The patch of a vision transformer that the start of the released queries is made for.
_PATCH = 16


class Recycler(nn.Module):
    """The global recycle network of MHIM-v2: k tokens a bag that summarise the rows set aside.

    Tang et al. 2025, https://arxiv.org/abs/2509.11526. For rows h of a bag and k queries G, with a layer norm N shared
    by both, `heads` heads of `head_width` and no residual:

        tokens = O softmax((Q N(G)) (K N(h))^T / sqrt(head_width)) V N(h)

    The queries get no gradient. They follow the tokens: `follow` makes them m G + (1 - m) the mean token of each query
    over the bags since it was last called, once a step. They start evenly in +-sqrt(6 / (3 * 16 * 16 + width)).
    """

    queries: Tensor

    def __init__(self, width: int, *, tokens: int, heads: int = 8, head_width: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_query = nn.Linear(width, inner, bias=False)
        self.to_key = nn.Linear(width, inner, bias=False)
        self.to_value = nn.Linear(width, inner, bias=False)
        self.out = nn.Sequential(nn.Linear(inner, width), nn.Dropout(dropout))
        self.dropout = nn.Dropout(dropout)
        bound = math.sqrt(6 / (3 * _PATCH**2 + width))
        self.register_buffer("queries", torch.empty(tokens, width).uniform_(-bound, bound))
        self._seen: Remembered[tuple[Tensor, Tensor]] = Remembered()

    def forward(self, h: Float[Tensor, "r width"], segments: Segments) -> Float[Tensor, "b k width"]:
        """The tokens; those of a bag without rows mean nothing."""
        queries = self._by_head(self.to_query(self.norm(self.queries)))  # (k, heads, e)
        normed = self.norm(h)
        keys, values = self._by_head(self.to_key(normed)), self._by_head(self.to_value(normed))  # (r, heads, e)
        scores = torch.einsum("rhe,khe->rkh", keys, queries) / math.sqrt(keys.shape[2])  # (r, k, heads)
        a = self.dropout(softmax(full(scores), segments))
        # One token at a time keeps memory at the rows' own size.
        each = [total(weights.unsqueeze(2) * values, segments).flatten(1) for weights in a.unbind(1)]
        tokens: Tensor = self.out(torch.stack(each, 1))  # (b, k, width)
        if self.training:
            filled = (segments.lengths > 0).to(tokens.dtype)
            self._seen.append((torch.einsum("b,bkd->kd", filled, tokens.detach()), filled.sum()))
        return tokens

    @torch.no_grad()
    def follow(self, momentum: float | Tensor) -> None:
        """Moves the queries towards the tokens since the last call; without any they stay."""
        if not self._seen:
            return
        summed = torch.stack([full(tokens) for tokens, _ in self._seen]).sum(0)
        count = torch.stack([full(number) for _, number in self._seen]).sum()
        self._seen.clear()
        step = torch.as_tensor(1 - momentum, dtype=self.queries.dtype, device=self.queries.device)
        mean = (summed / count.clamp(min=1)).to(self.queries.dtype)
        self.queries.lerp_(mean, step * (count > 0))

    def _by_head(self, rows: Tensor) -> Tensor:
        return rows.unflatten(1, (self.heads, -1))


def with_tokens(bags: Bags, tokens: Float[Tensor, "b k width"], given: Bool[Tensor, b]) -> Bags:
    """The bags with the tokens behind the rows of those that are `given` some; without positions and keys, since
    tokens lie nowhere."""
    k = tokens.shape[1]
    owners = torch.arange(len(bags), device=given.device)[given].repeat_interleave(k)
    order = torch.argsort(torch.cat([bags.seg, owners]), stable=True)
    x = torch.cat([bags.x, tokens[given].flatten(0, 1).to(bags.x.dtype)])[order]
    lengths = bags.lengths + given * k
    return Bags(x, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]), None, bags.slides)
