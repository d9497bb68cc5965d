"""Tiles in batches: threads read ahead, memory stays bounded, a damaged tile is flagged and harms no other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numpy import ndarray

from coverslip.base.errors import SlideError

# Batches that are read ahead of the one the caller works on.
_AHEAD = 2
# The code of reading from a slide that was closed: the caller's mistake, not a tile's damage.
CLOSED = "closed"


@dataclass(frozen=True)
class TileBatch:
    """Some tiles of one slide.

    `images` (b, h, w, 3); `index` (b,) their rows in the `Tiles`; `ok` (b,) False where a tile is damaged, its image
    then zeros: use only `images[ok]`. `errors` is one text for each False, in order.
    """

    images: UInt8[ndarray, "b h w 3"]
    index: Int64[ndarray, b]
    ok: Bool[ndarray, b]
    errors: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.index)


@dataclass
class _Filling:
    """A batch that threads are still writing into."""

    images: ndarray
    index: ndarray
    ok: ndarray
    errors: dict[int, str] = field(default_factory=dict)
    shares: list[Future[None]] = field(default_factory=list)

    def finished(self) -> TileBatch:
        for share in self.shares:
            share.result()
        return TileBatch(self.images, self.index, self.ok, tuple(self.errors[i] for i in sorted(self.errors)))


def read_batches(
    read_tile: Callable[[int], UInt8[ndarray, "h w 3"]], num_tiles: int, *, side_px: int, batch: int, threads: int
) -> Iterator[TileBatch]:
    """Batches of `read_tile(0)`, `read_tile(1)`, ... in that order.

    A `SlideError` of a tile is kept as its text. At most `_AHEAD` batches are in memory beside the caller's own.
    Closing the iterator early stops the threads.
    """
    starts = iter(range(0, num_tiles, batch))
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="coverslip-tiles")
    waiting: deque[_Filling] = deque()

    def fill_next() -> None:
        start = next(starts, None)
        if start is not None:
            waiting.append(_submit(pool, read_tile, start, min(batch, num_tiles - start), side_px, threads))

    try:
        for _ in range(_AHEAD):
            fill_next()
        while waiting:
            ready = waiting.popleft().finished()
            fill_next()
            yield ready
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(
    pool: ThreadPoolExecutor, read_tile: Callable[[int], ndarray], start: int, count: int, side_px: int, threads: int
) -> _Filling:
    filling = _Filling(
        images=np.zeros((count, side_px, side_px, 3), dtype=np.uint8),
        index=np.arange(start, start + count, dtype=np.int64),
        ok=np.ones(count, dtype=bool),
    )
    # Each thread gets neighbouring tiles: they share stored tiles, which are then decoded once.
    for rows in np.array_split(np.arange(count), min(threads, count)):
        filling.shares.append(pool.submit(_fill, filling, read_tile, rows))
    return filling


def _fill(filling: _Filling, read_tile: Callable[[int], ndarray], rows: ndarray) -> None:
    for row in rows.tolist():
        try:
            filling.images[row] = read_tile(int(filling.index[row]))
        except SlideError as error:
            if error.code == CLOSED:
                raise
            filling.ok[row] = False
            filling.errors[row] = error.message
