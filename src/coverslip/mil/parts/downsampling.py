"""Attention-driven downsampling: groups of random rows become one row, so that a step sees a slide in fewer rows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from coverslip.mil.bags import Bags
from coverslip.nn.layers import AttentionScores
from coverslip.nn.segments import Segments, full, position, rank, softmax


class AttentionDownsampling(nn.Module):
    """Rows (m, d) to rows of the same width; in training, `ratio` r random rows of a bag become one.

        g = softmax of w^T tanh(V x) over the bag
        e = gelu(E (x + g x))
        row = F e

    `forward` gives that for every row: what evaluation uses. `grouped` puts a step between e and F: the rows of a bag
    in a random order, r by r, and of each group's r d numbers a random d, the same ones for all groups of the call. So
    training and evaluation see rows of different make-up, by design: F learns from rows whose numbers come from
    several tiles, and reads single tiles later. What a number of a group means is kept: the number at place j is that
    of place j of one of the group's rows, and a last group of fewer rows takes its numbers from those it has.

    With `official` d of the r d numbers, laid channel by channel, are drawn at will and keep their order, as in the
    released code: place j then holds a number of about place j, a row may give none, and a last group is filled up
    with rows of zeros (there scattered over all groups, here at the end).

    From PackMIL, Tang et al. 2025, https://arxiv.org/abs/2509.20923.
    """

    def __init__(self, dim: int, ratio: int, *, hidden: int = 128, official: bool = False) -> None:
        super().__init__()
        if ratio < 2:
            raise ValueError("rows are put together by twos or more")
        self.ratio, self.official = ratio, official
        self.scores = AttentionScores(dim, hidden, gated=False)
        self.embed = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, bags: Bags) -> Bags:
        """The same bags with every row by itself."""
        return bags.with_x(self.out(self._embedded(bags)))

    def grouped_lengths(self, lengths: tuple[int, ...], min_rows: int) -> tuple[int, ...]:
        """How many rows `grouped` makes of bags with these numbers of rows."""
        return tuple(-(-n // self.ratio) if n > min_rows else n for n in lengths)

    def grouped(self, bags: Bags, lengths: tuple[int, ...], *, min_rows: int = 0) -> Bags:
        """Bags of fewer rows; those of at most `min_rows` keep every row by itself. `lengths` are the bags' own.

        Rows of groups have no positions and no keys.
        """
        e = self._embedded(bags)
        m, dim = e.shape
        # by_rank[first row of a bag + r] is its row of random rank r.
        drawn = rank(torch.rand(m, device=e.device), bags.segments)
        by_rank = torch.empty_like(drawn).scatter(
            0, bags.offsets[:-1][bags.seg] + drawn, torch.arange(m, device=e.device)
        )
        groups = Segments.of_lengths(self.grouped_lengths(lengths, min_rows), e.device)
        step = torch.where(bags.lengths > min_rows, self.ratio, 1)[groups.ids]
        start = position(groups) * step  # the first rank of each group
        size = torch.minimum(step, bags.lengths[groups.ids] - start)[:, None]  # (g, 1)
        slot, channel = self._numbers(dim, e.device)
        rows = by_rank[(bags.offsets[:-1][groups.ids] + start)[:, None] + slot % size]  # (g, d)
        numbers = e[rows, channel]
        if self.official:
            filled = (slot >= size) & (step[:, None] > 1)
            numbers = torch.where(filled, functional.gelu(self.embed.bias)[channel].to(e.dtype), numbers)
            single = e[by_rank[bags.offsets[:-1][groups.ids] + start]]
            numbers = torch.where(step[:, None] > 1, numbers, single)
        return Bags(self.out(numbers), groups.offsets, None, bags.slides)

    def _embedded(self, bags: Bags) -> Float[Tensor, "m d"]:
        g = softmax(full(self.scores(bags.x)), bags.segments)  # (m, 1)
        e: Tensor = functional.gelu(self.embed(bags.x + g * bags.x))
        return e

    def _numbers(self, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Of which row of its group, and of which place there, each number of a new row is."""
        if self.official:
            drawn = torch.randperm(self.ratio * dim, device=device)[:dim].sort().values
            return drawn % self.ratio, drawn.div(self.ratio, rounding_mode="floor")
        return torch.randint(self.ratio, (dim,), device=device), torch.arange(dim, device=device)
