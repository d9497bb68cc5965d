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
from coverslip.slide.batches import CLOSED, OpenBatches
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
    complete: a tile's place is its position there. `corners` (n, 2) are the pixels (x, y) of the level, maybe with
    fractions, where the tile of each place starts, `side` its width and height there. `makers` are the steps that make
    each place, `users` the places that each step makes, both in rising order.
    """

    pieces: list[int]
    order: Int64[ndarray, n]
    corners: ndarray
    side: float
    makers: list[list[int]]
    users: list[list[int]]


def plan(grid: Grid, size: Size, corners: ndarray, side: float) -> Plan | None:
    """The plan for tiles at `corners` (n, 2), squares of `side`, both in pixels of a level of `size` that is stored as
    `grid`; None where too many pieces would have to be kept."""
    x, right = touched(corners[:, 0], side, size.width)
    y, bottom = touched(corners[:, 1], side, size.height)
    first = np.stack([x // grid.piece.width, y // grid.piece.height])  # (2, n): column and row
    last = np.stack([(right - 1) // grid.piece.width, (bottom - 1) // grid.piece.height])
    columns, rows = (last - first + 1).max(axis=1).tolist()

    # All pieces of a row of tiles are there before the row is done; a strip also needs what its last tile reaches into.
    kept = int(PIECE_BYTES // (rows * grid.piece.width * grid.piece.height * 3))
    strip_columns = max(1, kept - (columns - 1))
    if (columns if strip_columns == 1 else 1) * rows * grid.piece.width * grid.piece.height * 3 > _MOST_PIECE_BYTES:
        return None
    tile, column, row = _pairs(first, last)
    strip = first[0][tile] // strip_columns
    piece = row * grid.columns + column

    # One step for each piece of each strip; `step` (pairs,) is the step that gives a pair's tile its pixels.
    wanted, inverse = np.unique(strip * (grid.columns * grid.rows) + piece, return_inverse=True)
    strip, piece = np.divmod(wanted, grid.columns * grid.rows)
    sequence = np.lexsort((grid.offsets[piece], piece // grid.columns, strip))
    step = np.empty_like(sequence)
    step[sequence] = np.arange(len(sequence))
    step = step[inverse]

    complete = np.zeros(len(corners), dtype=np.int64)
    np.maximum.at(complete, tile, step)
    order = np.argsort(complete, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Plan(
        pieces=piece[sequence].tolist(),
        order=order,
        corners=corners[order],
        side=side,
        makers=_grouped(place[tile], step, len(order)),
        users=_grouped(step, place[tile], len(sequence)),
    )


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
        self, plan: Plan, grid: Grid, size: Size, read: Callable[[int, ndarray], ndarray], batches: OpenBatches
    ) -> None:
        self._plan, self._read, self._batches = plan, read, batches
        self._piece, self._columns = grid.piece, grid.columns
        (self._left, self._right), (self._top, self._bottom) = (
            tuple(edge.tolist() for edge in touched(plan.corners[:, axis], plan.side, size[axis])) for axis in (0, 1)
        )
        self._missing = [len(steps) for steps in plan.makers]
        self._wanted = [len(places) for places in plan.users]
        self._decoded: dict[int, _Decoded] = {}
        self._lock = Lock()
        self._rooms = _Rooms(grid.piece.width * grid.piece.height * 3)
        # A tile touches at most one pixel more than its side, and at least one.
        self._scratch = _Rooms((math.ceil(plan.side) + 1) ** 2 * 3)

    def __call__(self, step: int) -> None:
        self._decoded[step] = self._decode(self._plan.pieces[step])
        complete = []
        with self._lock:
            for place in self._plan.users[step]:
                self._missing[place] -= 1
                if not self._missing[place]:
                    complete.append(place)
        for place in complete:
            self._make(place)

    def _decode(self, piece: int) -> _Decoded:
        room = self._rooms.take()
        try:
            pixels = self._read(piece, room)
        except SlideError as error:
            if error.code == CLOSED:
                raise
            self._rooms.give(room)
            return _Decoded(room[:0], None, error.message)
        if not np.may_share_memory(pixels, room):
            self._rooms.give(room)
            return _Decoded(pixels, None, None)
        return _Decoded(pixels, room, None)

    def _make(self, place: int) -> None:
        image = self._batches.room(place)
        steps = self._plan.makers[place]
        error = next((e for e in (self._decoded[step].error for step in steps) if e is not None), None)
        if error is None:
            self._fill(place, image)
        self._batches.finish(place, error=error)
        with self._lock:
            for step in steps:
                self._wanted[step] -= 1
                if not self._wanted[step]:
                    room = self._decoded.pop(step).room
                    if room is not None:
                        self._rooms.give(room)

    def _fill(self, place: int, image: UInt8[ndarray, "h w 3"]) -> None:
        """Puts a tile together and writes it, resampled, into `image`."""
        left, top = self._left[place], self._top[place]
        width, height = self._right[place] - left, self._bottom[place] - top
        out = Size(image.shape[1], image.shape[0])
        x, y = self._plan.corners[place].tolist()
        region = Region(x - left, y - top, self._plan.side, self._plan.side)
        if region == (0, 0, *out) and (width, height) == out:
            self._gather(place, image)
            return
        scratch = self._scratch.take()
        pixels = scratch[: height * width * 3].reshape(height, width, 3)
        self._gather(place, pixels)
        image[:] = resample(pixels, out, region)
        self._scratch.give(scratch)

    def _gather(self, place: int, pixels: UInt8[ndarray, "h w 3"]) -> None:
        """Copies what each piece has of a tile."""
        left, top, right, bottom = self._left[place], self._top[place], self._right[place], self._bottom[place]
        for step in self._plan.makers[place]:
            row, column = divmod(self._plan.pieces[step], self._columns)
            x, y = column * self._piece.width, row * self._piece.height
            x0, x1 = max(left, x), min(right, x + self._piece.width)
            y0, y1 = max(top, y), min(bottom, y + self._piece.height)
            piece = self._decoded[step].pixels
            pixels[y0 - top : y1 - top, x0 - left : x1 - left] = piece[y0 - y : y1 - y, x0 - x : x1 - x]


@dataclass(frozen=True)
class _Decoded:
    """A piece: its pixels and the room they lie in, if any; `error` says why there are none."""

    pixels: ndarray
    room: ndarray | None
    error: str | None


@final
class _Rooms:
    """Buffers of one length that are used again and again: fresh memory costs a page fault for every 4 KiB.

    They start 16 bytes behind a multiple of 64. Where rows of pixels start at a multiple of 32, libjpeg-turbo turns
    YCbCr into RGB with stores that go past the caches, and the next step fetches every pixel back from memory: decoding
    takes a tenth to a quarter longer. The offset costs nothing where that is not so.
    """

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._free: list[ndarray] = []

    def take(self) -> UInt8[ndarray, n]:
        try:
            return self._free.pop()
        except IndexError:
            whole = np.empty(self._num_bytes + 64, dtype=np.uint8)
            start = (16 - whole.ctypes.data) % 64
            return whole[start : start + self._num_bytes]

    def give(self, room: UInt8[ndarray, n]) -> None:
        self._free.append(room)
