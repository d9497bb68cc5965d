"""Rows laid line by line in a square that is cut into regions, and attention inside regions and between them.

Tang et al.: Feature re-embedding: towards foundation model-level performance in computational pathology, CVPR 2024,
https://arxiv.org/abs/2402.17228. Written from the paper's formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from coverslip.nn.segments import full


@dataclass(frozen=True)
class Regions:
    """Where n rows lie that fill a square line by line, cut into `across` x `across` regions of `side` x `side` places.

    Regions are numbered line by line, as are the places in a region. Only the first `num` have a row.
    """

    rows: int
    across: int
    side: int
    num: int

    @classmethod
    def of(cls, rows: int, across: int, *, keep_empty: bool = False) -> Regions:
        """The smallest square with room for `rows` that can be cut so; with `keep_empty` all regions are kept."""
        side = -(-(math.isqrt(rows - 1) + 1) // across)
        line = across * side
        full_bands, left = divmod(rows, line * side)
        # Of the last band of regions those count that the first of its lines reaches.
        num = full_bands * across + min(across, -(-left // side))
        return cls(rows, across, side, across**2 if keep_empty else num)

    def cut(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "r p d"]:
        """The rows by region, zeros at places without one."""
        place = self.places(x.device)
        # One row of zeros behind the others serves all places without one.
        return torch.cat([x, x.new_zeros(1, x.shape[1])])[place.clamp(max=self.rows)]

    def join(self, regions: Float[Tensor, "r p d"]) -> Float[Tensor, "n d"]:
        """The rows of regions, in their own order again."""
        row = torch.arange(self.rows, device=regions.device)
        line, column = row // (self.across * self.side), row % (self.across * self.side)
        region = line // self.side * self.across + column // self.side
        return regions[region, line % self.side * self.side + column % self.side]

    def taken(self, device: torch.device) -> Bool[Tensor, "r p"]:
        """Which places have a row."""
        return self.places(device) < self.rows

    def places(self, device: torch.device) -> Int64[Tensor, "r p"]:
        """The number of the row at each place; those from `rows` on have none."""
        region, place = torch.arange(self.num, device=device), torch.arange(self.side**2, device=device)
        line = (region // self.across * self.side).unsqueeze(1) + place // self.side
        column = (region % self.across * self.side).unsqueeze(1) + place % self.side
        return line * self.across * self.side + column


class GroupAttention(nn.Module):
    """Rows (g, p, dim) of g groups to rows that have attended on their own group: multi-head attention, dropout.

    With a `kernel` scores gain a convolution of themselves along the queries, each head and key by itself: EPEG, the
    paper's embedded position encoding. The convolution has no bias, which softmax would not see. Places that are not
    `taken` are looked at by none and lend no score to their neighbours.
    """

    def __init__(self, dim: int, *, heads: int = 8, kernel: int = 0, dropout: float = 0.1) -> None:
        super().__init__()
        if kernel and kernel % 2 == 0:
            raise ValueError("the position kernel is odd, or 0 for none")
        if heads < 1:
            raise ValueError("there is at least one head")
        self.heads, self.e = heads, max(1, dim // heads)
        self.qkv = nn.Linear(dim, 3 * heads * self.e)
        self.positions: nn.Conv2d | None = None
        if kernel:
            self.positions = nn.Conv2d(heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads, bias=False)
        self.out = nn.Linear(heads * self.e, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "g p d"], taken: Bool[Tensor, "g p"] | None = None) -> Float[Tensor, "g p d"]:
        q, k, v = full(self.qkv(x)).unflatten(2, (3, self.heads, self.e)).permute(2, 0, 3, 1, 4).unbind(0)
        with torch.autocast(x.device.type, enabled=False):
            scores = (q * self.e**-0.5) @ k.mT  # (g, heads, p, p)
            if self.positions is not None:
                known = scores if taken is None else scores.masked_fill(~taken[:, None, :, None], 0)
                scores = scores + self.positions(known)
            if taken is not None:
                scores = scores.masked_fill(~taken[:, None, None, :], -torch.inf)
            mixed = scores.softmax(-1) @ v  # (g, heads, p, e)
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))


class CrossRegionAttention(nn.Module):
    """Rows (r, p, dim) of regions to what each gets from the other regions: CR-MSA.

    `tokens` learnt directions phi give each row K scores l = x phi. In each region and for each of them,

        token = sum over rows of softmax_p(l) x              attention among the regions' tokens changes it to token'
        row's gain = sum over K of softmax_K(l) m token'     m = (l - min_p l) / (max_p l - min_p l)

    Places that are not `taken` count in none of these. A region with one row, or equal ones, has m = 1 where the
    quotient says nothing; with `released` it is 0, as there.
    """

    def __init__(
        self, dim: int, *, tokens: int = 3, heads: int = 8, dropout: float = 0.1, released: bool = False
    ) -> None:
        super().__init__()
        if tokens < 1:
            raise ValueError("there is at least one token")
        self.released = released
        self.phi = nn.Linear(dim, tokens, bias=False)
        self.attention = GroupAttention(dim, heads=heads, dropout=dropout)

    def forward(self, x: Float[Tensor, "r p d"], taken: Bool[Tensor, "r p"] | None = None) -> Float[Tensor, "r p d"]:
        scores = full(self.phi(x)).mT  # (r, k, p)
        absent = torch.zeros_like(scores, dtype=torch.bool) if taken is None else ~taken.unsqueeze(1)
        low = scores.masked_fill(absent, torch.inf).amin(2, keepdim=True)
        high = scores.masked_fill(absent, -torch.inf).amax(2, keepdim=True)
        share = (scores - low) / (high - low + 1e-8)
        if not self.released:
            share = torch.where(high - low > 1e-8, share, torch.ones_like(share))
        share = share * scores.softmax(1)
        combine = scores.masked_fill(absent, -torch.inf).softmax(2)
        with torch.autocast(x.device.type, enabled=False):
            tokens = combine @ full(x)  # (r, k, d)
        tokens = self.attention(tokens.transpose(0, 1)).transpose(0, 1)
        return share.mT @ tokens
