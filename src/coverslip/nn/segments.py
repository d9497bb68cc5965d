"""Operations over the rows of packed bags: softmax, sum, mean, max, top-k, rank, entropy.

Bags are packed, never padded: the rows of all bags lie behind each other in one tensor (M, ...), and `Segments` says
which rows are whose. Everything else in the package that looks at "the rows of one bag" is written with these. None of
them copies anything to the host, so a GPU is not kept waiting. Half-precision values are computed in float32 and
cast back.

Scatter was measured against `index_add`, `segment_reduce`, a loop over bags and a matrix product, forward and backward
on a CPU: on 40,000 x 512 in 8 bags it takes 24 ms against 126, 172, 28 and 38, and on small bags it is never slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

_HALF = {torch.float16, torch.bfloat16}


@dataclass(frozen=True)
class Segments:
    """Which of M rows belong to which of B bags: `offsets` (B+1,) with bag b in rows offsets[b] to offsets[b+1]."""

    offsets: Int64[Tensor, b + 1]
    num_rows: int

    @classmethod
    def of_lengths(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> Segments:
        """Segments of bags with these numbers of rows."""
        offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
        torch.cumsum(torch.as_tensor(list(lengths), dtype=torch.int64), 0, out=offsets[1:])
        return cls(offsets.to(device), sum(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Int64[Tensor, b]:
        """Rows of each bag."""
        return self.offsets.diff()

    @cached_property
    def ids(self) -> Int64[Tensor, m]:
        """The bag of each row."""
        bags = torch.arange(len(self), device=self.offsets.device)
        # The known output size spares a GPU the wait for its sum.
        return torch.repeat_interleave(bags, self.lengths, output_size=self.num_rows)


def full(values: Float[Tensor, ...]) -> Float[Tensor, ...]:
    """The values in float32 where they are half precision, else as they are: what sums and exponentials are made in."""
    return values.float() if values.dtype in _HALF else values


def total(values: Float[Tensor, "m ..."], segments: Segments) -> Float[Tensor, "b ..."]:
    """The sum of each bag's rows; zeros for a bag without rows."""
    wide = full(values)
    result = wide.new_zeros(len(segments), *wide.shape[1:])
    return result.scatter_reduce(0, _index(segments, wide), wide, "sum").to(values.dtype)


def mean(values: Float[Tensor, "m ..."], segments: Segments) -> Float[Tensor, "b ..."]:
    """The mean of each bag's rows; zeros for a bag without rows."""
    wide = full(values)
    lengths = segments.lengths.clamp(min=1).to(wide.dtype)
    return (total(wide, segments) / _like(lengths, wide)).to(values.dtype)


def maximum(
    values: Float[Tensor, "m ..."], segments: Segments, mask: Bool[Tensor, "m ..."] | None = None
) -> Float[Tensor, "b ..."]:
    """The largest value of each bag, a column at a time; zeros where no row is left. Equal rows share the gradient."""
    wide = _masked(values, mask)
    lowest = wide.new_full((len(segments), *wide.shape[1:]), -torch.inf)
    result = lowest.scatter_reduce(0, _index(segments, wide), wide, "amax")
    return torch.where(torch.isneginf(result), torch.zeros_like(result), result).to(values.dtype)


def softmax(
    scores: Float[Tensor, "m ..."], segments: Segments, mask: Bool[Tensor, "m ..."] | None = None
) -> Float[Tensor, "m ..."]:
    """Weights that sum to 1 over each bag, a column at a time.

    Rows where `mask` is False get no weight; a bag whose rows are all masked gets zeros, not NaN.
    """
    weights, bag_sum = _exponentials(scores, segments, mask)
    return (weights / _positive(bag_sum)[segments.ids]).to(scores.dtype)


def logsumexp(
    scores: Float[Tensor, "m ..."], segments: Segments, mask: Bool[Tensor, "m ..."] | None = None
) -> Float[Tensor, "b ..."]:
    """log of the sum of exp(scores) of each bag; zero where no row is left."""
    _, bag_sum = _exponentials(scores, segments, mask)
    peak = maximum(_masked(scores, mask).detach(), segments)
    return (_positive(bag_sum).log() + peak).to(scores.dtype)


