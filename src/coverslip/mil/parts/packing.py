"""Packs of slides: which slides share one, what their rows are, and which rows of a slide go where.

Which slides go together depends on their lengths and is decided on the host, so lengths are plain numbers here. All
else is done where the rows are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coverslip.mil.bags import Bags
from coverslip.mil.source import SLIDE_GAP_UM
from coverslip.nn.segments import Segments, maximum, rank


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs of places, each with at most `capacity` rows: longest first, each into the first pack with room for it.

    A length beyond the capacity is a pack by itself. Never more than 11/9 of the fewest packs possible plus
    6/9 (Dosa 2007, https://doi.org/10.1007/978-3-540-74450-4_1).
    """
    packs: list[list[int]] = []
    room: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fits = next((i for i, left in enumerate(room) if lengths[place] <= left), None)
        if fits is None:
            packs.append([place])
            room.append(capacity - lengths[place])
        else:
            packs[fits].append(place)
            room[fits] -= lengths[place]
    return packs


def next_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs of places in their order, each with at most `capacity` rows: a new one where the last has no room.

    A length beyond the capacity is a pack by itself.
    """
    packs: list[list[int]] = []
    left = 0
    for place, length in enumerate(lengths):
        if not packs or length > left:
            packs.append([])
            left = capacity
        packs[-1].append(place)
        left -= length
    return packs


@dataclass(frozen=True)
class Halves:
    """The two parts that the rows of some bags were dealt to."""

    main: Bags
    """Every bag has some rows here."""
    residual: Bags | None
    """The bags that have rows left; None where none has."""
    owners: tuple[int, ...]
    """The place of each residual bag among all bags."""
    main_lengths: tuple[int, ...]
    residual_lengths: tuple[int, ...]


def split_rows(
    bags: Bags, lengths: Sequence[int], keep: float, *, min_rows: int = 0, most: int | None = None
) -> Halves:
    """A random `keep` of each bag's rows (rounded down, one at least), and the rest; rows stay in their order.

    `lengths` are the bags' own, on the host. A bag of fewer than `min_rows` rows is whole in both. With `most`, either
    part holds at most that many rows of a bag; the others are left out. Chance is torch's default generator's.
    """
    whole = [n < min_rows for n in lengths]
    first = [n if all_ else max(1, int(n * keep)) for n, all_ in zip(lengths, whole)]
    rest = [n if all_ else n - kept for n, kept, all_ in zip(lengths, first, whole)]
    if most is not None:
        first, rest = [min(n, most) for n in first], [min(n, most) for n in rest]
    start = [0 if all_ else n - left for n, left, all_ in zip(lengths, rest, whole)]

    drawn = rank(torch.rand(len(bags.x), device=bags.x.device), bags.segments)

    def each(numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=drawn.device)[bags.seg]

    owners = tuple(i for i, n in enumerate(rest) if n)
    last = [a + n for a, n in zip(start, rest)]
    residual = _only(bags, (drawn >= each(start)) & (drawn < each(last)), rest) if owners else None
    left = tuple(rest[i] for i in owners)
    return Halves(_only(bags, drawn < each(first), first), residual, owners, tuple(first), left)


def without_boundaries(bags: Bags, packs: Sequence[Sequence[int]]) -> Bags:
    """One bag a pack: the rows of its bags behind each other, as if they were one slide's. Each bag is in one pack."""
    order = torch.tensor([place for pack in packs for place in pack], device=bags.x.device)
    assert len(order) == len(bags)
    lengths = bags.lengths[order]
    starts = bags.offsets[order] - (lengths.cumsum(0) - lengths)
    rows = torch.repeat_interleave(starts, lengths, output_size=len(bags.x))
    rows = rows + torch.arange(len(bags.x), device=rows.device)
    ends = torch.tensor([0, *(len(pack) for pack in packs)], device=rows.device).cumsum(0)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])[ends]
    names = tuple("+".join(bags.slides[place] for place in pack) for pack in packs)
    xy_um = None if bags.xy_um is None else _side_by_side(bags.xy_um, bags.segments)[rows]
    return Bags(bags.x[rows], offsets, xy_um, names, None if bags.keys is None else bags.keys[rows])


def _only(bags: Bags, mask: Bool[Tensor, m], lengths: list[int]) -> Bags:
    """The rows where `mask` is True; their numbers are known, so that a GPU need not be asked. Empty bags are gone."""
    # The places of True, in order.
    rows = torch.argsort((~mask).to(torch.uint8), stable=True)[: sum(lengths)]
    offsets = Segments.of_lengths([n for n in lengths if n], mask.device).offsets
    names = tuple(name for name, n in zip(bags.slides, lengths) if n)
    xy_um = None if bags.xy_um is None else bags.xy_um[rows]
    return Bags(bags.x[rows], offsets, xy_um, names, None if bags.keys is None else bags.keys[rows])


def _side_by_side(xy_um: Float[Tensor, "m 2"], segments: Segments) -> Float[Tensor, "m 2"]:
    """Positions with every bag's own start at 0 and each bag to the right of the one before."""
    start = -maximum(-xy_um, segments)  # (b, 2)
    width = maximum(xy_um, segments)[:, :1] - start[:, :1] + SLIDE_GAP_UM
    edge = torch.cat([width.cumsum(0) - width, torch.zeros_like(width)], 1)
    return xy_um + (edge - start)[segments.ids]
