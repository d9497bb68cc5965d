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
from typing import final

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Size
from coverslip.slide.batches import CLOSED, OpenBatches, room_for
from coverslip.slide.reader import Grid
from coverslip.slide.resample import Region, resample, touched

# Decoded pieces that wait for the last of their tiles. Pieces that are as wide as the slide (strips) cannot be shared
# out among strips of columns; they may take four times as much before tiles are read one by one.
PIECE_BYTES = 60 << 20
_MOST_PIECE_BYTES = 4 * PIECE_BYTES


@dataclass(frozen=True)
class Plan:
    """Which pieces are read, in which order, and which tiles they make.

    `pieces` (m,) are numbers in the grid, one for each step. `order` (n,) are the rows of the tiles as they become
    complete: a tile's place is its position there. `boxes` (n, 2) is how many whole pixels each place touches (width,
    height), `regions` (n, 2) where it starts within them (x, y), `side` its width and height.

    `shares` (k, 8) holds what a piece gives to a place: the step, the place, then left, right, top and bottom within
    the tile's whole pixels, then left and top within the piece. It is sorted by place; `gives` are the rows of each
    step, and `parts` (n,) is the number of rows of each place.

    `ratios` (n,) is the whole number by which each place shrinks where no pixel of it needs two pieces, else 0.
    `alone` (m,) says for each step that its piece, as it is, is the one tile it gives to.
    """

    pieces: list[int]
    order: Int64[ndarray, n]
    regions: ndarray
    side: float
    boxes: ndarray
    shares: ndarray
    gives: list[list[int]]
    parts: list[int]
    ratios: list[int]
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
    shares = np.stack([step, place, left, right, top, bottom, *(begin - corner)], axis=1).astype(np.int32)
    shares = shares[np.lexsort((step, place))]
    regions, boxes = (corners - low.T)[order], (high - low).T[order]
    parts = np.bincount(place, minlength=len(order))

    ratio = round(side / side_px)
    # At the edge of a level a tile may touch a pixel less than its side.
    apart = (regions == 0).all(axis=1) & (boxes == ratio * side_px).all(axis=1) & (side == ratio * side_px)
    if ratio > 1:
        apart[shares[(shares[:, 2:6] % ratio).any(axis=1), 1]] = False
    whole = apart & (parts == 1) & (ratio == 1) & (grid.piece == (side_px, side_px))
    gives = np.split(np.argsort(shares[:, 0], kind="stable"), np.cumsum(np.bincount(step))[:-1])
    return Plan(
        pieces=pieces[sequence].tolist(),
        order=order,
        regions=regions,
        side=side,
        boxes=boxes,
        shares=shares,
        gives=[rows.tolist() for rows in gives],
        parts=parts.tolist(),
        ratios=np.where(apart, ratio, 0).tolist(),
        alone=[len(rows) == 1 and bool(whole[shares[rows[0], 1]]) for rows in gives],
    )


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


