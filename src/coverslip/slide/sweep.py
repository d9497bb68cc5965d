"""A sweep over the stored pieces of a level: each is read in storage order, decoded once, and given to every tile that
it shares pixels with.

Reading tile by tile decodes a piece for each tile that touches it, or keeps pieces in a cache that is never as large
as it should be. Here the whole list of tiles is known before the first byte is read. `Plan` works out, with a handful
of array operations, which pieces are needed, in which order, and for whom; `Sweep` decodes them one after the other,
by as many threads as there are. What a piece has of a tile is written into the tile's open batch at once, while the
piece is still in the processor's cache. Where that cannot be, because the batch is not open yet or because a pixel of
the tile needs two pieces, the piece is kept until its last tile is made.

The order is row by row of pieces; on very wide slides it is that within strips of columns, so that the pieces kept
fit in `PIECE_BYTES` however wide the slide is. Pieces on the border of two strips are decoded twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Size
from coverslip.slide.batches import CLOSED, OpenBatches
from coverslip.slide.memory import Rooms
from coverslip.slide.reader import Grid
from coverslip.slide.resample import Region, resample, touched

# Decoded pieces that wait for the last of their tiles. Pieces that are as wide as the slide (strips) cannot be shared
# out among strips of columns; they may take four times as much before tiles are read one by one.
PIECE_BYTES = 60 << 20
_MOST_PIECE_BYTES = 4 * PIECE_BYTES
# Pieces that a thread decodes in a row: what is done once for all of them costs less.
_STEPS = 16


@dataclass(frozen=True)
class Plan:
    """Which pieces are read, in which order, and which tiles they make.

    `pieces` (m,) are numbers in the grid, one for each step. `order` (n,) are the rows of the tiles as they become
    complete: a tile's place is its position there. `boxes` (n, 2) is how many whole pixels each place touches (width,
    height), `regions` (n, 2) where it starts within them (x, y), `side` its width and height.

    `shares` (k, 7) holds what a piece gives to a place: the place, then left, right, top and bottom within the tile's
    whole pixels, then left and top within the piece. Step s has the rows from `starts[s]` to `starts[s + 1]`; `parts`
    (n,) is the number of rows of each place. `complete` (n,) is the last step of each place; it rises.

    `plain` (n,) says which places are whole pixels as they are stored, so that each part can be written as it comes.
    `alone` (m,) says for each step that its piece, as it is, is the one tile it gives to.
    """

    pieces: list[int]
    order: Int64[ndarray, n]
    regions: ndarray
    side: float
    boxes: ndarray
    shares: ndarray
    starts: Int64[ndarray, m + 1]
    parts: list[int]
    complete: Int64[ndarray, n]
    plain: list[bool]
    alone: list[bool]


def plan(grid: Grid, size: Size, corners: ndarray, side: float, side_px: int) -> Plan | None:
    """The plan for tiles at `corners` (n, 2), squares of `side`, both in pixels of a level of `size` that is stored as
    `grid`, which become `side_px` pixels wide; None where too many pieces would have to be kept."""
    edges = [touched(corners[:, axis], side, size[axis]) for axis in (0, 1)]
    low, high = (np.stack(edge) for edge in zip(*edges))  # (2, n): x and y
    piece_size = np.array(grid.piece)[:, None]
    first, last = low // piece_size, (high - 1) // piece_size
    columns, rows = (last - first + 1).max(axis=1).tolist()

    # All pieces of a row of tiles are there before the row is done; a strip also needs what its last tile reaches into.
    row_bytes = rows * grid.piece.width * grid.piece.height * 3
    strip_columns = max(1, PIECE_BYTES // row_bytes - (columns - 1))
    if columns * row_bytes > _MOST_PIECE_BYTES:
        return None
    tile, column, row = _pairs(first, last)
    strip = first[0][tile] // strip_columns
    piece = row * grid.columns + column

    # One step for each piece of each strip; `step` (pairs,) is the step that gives a pair's tile its pixels.
    wanted, inverse = np.unique(strip * (grid.columns * grid.rows) + piece, return_inverse=True)
    strip, pieces = np.divmod(wanted, grid.columns * grid.rows)
    sequence = np.lexsort((grid.offsets[pieces], pieces // grid.columns, strip))
    step = _positions(sequence)[inverse]

    complete = np.zeros(len(corners), dtype=np.int64)
    np.maximum.at(complete, tile, step)
    order = np.argsort(complete, kind="stable")
    place = _positions(order)[tile]

    corner = np.stack([column, row]) * piece_size  # (2, pairs): of the piece, in the level
    begin = np.maximum(low[:, tile], corner)
    end = np.minimum(high[:, tile], corner + piece_size)
    (left, top), (right, bottom) = begin - low[:, tile], end - low[:, tile]
    shares = np.stack([place, left, right, top, bottom, *(begin - corner)], axis=1).astype(np.int32)
    shares = shares[np.lexsort((place, step))]
    gives = np.bincount(step)
    starts = np.concatenate([[0], np.cumsum(gives)])
    regions, boxes = (corners - low.T)[order], (high - low).T[order]
    parts = np.bincount(place)

    # At the edge of a level a tile may touch a pixel less than its side.
    plain = (regions == 0).all(axis=1) & (boxes == side_px).all(axis=1) & (side == side_px)
    whole = plain & (parts == 1) & (grid.piece == (side_px, side_px))
    return Plan(
        pieces=pieces[sequence].tolist(),
        order=order,
        regions=regions,
        side=side,
        boxes=boxes,
        shares=shares,
        starts=starts,
        parts=parts.tolist(),
        complete=complete[order],
        plain=plain.tolist(),
        alone=((gives == 1) & whole[shares[starts[:-1], 0]]).tolist(),
    )


def common_ratio(piece: Size, size: Size, corners: ndarray, side: float, side_px: int) -> int:
    """The whole number by which all tiles shrink, where each piece can be shrunk by it as soon as it is decoded and the
    tiles put together from what is left: where no pixel of any tile needs two pieces. Else 1."""
    ratio = round(side / side_px)
    whole = ratio > 1 and side == ratio * side_px and not (corners % ratio).any()
    # Pixels of a tile that lie behind the edge of the level would be missing in a mean.
    inside = (corners + side <= np.array(shrunk(size, ratio)) * ratio).all() if whole else False
    return ratio if inside and not any(edge % ratio for edge in piece) else 1


def shrunk(size: Size, ratio: int) -> Size:
    return Size(size.width // ratio, size.height // ratio)


def _positions(order: ndarray) -> ndarray:
    """Where each number stands in an order of all of them."""
    positions = np.empty_like(order)
    positions[order] = np.arange(len(order))
    return positions


def _pairs(first: Int64[ndarray, "2 n"], last: Int64[ndarray, "2 n"]) -> tuple[ndarray, ndarray, ndarray]:
    """Every pair of a tile and a piece that it touches: the tile's number, the piece's column and row."""
    counts = last - first + 1
    number = counts.prod(axis=0)
    tile = np.repeat(np.arange(first.shape[1]), number)
    within = np.arange(len(tile)) - np.repeat(np.cumsum(number) - number, number)
    row, column = np.divmod(within, counts[0][tile])
    return tile, first[0][tile] + column, first[1][tile] + row


class _Owed(NamedTuple):
    """A part of a piece that waits for its tile: where it belongs within the tile's whole pixels, and the room that its
    pixels lie in, which is free again when nothing in it is owed any more."""

    left: int
    right: int
    top: int
    bottom: int
    pixels: UInt8[ndarray, "h w 3"]
    room: UInt8[ndarray, s]


class _Lost(NamedTuple):
    """A piece that could not be decoded, and why."""

    step: int
    error: str


@final
class Sweep:
    """Carries out a plan in jobs of a few steps. `sweep(0)`, `sweep(1)`, ... up to `num_jobs` are called in that order
    by `threads` threads. `read` gives the pixels of a piece, and may put them into the room it is handed."""

    def __init__(
        self,
        plan: Plan,
        grid: Grid,
        read: Callable[[int, UInt8[ndarray, s]], ndarray],
        batches: OpenBatches,
        *,
        threads: int,
    ) -> None:
        self._plan, self._read, self._batches = plan, read, batches
        # Few enough steps that the threads end together.
        self._run = max(1, min(_STEPS, len(plan.pieces) // (4 * threads)))
        self.num_jobs = -(-len(plan.pieces) // self._run)
        self._missing = list(plan.parts)
        self._owed: dict[int, list[_Owed]] = {}  # by place
        self._lost: dict[int, _Lost] = {}  # by place: the first piece
        self._lock = Lock()
        piece_bytes = grid.piece.width * grid.piece.height * 3
        self._rooms = Rooms(piece_bytes, 1 + PIECE_BYTES // piece_bytes)
        # A tile touches at most one pixel more than its side, and at least one.
        self._scratch = Rooms((math.ceil(plan.side) + 1) ** 2 * 3, threads)

    def __call__(self, job: int) -> None:
        plan, first = self._plan, job * self._run
        last = min(first + self._run, len(plan.pieces))
        # Nothing is decoded that could only be kept: this waits until the first tile that the job completes has room.
        # Those before it are completed by earlier jobs, so the wait ends. Within the job nothing waits.
        self._batches.room(int(plan.complete.searchsorted(first)))
        starts = plan.starts[first : last + 1].tolist()
        shares = plan.shares[starts[0] : starts[-1]].tolist()
        owed: list[tuple[int, _Owed]] = []
        lost: list[tuple[int, _Lost]] = []
        room = None
        for step in range(first, last):
            mine = shares[starts[step - first] - starts[0] : starts[step - first + 1] - starts[0]]
            image = self._batches.room_now(mine[0][0]) if plan.alone[step] else None
            if image is not None:
                # Decoded where it belongs.
                pixels, error = self._decode(step, image.reshape(-1))
                if error is None and not np.may_share_memory(pixels, image):
                    image[:] = pixels
            else:
                room = self._rooms.take() if room is None else room
                pixels, error = self._decode(step, room)
                if error is None and (waiting := self._scattered(mine, pixels, room)):
                    owed += waiting
                    room = None
            if error is not None:
                lost += [(share[0], _Lost(step, error)) for share in mine]
        self._complete(*self._settled([share[0] for share in shares], owed, lost))

    def _decode(self, step: int, room: UInt8[ndarray, s]) -> tuple[UInt8[ndarray, "h w 3"], str | None]:
        """The pixels of a step's piece, in the room where the reader can; or why there are none."""
        try:
            return self._read(self._plan.pieces[step], room), None
        except SlideError as error:
            if error.code == CLOSED:
                raise
            return room[:0], error.message

    def _scattered(
        self, shares: list[list[int]], pixels: UInt8[ndarray, "h w 3"], room: ndarray
    ) -> list[tuple[int, _Owed]]:
        """Writes what a piece has of each tile into the tile's batch, while it is in the processor's cache; what has to
        wait, with its place."""
        owed = []
        plain, room_now = self._plan.plain, self._batches.room_now
        for place, left, right, top, bottom, x, y in shares:
            part = pixels[y : y + bottom - top, x : x + right - left]
            image = room_now(place) if plain[place] else None
            if image is None:
                owed.append((place, _Owed(left, right, top, bottom, part, room)))
            else:
                image[top:bottom, left:right] = part
        return owed

    def _settled(
        self, arrived: list[int], owed: list[tuple[int, _Owed]], lost: list[tuple[int, _Lost]]
    ) -> tuple[set[int], list[int]]:
        """Counts what arrived at each place; the tiles that are complete as they are, and, in rising order, those that
        something is left to do for."""
        with self._lock:
            for place, part in owed:
                self._owed.setdefault(place, []).append(part)
            for place, piece in lost:
                self._lost[place] = min(self._lost.get(place, piece), piece)
            missing = self._missing
            for place in arrived:
                missing[place] -= 1
            complete = {place for place in arrived if not missing[place]}
            unready = {place for place in complete if place in self._owed or place in self._lost}
        return complete - unready, sorted(unready)

    def _complete(self, ready: set[int], unready: list[int]) -> None:
        self._batches.finish(*ready)
        for place in unready:
            image = self._batches.room(place)
            owed, lost = self._owed.pop(place, []), self._lost.pop(place, None)
            if lost is None:
                self._pay(image, place, owed)
            self._batches.finish(place, error=lost and lost.error)

    def _pay(self, image: UInt8[ndarray, "h w 3"], place: int, owed: list[_Owed]) -> None:
        """Writes what is owed to a tile all of whose pieces were decoded."""
        plan = self._plan
        whole = image
        if not plan.plain[place]:
            width, height = plan.boxes[place].tolist()
            whole = self._scratch.take()[: height * width * 3].reshape(height, width, 3)
        for part in owed:
            whole[part.top : part.bottom, part.left : part.right] = part.pixels
        if whole is not image:
            x, y = plan.regions[place].tolist()
            region = Region(x, y, plan.side, plan.side)
            image[:] = resample(whole, Size(len(image), len(image)), region)