def entropy(
    scores: Float[Tensor, "m ..."], segments: Segments, mask: Bool[Tensor, "m ..."] | None = None
) -> Float[Tensor, "b ..."]:
    """Entropy (nats) of each bag's softmax, as logsumexp(s) - sum(a s): exact where single weights underflow.

    log(N) for equal scores, 0 for a bag with one row or none.
    """
    wide = full(scores)
    weights = softmax(wide, segments, mask)
    # A masked row's score may be anything, infinity too: it must not meet its zero weight.
    kept = wide if mask is None else wide.masked_fill(~mask, 0)
    return (logsumexp(wide, segments, mask) - total(weights * kept, segments)).to(scores.dtype)


def weighted_sum(
    weights: Float[Tensor, "m k"], rows: Float[Tensor, "m d"], segments: Segments
) -> Float[Tensor, "b k d"]:
    """The sum of each bag's rows under each of K columns of weights; one column at a time to keep memory at M x D."""
    return torch.stack([total(column.unsqueeze(1) * rows, segments) for column in weights.unbind(1)], dim=1)


def position(segments: Segments) -> Int64[Tensor, m]:
    """The place of each row inside its bag: 0, 1, 2 ... in each bag."""
    rows = torch.arange(segments.num_rows, device=segments.offsets.device)
    return rows - segments.offsets[:-1][segments.ids]


def rank(scores: Float[Tensor, "m ..."], segments: Segments) -> Int64[Tensor, "m ..."]:
    """The rank of each row inside its bag, a column at a time: 0 is the largest; of equal scores the first row wins."""
    if scores.ndim > 1:
        columns = [rank(column, segments) for column in scores.reshape(len(scores), -1).unbind(1)]
        return torch.stack(columns, dim=1).reshape(scores.shape)
    # Rows by falling score, then, keeping that order, by bag.
    falling = torch.argsort(scores, descending=True, stable=True)
    order = falling[torch.argsort(segments.ids[falling], stable=True)]
    # order[i] is the row at packed place i, and places and rows of a bag are the same range.
    return torch.empty_like(order).scatter_(0, order, position(segments))


def random_rank(segments: Segments, generator: torch.Generator | None = None) -> Int64[Tensor, m]:
    """A random order of each bag's rows: 0, 1, 2 ... once in each bag. Drawn on the generator's device; without one,
    from the default generator of the device of the segments."""
    device = segments.offsets.device
    drawn_on = device if generator is None else generator.device
    scores = torch.randperm(segments.num_rows, generator=generator, device=drawn_on)
    return rank(scores.to(device), segments)


def first_largest(values: Float[Tensor, "m ..."], segments: Segments) -> Int64[Tensor, "b ..."]:
    """The packed place of each bag's largest row, a column at a time: of equal ones the first. Bags without rows and
    NaN have no largest row and give the last place of all."""
    peak = maximum(values, segments)[segments.ids]
    rows = _like(torch.arange(segments.num_rows, device=values.device), values).expand_as(values)
    last = segments.num_rows - 1
    candidates = torch.where(values == peak, rows, last)
    places = candidates.new_full((len(segments), *values.shape[1:]), last)
    return places.scatter_reduce(0, _index(segments, values), candidates, "amin")


def top(scores: Float[Tensor, "m ..."], segments: Segments, k: int) -> Bool[Tensor, "m ..."]:
    """True for the k largest rows of each bag (all of a shorter bag); among equal scores the first rows win."""
    return rank(scores, segments) < k


def _exponentials(scores: Tensor, segments: Segments, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """exp(score - the bag's largest), 0 where masked, and its sum over each bag."""
    wide = _masked(scores, mask)
    # The shift cancels in value and gradient; it only keeps exp from overflowing.
    peak = maximum(wide.detach(), segments)
    weights = (wide - peak[segments.ids]).exp()
    return weights, total(weights, segments)


def _positive(sums: Tensor) -> Tensor:
    """The sums with 1 for the zeros of empty bags; every other sum is at least 1."""
    return torch.where(sums == 0, torch.ones_like(sums), sums)


def _masked(values: Tensor, mask: Tensor | None) -> Tensor:
    wide = full(values)
    return wide if mask is None else wide.masked_fill(~mask, -torch.inf)


def _index(segments: Segments, values: Tensor) -> Tensor:
    return _like(segments.ids, values).expand_as(values)


def _like(per_row: Tensor, values: Tensor) -> Tensor:
    """`per_row` with trailing axes of length 1, so that it broadcasts against `values`."""
    return per_row.reshape(-1, *[1] * (values.ndim - 1))
