"""Rows laid line by line in a square that is cut into regions, and attention inside regions and between them.

Bags are packed. Only attention pads: `Groups` puts groups of rows side by side, so that many small ones take one call.

Tang et al.: Feature re-embedding: towards foundation model-level performance in computational pathology, CVPR 2024,
https://arxiv.org/abs/2402.17228. Written from the paper's formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from coverslip.nn.segments import Segments, full, position

# Groups share a batch while it has no more places to spare than this: they cost less than a further call.
_SPARE_PLACES = 1024


@dataclass(frozen=True)
class Regions:
    """Where n rows lie that fill a square line by line, cut into `across` x `across` regions of `side` x `side` places.

    Regions are numbered line by line, as are the places in a region. Only the first `num` have a row; with
    `keep_empty` all are kept, and places without a row count as rows of zeros.
    """

    rows: int
    across: int
    side: int
    num: int
    keep_empty: bool

    @classmethod
    def of(cls, rows: int, across: int, *, keep_empty: bool = False) -> Regions:
        """The smallest square with room for `rows` that can be cut so."""
        side = -(-(math.isqrt(rows - 1) + 1) // across)
        line = across * side
        full_bands, left = divmod(rows, line * side)
        # Of the last band of regions those count that the first of its lines reaches.
        num = full_bands * across + min(across, -(-left // side))
        return cls(rows, across, side, across**2 if keep_empty else num, keep_empty)


@dataclass(frozen=True)
class Groups:
    """Groups of n rows, in batches (g, p) of g groups side by side, each padded to p places. Each row is in one group.

    `places` is the row at each place of each batch, n where there is none; `taken` says which places count.
    """

    num_rows: int
    places: tuple[Int64[Tensor, "g p"], ...]
    taken: tuple[Bool[Tensor, "g p"], ...]

    @classmethod
    def of_lengths(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> Groups:
        """Groups of these numbers of rows behind each other, the shortest first."""
        first = [0, *accumulate(lengths)]
        places, taken = [], []
        for batch in _joint([(1, length) for length in lengths]):
            known = torch.tensor([(first[i], lengths[i]) for i in batch], device=device)
            start, length = known.T.unsqueeze(2)  # (g, 1) each
            place = torch.arange(max(lengths[i] for i in batch), device=device)
            taken.append(place < length)
            places.append(torch.where(taken[-1], start + place, first[-1]))
        return cls(first[-1], tuple(places), tuple(taken))

    def each(self, k: int) -> Groups:
        """The groups of k n rows where each row became k side by side: all the first, all the second, and so on."""
        kind = torch.arange(k, device=self.places[0].device).unsqueeze(1)
        places = [(place.unsqueeze(1) * k + kind).clamp(max=k * self.num_rows).flatten(0, 1) for place in self.places]
        taken = [taken.repeat_interleave(k, 0) for taken in self.taken]
        return Groups(k * self.num_rows, tuple(places), tuple(taken))

    def cut(self, x: Float[Tensor, "n+1 d"]) -> list[Float[Tensor, "g p d"]]:
        """The rows by group, a batch at a time; the one behind the n rows serves all places without one."""
        # One call for all batches: each call's gradient fills a tensor as long as x.
        cut = x.index_select(0, self._row_of_place)
        parts = cut.split([place.numel() for place in self.places])
        return [part.unflatten(0, place.shape) for part, place in zip(parts, self.places)]

    def join(self, batches: Sequence[Float[Tensor, "g p d"]]) -> Float[Tensor, "n d"]:
        """The rows of all batches, in their own order again."""
        return torch.cat([batch.flatten(0, 1) for batch in batches]).index_select(0, self._place_of_row)

    @cached_property
    def _row_of_place(self) -> Int64[Tensor, p]:
        return torch.cat([place.flatten() for place in self.places])

    @cached_property
    def _place_of_row(self) -> Int64[Tensor, n]:
        row = self._row_of_place
        # Places without a row write to one behind the last.
        found = row.new_empty(self.num_rows + 1)
        return found.scatter_(0, row, torch.arange(len(row), device=row.device))[: self.num_rows]


@dataclass(frozen=True)
class PackedRegions:
    """Packed bags, cut into regions: `inside` groups rows by region, `across` regions by bag.

    Regions are numbered as they come in the batches of `inside`.
    """

    inside: Groups
    across: Groups

    @classmethod
    def of(cls, bags: Sequence[Regions], device: torch.device | str = "cpu") -> PackedRegions:
        """The regions of these bags."""
        first = [0, *accumulate(bag.rows for bag in bags)]
        batches = _joint([(bag.num, bag.side**2) for bag in bags])
        found = [_places([bags[i] for i in batch], [first[i] for i in batch], first[-1], device) for batch in batches]
        inside = Groups(first[-1], tuple(place for place, _ in found), tuple(taken for _, taken in found))
        return cls(inside, Groups.of_lengths([bags[i].num for batch in batches for i in batch], device))


def _joint(shapes: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Which items share a batch, each of so many groups of one length; the shortest first."""
    batches: list[list[int]] = []
    groups = filled = 0
    for item in sorted(range(len(shapes)), key=lambda i: shapes[i][1]):
        num, length = shapes[item]
        if not batches or groups * length - filled > _SPARE_PLACES:
            batches.append([])
            groups = filled = 0
        batches[-1].append(item)
        groups, filled = groups + num, filled + num * length
    return batches


