"""Short bags of packed rows beside each other in a padded batch, for what looks at several rows of a bag at a time.

Rows are packed (`coverslip.nn.segments`), and what is done to single rows is done to all at once. A matrix of scores or
a convolution is made for each bag; a call for each costs more than its numbers where bags are short. So neighbours of
like length share a batch, and what becomes of the padding is left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from coverslip.nn.segments import Segments, position

# Up to this many rows a place without a row costs less than one more batch.
_FEW = 32


def batches(
    x: Float[Tensor, "m ..."], lengths: Sequence[int], *, most: int
) -> Iterator[tuple[Float[Tensor, "r ..."], list[int]]]:
    """The rows of neighbouring bags that are worth one batch, and the length of each of these bags.

    The longest has at most twice the rows of the shortest, or at most 32; a bag of more than `most` rows is by itself.
    In order of length bags have the fewest batches.
    """
    runs: list[list[int]] = []
    for rows in lengths:
        if runs and _alike([*runs[-1], rows], most):
            runs[-1].append(rows)
        else:
            runs.append([rows])
    return zip(x.split([sum(run) for run in runs]), runs, strict=True)


def _alike(lengths: list[int], most: int) -> bool:
    longest = max(lengths)
    return longest <= most and longest <= max(2 * min(lengths), _FEW)


@dataclass(frozen=True)
class Padded:
    """Where the packed rows of `bags` bags lie in a batch of `size` places a bag: row i at places[i] of all of them.

    Without `places` there is no padding, and rows lie as they are packed.
    """

    bags: int
    size: int
    places: Int64[Tensor, m] | None = None

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Padded:
        """Each bag's rows behind each other, then nothing up to the length of the longest."""
        size = max(lengths)
        if min(lengths) == size:
            return cls(len(lengths), size)
        segments = Segments.of_lengths(lengths, device)
        return cls(len(lengths), size, position(segments) + size * segments.ids)

    def lay(self, x: Float[Tensor, "m ..."]) -> Float[Tensor, "b n ..."]:
        """The rows at their places, zeros at the others."""
        if self.places is not None:
            x = x.new_zeros(self.bags * self.size, *x.shape[1:]).index_copy(0, self.places, x)
        return x.unflatten(0, (self.bags, self.size))

    def pick(self, batch: Float[Tensor, "b n ..."]) -> Float[Tensor, "m ..."]:
        """What lies at the rows' places, packed again."""
        x = batch.flatten(0, 1)
        return x if self.places is None else x.index_select(0, self.places)

    def taken(self) -> Bool[Tensor, "b n"] | None:
        """Which places have a row; None where all have."""
        if self.places is None:
            return None
        free = torch.zeros(self.bags * self.size, dtype=torch.bool, device=self.places.device)
        return free.index_fill(0, self.places, True).unflatten(0, (self.bags, self.size))