@final
class Sweep:
    """Carries out a plan. `sweep(step)` is called for each step in order, by any number of threads; `read` gives the
    pixels of a piece and may put them into the room it is handed."""

    def __init__(
        self, plan: Plan, grid: Grid, read: Callable[[int, UInt8[ndarray, s]], ndarray], batches: OpenBatches
    ) -> None:
        self._plan, self._read, self._batches = plan, read, batches
        self._missing = list(plan.parts)
        self._held: dict[int, _Held] = {}  # by step
        self._owed: dict[int, list[list[int]]] = {}  # by place: shares of held pieces
        self._lost: dict[int, tuple[int, str]] = {}  # by place: the first step that failed, and why
        self._lock = Lock()
        self._rooms = _Rooms(grid.piece.width * grid.piece.height * 3)
        # A tile touches at most one pixel more than its side, and at least one.
        self._scratch = _Rooms((math.ceil(plan.side) + 1) ** 2 * 3)

    def __call__(self, step: int) -> None:
        shares = self._plan.shares[self._plan.gives[step]].tolist()
        if self._plan.alone[step]:
            # Decoded where it belongs.
            place = shares[0][1]
            image = self._batches.room(place)
            pixels, error = self._decode(step, image.reshape(-1))
            if error is None and not np.may_share_memory(pixels, image):
                image[:] = pixels
            self._batches.finish(place, error=error)
            return
        room = self._rooms.take()
        pixels, error = self._decode(step, room)
        owed = [] if error is not None else [share for share in shares if not self._written(share, pixels)]
        in_room = np.may_share_memory(pixels, room)
        if not owed or not in_room:
            self._rooms.give(room)
        with self._lock:
            if owed:
                self._held[step] = _Held(pixels, room if in_room else None, len(owed))
            for share in owed:
                self._owed.setdefault(share[1], []).append(share)
            complete = [share[1] for share in shares if self._arrived(share, error)]
        for place in complete:
            self._complete(place)

    def _decode(self, step: int, room: UInt8[ndarray, s]) -> tuple[UInt8[ndarray, "h w 3"], str | None]:
        """The pixels of a step's piece, in the room where the reader can; or why there are none."""
        try:
            return self._read(self._plan.pieces[step], room), None
        except SlideError as error:
            if error.code == CLOSED:
                raise
            return room[:0], error.message

    def _written(self, share: list[int], pixels: UInt8[ndarray, "h w 3"]) -> bool:
        """Writes a share into its batch; False where it has to wait."""
        _, place, left, right, top, bottom, x, y = share
        ratio = self._plan.ratios[place]
        image = self._batches.room_now(place) if ratio else None
        if image is None:
            return False
        part = pixels[y : y + bottom - top, x : x + right - left]
        if ratio == 1:
            image[top:bottom, left:right] = part
        else:
            size = Size((right - left) // ratio, (bottom - top) // ratio)
            image[top // ratio : bottom // ratio, left // ratio : right // ratio] = resample(part, size)
        return True

    def _arrived(self, share: list[int], error: str | None) -> bool:
        """True where a share is the last of its place. Called with the lock."""
        step, place = share[:2]
        if error is not None and step <= self._lost.get(place, (step, ""))[0]:
            self._lost[place] = (step, error)
        self._missing[place] -= 1
        return not self._missing[place]

    def _complete(self, place: int) -> None:
        """Ends a tile all of whose pieces were decoded: what is owed to it is written now."""
        image = self._batches.room(place)
        owed = self._owed.pop(place, [])
        _, error = self._lost.pop(place, (0, None))
        if error is None and owed:
            self._pay(image, place, owed)
        self._batches.finish(place, error=error)
        if owed:
            with self._lock:
                for share in owed:
                    self._let_go(share[0])

    def _pay(self, image: UInt8[ndarray, "h w 3"], place: int, owed: list[list[int]]) -> None:
        if self._plan.ratios[place]:
            for share in owed:
                self._written(share, self._held[share[0]].pixels)
            return
        width, height = self._plan.boxes[place].tolist()
        scratch = self._scratch.take()
        whole = scratch[: height * width * 3].reshape(height, width, 3)
        for step, _, left, right, top, bottom, x, y in owed:
            whole[top:bottom, left:right] = self._held[step].pixels[y : y + bottom - top, x : x + right - left]
        x, y = self._plan.regions[place].tolist()
        image[:] = resample(whole, Size(len(image), len(image)), Region(x, y, self._plan.side, self._plan.side))
        self._scratch.give(scratch)

    def _let_go(self, step: int) -> None:
        """Counts one tile off a held piece. Called with the lock."""
        held = self._held[step]
        held.owes -= 1
        if not held.owes:
            del self._held[step]
            if held.room is not None:
                self._rooms.give(held.room)


@dataclass
class _Held:
    """A piece that is kept: its pixels, the room they lie in, if any, and the number of tiles it owes them to."""

    pixels: ndarray
    room: ndarray | None
    owes: int


@final
class _Rooms:
    """Buffers of one length that are used again and again: fresh memory costs a page fault for every 4 KiB."""

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._free: list[ndarray] = []

    def take(self) -> UInt8[ndarray, s]:
        try:
            return self._free.pop()
        except IndexError:
            return room_for(self._num_bytes)

    def give(self, room: UInt8[ndarray, s]) -> None:
        self._free.append(room)
