"""The engine on one machine: slides in, feature files out, every stage at work at the same time.

    planners   open the coming slides, find tissue, lay tiles, claim the file
    readers    read and decode tiles, and fill batches with them
    encoder    the thread that called: takes full batches to the device, and rows back
    keeper     writes rows, finishes files, tells what became of each slide

Between the stages lie bounded queues, and a handful of batches goes round and is used again and again: memory does not
grow with the cohort. Two slides are read at a time and a batch holds tiles of whatever slides come, so that a slide
with ten tiles costs ten tiles. A slide that fails is told and left; rows of others in the same batch are kept.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, cast

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray
from torch import Tensor

from coverslip.base.errors import CoverslipError, FeatureError, SlideError, StoreError
from coverslip.base.geometry import Tiles
from coverslip.encoders.advice import Timing
from coverslip.encoders.pipe import Pipe, Stopped
from coverslip.encoders.runner import RunnerFor
from coverslip.encoders.tuning import ReadingThreads
from coverslip.encoders.waits import StorageWaits
from coverslip.slide import Slide, TileBatch

OnBad = Literal["fail", "skip"]

# Tiles that a reader hands over at once; batches of the encoder are filled from them, whatever their size.
_READ_BATCH = 64
# Batches that go round beside those on the device: one being filled, one waiting. More of them leave the processor's
# cache before they are used: with six, a tile cost a fifth more CPU time than reading it alone.
_BATCHES = 2
_MOST_BATCHES = 8
# Slides that are read at a time, and slides that are planned and wait for a reader.
_SLIDES_READ = 2
_AHEAD = 2
# Fewer tiles than this are left to the threads that read them.
_WORTH_MORE_THREADS = 1024
# A batch of more slides than this goes on before it is full: each of them keeps a file open.
_SLIDES_A_BATCH = 64
_ROWS_WAITING = 8
# Rows are written at most so often, whatever the encoder's speed: each time is a trip to the disk.
_WRITE_S = 0.2
_LOOK_S = 1.0


class Sink(Protocol):
    """Where the rows of one slide go: a `FeatureWriter`, or memory."""

    def missing(self) -> Int64[ndarray, m]: ...
    def put(self, index: Int64[ndarray, b], rows: Float32[ndarray, "b d"]) -> None: ...
    def skip(self, index: int, reason: str) -> None: ...
    def skipped(self) -> dict[int, str]: ...
    def close(self) -> object: ...
    def release(self) -> None: ...


@dataclass(eq=False)
class SlideWork:
    """One slide that is ready to be read. `closes` says that the engine closes the slide when it is read."""

    slide: Slide
    tiles: Tiles
    sink: Sink
    note: str = ""
    closes: bool = True
    begun: float = field(default_factory=time.monotonic)
    dead: bool = field(init=False, default=False)  # failed: what is still under way is thrown away

    def __post_init__(self) -> None:
        self.todo = self.sink.missing()
        self.left = len(self.todo)


@dataclass(frozen=True)
class Outcome:
    """What became of one slide. `skipped` counts damaged tiles that the file leaves out; `error` is why it failed."""

    slide: str
    status: Literal["done", "reused", "failed", "locked"]
    note: str = ""
    seconds: float = math.nan
    skipped: int = 0
    error: CoverslipError | None = None


class Watcher(Protocol):
    """Is told how the engine gets on, always by one thread at a time."""

    def planned(self, num_tiles: int) -> None: ...
    def advanced(self, num_tiles: int) -> None: ...
    def finished(self, outcome: Outcome) -> None: ...


@dataclass
class _Batch:
    """A batch that is being filled: pixels, and whose they are."""

    tensor: Tensor
    images: UInt8[ndarray, "b h w 3"]
    parts: list[tuple[SlideWork, Int64[ndarray, k]]] = field(default_factory=list)
    count: int = 0
    lent: Tensor | None = None  # pixels that lie elsewhere, in place of its own


@dataclass(frozen=True)
class _Rows:
    work: SlideWork
    index: Int64[ndarray, b]
    rows: Float32[ndarray, "b d"]


class Engine:
    """Embeds slides; one engine for one call of `run`."""

    def __init__(
        self,
        prepare: Callable[[str], SlideWork | Outcome],
        runner_for: RunnerFor,
        watcher: Watcher,
        *,
        threads: ReadingThreads,
        on_bad: OnBad = "fail",
        exact: bool = True,
    ) -> None:
        """`prepare` opens and plans one slide, called by several threads: its work, or an outcome where there is none.
        `runner_for` makes the encoder ready for tiles of a size; it is not called where no slide has work."""
        self.timing = Timing()
        self._prepare, self._runner_for, self._watcher = prepare, runner_for, watcher
        self._threads, self._on_bad, self._exact = threads, on_bad, exact
        self._lanes = self._reading = min(threads.count, _SLIDES_READ)
        self._free: Pipe[_Batch] = Pipe(_MOST_BATCHES)
        self._ready: Pipe[_Batch] = Pipe(_MOST_BATCHES)
        self._told: Pipe[_Rows | Callable[[], None]] = Pipe(_ROWS_WAITING)
        self._error: BaseException | None = None
        self._open: _Batch | None = None
        self._filling, self._taking, self._counting = threading.Lock(), threading.Lock(), threading.Lock()
        self._planned: deque[Future[SlideWork | None]] = deque()
        self._names: deque[str] = deque()
        self._live: set[SlideWork] = set()
        self._wanted = threading.Event()
        self._running = threading.Event()
        self._size_px = self._size = 0
        self._in_place = False
        self._waits, self._thread_s = StorageWaits(), 0.0
        self._looked = (time.perf_counter(), 0, 0.0)

    def run(self, slides: Sequence[str]) -> None:
        """Embeds the slides; the watcher hears of each.

        Raises:
            EncoderError, StoreError: nothing more can be done; what is finished stays.
            KeyboardInterrupt: as it came; what is finished stays.
        """
        self._names.extend(slides)
        self._lanes = self._reading = max(1, min(self._lanes, len(slides)))
        with (
            ThreadPoolExecutor(self._lanes, thread_name_prefix="coverslip-plan") as self._planners,
            ThreadPoolExecutor(self._lanes + 1, thread_name_prefix="coverslip-embed") as stages,
        ):
            try:
                keeping = self._start(stages, self._keep)
                with self._taking:
                    self._plan_ahead()
                for _ in range(self._lanes):
                    self._start(stages, self._read_slides)
                self._encode()
                begin = time.perf_counter()
                self._told.close()
                keeping.result()
                self.timing.writing += time.perf_counter() - begin
            except Stopped:
                pass
            finally:
                self._stop(None)
                with self._taking:
                    self._names.clear()
                self._planners.shutdown(wait=True, cancel_futures=True)
                stages.shutdown(wait=True)
                for work in list(self._live):
                    self._drop(work)
        if self._error is not None:
            raise self._error

    def _start(self, stages: ThreadPoolExecutor, stage: Callable[[], None]) -> Future[None]:
        future = stages.submit(stage)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: Future[None]) -> None:
        error = future.exception()
        if error is not None:
            self._stop(None if isinstance(error, Stopped) else error)

    def _stop(self, error: BaseException | None) -> None:
        """Ends every stage; the first error is the one that is told."""
        self._error = self._error or error
        for pipe in (self._free, self._ready, self._told):
            pipe.stop()
        self._wanted.set()
        self._running.set()

    # Planning: in the planners' threads.

    def _plan_ahead(self) -> None:
        while self._names and len(self._planned) < _AHEAD:
            self._planned.append(self._planners.submit(self._plan, self._names.popleft()))

    def _plan(self, name: str) -> SlideWork | None:
        begin = time.monotonic()
        try:
            found = self._prepare(name)
        except (SlideError, FeatureError) as error:
            self._tell(Outcome(name, "failed", seconds=time.monotonic() - begin, error=error))
            return None
        except StoreError as error:
            if error.code != "locked":
                raise
            self._tell(Outcome(name, "locked", error=error))
            return None
        if isinstance(found, Outcome):
            self._tell(found)
            return None
        found.begun = begin
        self._live.add(found)
        num_tiles = found.left  # now: rows of it may be kept before this is told
        self._told.put(lambda: self._watcher.planned(num_tiles))
        return found

    def _tell(self, outcome: Outcome) -> None:
        self._told.put(lambda: self._watcher.finished(outcome))

    # Reading: in the lanes' threads.

    def _read_slides(self) -> None:
        while True:
            with self._taking:
                future = self._planned.popleft() if self._planned else None
                self._plan_ahead()
            if future is None:
                break
            begin = time.perf_counter()
            work = future.result()
            with self._counting:
                self.timing.opening += time.perf_counter() - begin
            if work is not None:
                self._read_slide(work)
        with self._filling:
            self._reading -= 1
            if self._reading == 0:
                self._hand_over()
                self._ready.close()
                self._wanted.set()

    def _read_slide(self, work: SlideWork) -> None:
        try:
            todo = work.todo
            while len(todo) and not work.dead:
                self._size_px = work.tiles.spec.size_px
                self._wanted.set()
                todo = self._read_tiles(work, todo)
        except (SlideError, FeatureError) as error:
            failure = error
            self._told.put(lambda: self._fail(work, failure))
        finally:
            if work.closes:
                work.slide.close()
        if len(work.todo) == 0:
            self._told.put(lambda: self._finish(work))

    def _read_tiles(self, work: SlideWork, todo: Int64[ndarray, k]) -> Int64[ndarray, r]:
        """Reads tiles until all are read or another number of threads is better; those that remain."""
        threads = self._share()
        wanted = replace(work.tiles, xy=work.tiles.xy[todo], tissue=work.tiles.tissue[todo])
        reading = work.slide.tiles(wanted, batch=_READ_BATCH, threads=threads, exact=self._exact)
        read = np.zeros(len(todo), dtype=bool)
        with closing(cast("Generator[TileBatch, None, None]", reading)) as batches:
            while True:
                begin = time.perf_counter()
                images = next(batches, None)
                self._count(0 if images is None else len(images), time.perf_counter() - begin, threads)
                if images is None or work.dead:
                    return todo[:0]
                read[images.index] = True
                numbers = todo[images.index]
                self._bad(work, numbers[~images.ok], images.errors)
                self._fill(work, numbers, images)
                if self._share() > threads and np.count_nonzero(~read) > _WORTH_MORE_THREADS:
                    return todo[~read]

    def _share(self) -> int:
        """Threads for one slide: all of them where no other slide is read."""
        return max(1, self._threads.count // max(1, self._reading))

    def _bad(self, work: SlideWork, numbers: Int64[ndarray, k], reasons: tuple[str, ...]) -> None:
        if len(numbers) == 0:
            return
        if self._on_bad == "fail":
            raise damaged_tile(work.tiles, int(numbers[0]), reasons[0])
        self._told.put(lambda: self._skip(work, numbers, reasons))

    def _fill(self, work: SlideWork, numbers: Int64[ndarray, k], images: TileBatch) -> None:
        good = np.flatnonzero(images.ok)
        self._running.wait()
        if not self._size:
            raise Stopped
        while len(good):
            if self._in_place and len(good) >= self._size and good[self._size - 1] - good[0] == self._size - 1:
                now, good = good[: self._size], good[self._size :]
                self._lend(work, numbers[now], images.images[now[0] : now[-1] + 1])
                continue
            with self._filling:
                if self._open is None:
                    self._open = self._take_free()
                batch = self._open
                now, good = good[: self._size - batch.count], good[self._size - batch.count :]
                # Most tiles are neighbours, and a slice is copied once where an index would be twice.
                whole = len(now) == now[-1] + 1 - now[0]
                chosen = images.images[now[0] : now[-1] + 1] if whole else images.images[now]
                batch.images[batch.count : batch.count + len(now)] = chosen
                batch.parts.append((work, numbers[now]))
                batch.count += len(now)
                if batch.count == self._size or len(batch.parts) >= _SLIDES_A_BATCH:
                    self._hand_over()

    def _lend(self, work: SlideWork, numbers: Int64[ndarray, b], images: UInt8[ndarray, "b h w 3"]) -> None:
        """As many tiles as a batch has go to the encoder where they lie; one of the batches is set aside meanwhile."""
        batch = self._take_free()
        batch.lent = torch.from_numpy(images)
        batch.parts.append((work, numbers))
        self._ready.put(batch)

    def _take_free(self) -> _Batch:
        batch = self._free.get()
        assert batch is not None, "batches go round until the engine ends"
        return batch

    def _hand_over(self) -> None:
        """The open batch goes to the encoder, its empty places black."""
        if self._open is not None:
            self._open.images[self._open.count :] = 0
            self._ready.put(self._open)
            self._open = None

    def _count(self, num_tiles: int, seconds: float, threads: int) -> None:
        """Adds to the measurements, and about once a second asks whether more threads would read faster."""
        with self._counting:
            self.timing.tiles += seconds
            self.timing.num_tiles += num_tiles
            self._thread_s += seconds * threads
            storage = self._waits.look(self._thread_s)
            self.timing.storage = self._waits.share
            then, tiles, waiting = self._looked
            now = time.perf_counter()
            if now - then < _LOOK_S or self._threads.settled:
                return
            self._looked = (now, self.timing.num_tiles, self.timing.waiting)
            self._threads.observe(
                rate=(self.timing.num_tiles - tiles) / (now - then),
                starved=(self.timing.waiting - waiting) / (now - then),
                storage=storage,
            )

    # Encoding: in the thread that called.

    def _encode(self) -> None:
        clock = time.perf_counter
        mark = clock()
        self._wanted.wait()
        self.timing.waiting += clock() - mark
        if not self._size_px:  # no slide has work
            assert self._ready.get() is None
            return
        runner = self._runner_for(self._size_px)
        self._size, self._in_place = runner.batch, runner.in_place
        self._running.set()
        for _ in range(_BATCHES + runner.ahead):
            tensor = runner.buffer(self._size_px)
            self._free.put(_Batch(tensor, tensor.numpy()))
        under_way: deque[tuple[_Batch, Callable[[], ndarray]]] = deque()
        mark = clock()
        while True:
            if under_way and (len(under_way) >= runner.ahead or not len(self._ready)):
                batch, rows = under_way.popleft()
                found = rows()
                mark, self.timing.encoding = (now := clock()), self.timing.encoding + now - mark
                self._send(batch, found)
                mark, self.timing.writing = (now := clock()), self.timing.writing + now - mark
                continue
            batch_or_end = self._ready.get()
            mark, self.timing.waiting = (now := clock()), self.timing.waiting + now - mark
            if batch_or_end is None:
                return
            tensor = batch_or_end.tensor if batch_or_end.lent is None else batch_or_end.lent
            under_way.append((batch_or_end, runner.submit(tensor).rows))
            mark, self.timing.encoding = (now := clock()), self.timing.encoding + now - mark

    def _send(self, batch: _Batch, rows: Float32[ndarray, "b d"]) -> None:
        """The rows of a batch to the keeper, each slide's apart, and the batch back to the readers."""
        start = 0
        for work, index in batch.parts:
            self._told.put(_Rows(work, index, rows[start : start + len(index)]))
            start += len(index)
        batch.parts, batch.count, batch.lent = [], 0, None
        self._free.put(batch)

    # Keeping: in the keeper's thread, which alone touches sinks and the watcher.

    def _keep(self) -> None:
        """Does what it is told. Rows of a slide are written together, one trip to the disk for all that came since the
        last one. They wait for no more than that, and not where they are the slide's last or something else is told."""
        rows: dict[SlideWork, list[_Rows]] = {}
        written = time.monotonic()
        while told := self._told.drain():
            for item in told:
                if isinstance(item, _Rows):
                    rows.setdefault(item.work, []).append(item)
            due = time.monotonic() - written >= _WRITE_S or not all(isinstance(item, _Rows) for item in told)
            for work in [work for work, parts in rows.items() if due or sum(len(p.index) for p in parts) == work.left]:
                self._write(work, rows.pop(work))
            written = time.monotonic() if due else written
            for item in told:
                if not isinstance(item, _Rows):
                    item()
        for work, parts in rows.items():
            self._write(work, parts)

    def _write(self, work: SlideWork, parts: list[_Rows]) -> None:
        self._put(work, np.concatenate([p.index for p in parts]), np.concatenate([p.rows for p in parts]))

    def _put(self, work: SlideWork, index: Int64[ndarray, b], rows: Float32[ndarray, "b d"]) -> None:
        if work.dead:
            return
        try:
            work.sink.put(index, rows)
        except FeatureError as error:
            self._fail(work, error)
            return
        self._done(work, len(index))

    def _skip(self, work: SlideWork, numbers: Int64[ndarray, k], reasons: tuple[str, ...]) -> None:
        if work.dead:
            return
        for number, reason in zip(numbers.tolist(), reasons, strict=True):
            work.sink.skip(number, reason)
        self._done(work, len(numbers))

    def _done(self, work: SlideWork, num_tiles: int) -> None:
        work.left -= num_tiles
        self._watcher.advanced(num_tiles)
        if work.left == 0:
            self._finish(work)

    def _finish(self, work: SlideWork) -> None:
        skipped = len(work.sink.skipped())
        try:
            work.sink.close()
        except FeatureError as error:
            self._fail(work, error)
            return
        self._live.discard(work)
        seconds = time.monotonic() - work.begun
        self._watcher.finished(Outcome(work.slide.id, "done", work.note, seconds, skipped))

    def _fail(self, work: SlideWork, error: CoverslipError) -> None:
        if work.dead:
            return
        work.dead = True
        self._live.discard(work)
        work.sink.release()
        seconds = time.monotonic() - work.begun
        self._watcher.finished(Outcome(work.slide.id, "failed", work.note, seconds, error=error))

    def _drop(self, work: SlideWork) -> None:
        """Lets go of a slide that was not finished when the engine ended."""
        self._live.discard(work)
        work.sink.release()
        if work.closes:
            work.slide.close()


def damaged_tile(tiles: Tiles, index: int, reason: str) -> SlideError:
    """What a damaged tile is told as, where it makes its slide fail."""
    x, y = tiles.xy[index]
    return SlideError(
        f"tile {index} at ({x}, {y}) cannot be read: {reason}",
        slide=tiles.slide,
        fix="`coverslip check` says more about the slide; copy it from its source again, or set "
        'tiles.on_bad = "skip" to leave such tiles out.',
        code="decode_failed",
    )
