"""Tiles in batches: threads read ahead, memory stays bounded, a damaged tile is flagged and harms no other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Condition, Lock, Thread
from types import TracebackType
from typing import final

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numpy import ndarray

from coverslip.base.errors import SlideError
from coverslip.slide.memory import shared_rooms

# Batches that are open at once, beside the one the caller works on: as many as fit in this, and no more than that.
OPEN_BYTES = 60 << 20
_MOST_OPEN = 6
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


class Stopped(Exception):
    """Nobody wants the tiles any more: raised in the threads that make them, never seen by the caller."""


@final
class OpenBatches:
    """Batches that threads are writing into. `order` (n,) holds the rows of the `Tiles` in the order of delivery; a
    tile's place is its position there. Each place is asked for with `room` and ended with `finish`, once, by one
    thread; a thread waits for its places in rising order. That order is what keeps waiting threads from waiting for
    ever.
    """

    def __init__(self, order: Int64[ndarray, n], *, side_px: int, batch: int) -> None:
        self._order, self._side_px, self._batch = order, side_px, batch
        num_bytes = max(1, min(batch, len(order))) * side_px * side_px * 3
        self._most_open = max(1, min(_MOST_OPEN, OPEN_BYTES // num_bytes))
        # Batches that are done with may wait for their next use, in no more memory than the open ones.
        self._rooms = shared_rooms(num_bytes, min(_MOST_OPEN, OPEN_BYTES // num_bytes))
        self._open: dict[int, _Filling] = {}
        self._delivered = 0
        self._failure: BaseException | None = None
        self.stopped = False
        lock = Lock()
        self._changed, self._complete = Condition(lock), Condition(lock)

    def room(self, place: int) -> UInt8[ndarray, "h w 3"]:
        """Where the pixels of a tile belong; waits while too many batches are open.

        Raises:
            Stopped: the caller went away.
        """
        number, row = divmod(place, self._batch)
        if number not in self._open:
            with self._changed:
                while not self._may_open(number):
                    self._changed.wait()
                self._start(number)
        return self._open[number].images[row]

    def room_now(self, place: int) -> UInt8[ndarray, "h w 3"] | None:
        """As `room`, but None where one would have to wait."""
        number, row = divmod(place, self._batch)
        if number not in self._open:
            with self._changed:
                if not self._may_open(number):
                    return None
                self._start(number)
        return self._open[number].images[row]

    def _may_open(self, number: int) -> bool:
        if self.stopped:
            raise Stopped
        return number < self._delivered + self._most_open

    def _start(self, number: int) -> None:
        if number not in self._open:
            index = self._order[number * self._batch : (number + 1) * self._batch]
            shape = (len(index), self._side_px, self._side_px, 3)
            self._open[number] = _Filling(self._rooms.take()[: math.prod(shape)].reshape(shape), index)

    def finish(self, *places: int, error: str | None = None) -> None:
        """Says that the pixels of tiles are written, or why they cannot be had."""
        if error is not None:
            for place in places:
                number, row = divmod(place, self._batch)
                self._open[number].images[row] = 0
                self._open[number].errors[row] = error
        with self._complete:
            for place in places:
                filling = self._open[place // self._batch]
                filling.missing -= 1
                if not filling.missing:
                    self._complete.notify()

    def __enter__(self) -> OpenBatches:
        """A thread's turn: an error in it that is no tile's damage ends the delivery, and is raised there."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None and not isinstance(error, Stopped):
            with self._complete:
                self._failure = self._failure or error
                self._complete.notify()
        return True

    def stop(self) -> None:
        """Sends every thread home."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()

    def delivered(self) -> Iterator[TileBatch]:
        """The batches, each as soon as it and those before it are complete."""
        for number in range(-(-len(self._order) // self._batch)):
            with self._complete:
                while self._failure is None and (number not in self._open or self._open[number].missing):
                    self._complete.wait()
                if self._failure is not None:
                    raise self._failure
                filling = self._open.pop(number)
                self._delivered = number + 1
                self._changed.notify_all()
            yield filling.finished()


class _Filling:
    """One open batch."""

    def __init__(self, images: ndarray, index: ndarray) -> None:
        self.images, self.index = images, index
        self.missing = len(index)
        self.errors: dict[int, str] = {}

    def finished(self) -> TileBatch:
        ok = np.ones(len(self.index), dtype=bool)
        ok[list(self.errors)] = False
        return TileBatch(self.images, self.index, ok, tuple(self.errors[row] for row in sorted(self.errors)))


def deliver(batches: OpenBatches, work: Callable[[int], None], num_jobs: int, *, threads: int) -> Iterator[TileBatch]:
    """The batches that `work(0)`, `work(1)`, ... fill; `threads` take the jobs in that order.

    Closing the iterator early stops the threads; so does an error in a job, which is raised here.
    """
    jobs, lock = iter(range(num_jobs)), Lock()

    def labour() -> None:
        with batches:
            while True:
                with lock:
                    job = next(jobs, None)
                if job is None or batches.stopped:
                    return
                work(job)

    # Daemons: a caller that forgets the iterator must not keep the interpreter from ending.
    crew = [Thread(target=labour, name=f"coverslip-tiles-{i}", daemon=True) for i in range(min(threads, num_jobs))]
    try:
        for thread in crew:
            thread.start()
        yield from batches.delivered()
    finally:
        batches.stop()
        for thread in crew:
            if thread.ident is not None:
                thread.join()


def read_batches(
    read_tile: Callable[[int], UInt8[ndarray, "h w 3"]], num_tiles: int, *, side_px: int, batch: int, threads: int
) -> Iterator[TileBatch]:
    """Batches of `read_tile(0)`, `read_tile(1)`, ...: for readers that have no pieces to sweep over.

    A `SlideError` of a tile is kept as its text.
    """
    batches = OpenBatches(np.arange(num_tiles, dtype=np.int64), side_px=side_px, batch=batch)
    # Each thread gets neighbouring tiles: they share stored pixels, which readers then decode once.
    run = max(1, -(-batch // threads))

    def work(job: int) -> None:
        for tile in range(job * run, min((job + 1) * run, num_tiles)):
            room, error = batches.room(tile), None
            try:
                room[:] = read_tile(tile)
            except SlideError as lost:
                if lost.code == CLOSED:
                    raise
                error = lost.message
            batches.finish(tile, error=error)

    return deliver(batches, work, -(-num_tiles // run), threads=threads)
