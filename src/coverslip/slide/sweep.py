"""A sweep over the stored pieces of a level: each is read in storage order, decoded once, and given to every tile that
it shares pixels with.

Reading tile by tile decodes a piece for each tile that touches it, or keeps pieces in a cache that is never as large
as it should be. Here the whole list of tiles is known before the first byte is read. `Plan` works out, with a handful
of array operations, which pieces are needed, in which order, and for whom; `Sweep` decodes them one after the other,
by as many threads as there are, and makes a tile as soon as its last piece is there. A piece is kept until its last
tile is made.

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

    `shares` holds what a piece gives to a place, for the places one after the other: the step, then left, right, top
    and bottom within the tile's whole pixels, then left and top within the piece. Those of a place are the rows from
    `starts[place]` to `starts[place + 1]`. `users` are the places that each step gives to, rising.

    `ratios` (n,) is the whole number by which each place shrinks where no pixel of it needs two pieces, else 0.
    `alone` (m,) says for each step that its piece, as it is, is the one tile it gives to.
    """

    pieces: list[int]
    order: Int64[ndarray, n]
    regions: ndarray
    side: float
    boxes: ndarray
    shares: ndarray
    starts: list[int]
    users: list[list[int]]
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
    shares = np.stack([step, left, right, top, bottom, *(begin - corner)], axis=1).astype(np.int32)
    shares = shares[np.lexsort((step, place))]
    starts = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=len(order)))])
    regions, boxes = (corners - low.T)[order], (high - low).T[order]
    users = _grouped(step, place, len(sequence))

    ratio = round(side / side_px)
    # At the edge of a level a tile may touch a pixel less than its side.
    apart = (regions == 0).all(axis=1) & (boxes == ratio * side_px).all(axis=1) & (side == ratio * side_px)
    if ratio > 1:
        apart &= ~np.logical_or.reduceat((shares[:, 1:5] % ratio).any(axis=1), starts[:-1])
    whole = apart & (np.diff(starts) == 1) & (ratio == 1) & (grid.piece == (side_px, side_px))
    return Plan(
        pieces=pieces[sequence].tolist(),
        order=order,
        regions=regions,
        side=side,
        boxes=boxes,
        shares=shares,
        starts=starts.tolist(),
        users=users,
        ratios=np.where(apart, ratio, 0).tolist(),
        alone=[len(places) == 1 and bool(whole[places[0]]) for places in users],
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


def _grouped(key: ndarray, value: ndarray, num_keys: int) -> list[list[int]]:
    """The values of each key, rising."""
    by_key = np.lexsort((value, key))
    ends = np.cumsum(np.bincount(key, minlength=num_keys))
    values = value[by_key].tolist()
    return [values[start:end] for start, end in zip([0, *ends[:-1].tolist()], ends.tolist())]


@final
class Sweep:
    """Carries out a plan. `sweep(step)` is called for each step in order, by any number of threads; `read` gives the
    pixels of a piece and may put them into the room it is handed."""

    def __init__(
        self, plan: Plan, grid: Grid, read: Callable[[int, UInt8[ndarray, s]], ndarray], batches: OpenBatches
    ) -> None:
        self._plan, self._read, self._batches = plan, read, batches
        self._missing = np.diff(plan.starts).tolist()
        self._wanted = [len(places) for places in plan.users]
        self._decoded: dict[int, _Decoded] = {}
        self._lost = False
        self._lock = Lock()
        self._rooms = _Rooms(grid.piece.width * grid.piece.height * 3)
        # A tile touches at most one pixel more than its side, and at least one.
        self._scratch = _Rooms((math.ceil(plan.side) + 1) ** 2 * 3)

    def __call__(self, step: int) -> None:
        places = self._plan.users[step]
        if self._plan.alone[step]:
            self._decode_into(step, places[0])
            return
        self._decoded[step] = self._decode(step)
        complete = []
        with self._lock:
            for place in places:
                self._missing[place] -= 1
                if not self._missing[place]:
                    complete.append(place)
        for place in complete:
            self._make(place)

    def _decode_into(self, step: int, place: int) -> None:
        """Decodes a piece that is a whole tile where it belongs."""
        image, error = self._batches.room(place), None
        room = image.reshape(-1)
        try:
            pixels = self._read(self._plan.pieces[step], room)
            if not np.may_share_memory(pixels, room):
                image[:] = pixels
        except SlideError as lost:
            if lost.code == CLOSED:
                raise
            error = lost.message
        self._batches.finish(place, error=error)

    def _decode(self, step: int) -> _Decoded:
        room = self._rooms.take()
        try:
            pixels = self._read(self._plan.pieces[step], room)
        except SlideError as error:
            if error.code == CLOSED:
                raise
            self._rooms.give(room)
            self._lost = True
            return _Decoded(room[:0], None, error.message)
        if not np.may_share_memory(pixels, room):
            self._rooms.give(room)
            return _Decoded(pixels, None, None)
        return _Decoded(pixels, room, None)

    def _make(self, place: int) -> None:
        image = self._batches.room(place)
        plan, held = self._plan, self._decoded
        shares = plan.shares[plan.starts[place] : plan.starts[place + 1]].tolist()
        error = self._lost and next((held[share[0]].error for share in shares if held[share[0]].error), None)
        if not error:
            self._fill(image, place, shares)
        self._batches.finish(place, error=error or None)
        with self._lock:
            for share in shares:
                step = share[0]
                self._wanted[step] -= 1
                if not self._wanted[step]:
                    room = held.pop(step).room
                    if room is not None:
                        self._rooms.give(room)

    def _fill(self, image: UInt8[ndarray, "h w 3"], place: int, shares: list[list[int]]) -> None:
        """Puts a tile together from what pieces give to it and writes it, resampled, into `image`."""
        ratio, held = self._plan.ratios[place], self._decoded
        if ratio == 1:
            for step, left, right, top, bottom, x, y in shares:
                image[top:bottom, left:right] = held[step].pixels[y : y + bottom - top, x : x + right - left]
            return
        if ratio:
            for step, left, right, top, bottom, x, y in shares:
                part = held[step].pixels[y : y + bottom - top, x : x + right - left]
                size = Size((right - left) // ratio, (bottom - top) // ratio)
                image[top // ratio : bottom // ratio, left // ratio : right // ratio] = resample(part, size)
            return
        width, height = self._plan.boxes[place].tolist()
        scratch = self._scratch.take()
        pixels = scratch[: height * width * 3].reshape(height, width, 3)
        for step, left, right, top, bottom, x, y in shares:
            pixels[top:bottom, left:right] = held[step].pixels[y : y + bottom - top, x : x + right - left]
        x, y = self._plan.regions[place].tolist()
        region = Region(x, y, self._plan.side, self._plan.side)
        image[:] = resample(pixels, Size(len(image), len(image)), region)
        self._scratch.give(scratch)


@dataclass(frozen=True)
class _Decoded:
    """A piece: its pixels and the room they lie in, if any; `error` says why there are none."""

    pixels: ndarray
    room: ndarray | None
    error: str | None


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