def _places(
    bags: Sequence[Regions], first: Sequence[int], none: int, device: torch.device | str
) -> tuple[Int64[Tensor, "r p"], Bool[Tensor, "r p"]]:
    """The row at each place of each bag's regions, `none` where there is none, and which places count.

    `first` is the number of each bag's first row.
    """
    segments = Segments.of_lengths([bag.num for bag in bags], device)
    known = [(start, bag.rows, bag.across, bag.side, bag.keep_empty) for start, bag in zip(first, bags)]
    start, rows, across, side, keep_empty = torch.tensor(known, device=device)[segments.ids].T.unsqueeze(2)  # (r, 1)
    region = position(segments).unsqueeze(1)
    place = torch.arange(max(bag.side for bag in bags) ** 2, device=device)
    line = region // across * side + place // side  # (r, p)
    column = region % across * side + place % side
    row = line * across * side + column
    own = place < side**2
    has_row = own & (row < rows)
    return torch.where(has_row, start + row, none), has_row | own & keep_empty.bool()


class GroupAttention(nn.Module):
    """Rows (n, dim) to rows that have attended on their own group: multi-head attention, dropout.

    With a `kernel` scores gain a convolution of themselves along the queries, each head and key by itself: EPEG, the
    paper's embedded position encoding. The convolution has no bias, which softmax would not see. Scores are linear in
    the queries, so those are convolved in their place. Places that do not count are looked at by none and lend no
    score to their neighbours; those that count without a row hold zeros.
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

    def forward(self, x: Float[Tensor, "n d"], groups: Groups) -> Float[Tensor, "n d"]:
        qkv = groups.cut(full(self.qkv(_and_zeros(x))))
        mixed = groups.join([self._mix(batch, taken) for batch, taken in zip(qkv, groups.taken)])
        return self.dropout(self.out(mixed))

    def _mix(self, qkv: Float[Tensor, "g p 3e"], taken: Bool[Tensor, "g p"]) -> Float[Tensor, "g p e"]:
        q, k, v = qkv.unflatten(2, (3, self.heads, self.e)).permute(2, 0, 3, 1, 4).unbind(0)  # (g, heads, p, e)
        with torch.autocast(qkv.device.type, enabled=False):
            if self.positions is not None:
                q = q + self.positions(q.masked_fill(~taken[:, None, :, None], 0))
            mixed = F.scaled_dot_product_attention(q, k, v, taken[:, None, None, :])
        return mixed.transpose(1, 2).flatten(2)


class CrossRegionAttention(nn.Module):
    """Rows (n, dim) of packed bags to what each gets from the other regions of its bag: CR-MSA.

    `tokens` learnt directions phi give each row K scores l = x phi. In each region and for each of them,

        token = sum over rows of softmax_p(l) x              attention among the regions' tokens changes it to token'
        row's gain = sum over K of softmax_K(l) m token'     m = (l - min_p l) / (max_p l - min_p l)

    Places that do not count are in none of these. A region with one row, or equal ones, has m = 1 where the
    quotient says nothing; with `released` it is 0, as there.
    """

    def __init__(
        self, dim: int, *, tokens: int = 3, heads: int = 8, dropout: float = 0.1, released: bool = False
    ) -> None:
        super().__init__()
        if tokens < 1:
            raise ValueError("there is at least one token")
        self.tokens, self.released = tokens, released
        self.phi = nn.Linear(dim, tokens, bias=False)
        self.attention = GroupAttention(dim, heads=heads, dropout=dropout)

    def forward(self, x: Float[Tensor, "n d"], regions: PackedRegions) -> Float[Tensor, "n d"]:
        rows = regions.inside.cut(_and_zeros(x))
        gathered = [self._gather(batch, taken) for batch, taken in zip(rows, regions.inside.taken)]
        tokens = torch.cat([tokens for tokens, _ in gathered]).flatten(0, 1)
        tokens = self.attention(tokens, regions.across.each(self.tokens)).unflatten(0, (-1, self.tokens))  # (r, k, d)
        shares = [share for _, share in gathered]
        changed = tokens.split([len(share) for share in shares])
        return regions.inside.join([share @ own for share, own in zip(shares, changed)])

    def _gather(
        self, x: Float[Tensor, "r p d"], taken: Bool[Tensor, "r p"]
    ) -> tuple[Float[Tensor, "r k d"], Float[Tensor, "r p k"]]:
        """The tokens of regions, and what each row will take of them."""
        scores = full(self.phi(x)).mT  # (r, k, p)
        absent = ~taken.unsqueeze(1)
        low = scores.masked_fill(absent, torch.inf).amin(2, keepdim=True)
        high = scores.masked_fill(absent, -torch.inf).amax(2, keepdim=True)
        share = (scores - low) / (high - low + 1e-8)
        if not self.released:
            share = torch.where(high - low > 1e-8, share, torch.ones_like(share))
        share = share * scores.softmax(1)
        combine = scores.masked_fill(absent, -torch.inf).softmax(2)
        with torch.autocast(x.device.type, enabled=False):
            return combine @ full(x), share.mT


def _and_zeros(x: Tensor) -> Tensor:
    """The rows, and a row of zeros behind them."""
    return F.pad(x, (0, 0, 0, 1))
