"""How many tiles go through the encoder at once, and how many threads read them, where the user fixed neither.

On a CPU the batch is a constant. Larger ones are no faster there, and with one size everywhere the same tile gives the
same bits in every run. On a graphics card the first seconds decide: the batch is doubled while that pays. Threads begin
as many as cores; more are tried only where the encoder waits for tiles and the threads wait for the storage.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from coverslip.encoders.device import Precision
from coverslip.encoders.encoder import Encoder
from coverslip.encoders.runner import Runner

CPU_BATCH = 32
_SMALLEST, _LARGEST = 16, 1024
# A doubled batch that is not this much faster is not worth its memory, and the smaller one is taken the next time too.
_GAIN = 1.05
_BUDGET_S = 5.0
_BUFFER_BYTES = 256 << 20

# More reading threads than this only wait for each other: what Python itself does for a tile is a fifteenth of it.
MOST_CPU_THREADS = 16
_MOST_THREADS = 64
_STORAGE = 0.5
_STARVED = 0.1


@dataclass(frozen=True)
class BatchChoice:
    """A batch, and how it was found: for run.log."""

    batch: int
    why: str


def choose_batch(
    encoder: Encoder, *, device: torch.device, precision: Precision, size_px: int, fixed: int | None = None
) -> BatchChoice:
    """The batch for tiles of `size_px`: as fixed, the constant of a CPU, or what a short search on a card finds."""
    if fixed is not None:
        return BatchChoice(fixed, "as set")
    if device.type == "cpu":
        return BatchChoice(CPU_BATCH, "always, on a CPU")
    largest = max(_SMALLEST, min(_LARGEST, _BUFFER_BYTES // (size_px * size_px * 3)))

    def seconds(batch: int) -> float:
        runner = Runner(encoder, device=device, precision=precision, batch=batch)
        images = runner.buffer(size_px)
        times = []
        for _ in range(4):  # the first one warms up
            begin = time.perf_counter()
            runner.submit(images).rows()
            times.append(time.perf_counter() - begin)
        return min(times[1:]) if runner.step == batch else float("inf")

    found = fastest_batch(seconds, largest=largest)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def fastest_batch(
    seconds: Callable[[int], float], *, smallest: int = _SMALLEST, largest: int = _LARGEST
) -> BatchChoice:
    """The batch at which doubling stops to pay; `seconds` times one batch, infinity where it does not fit."""
    begin = time.monotonic()
    batch, rate = smallest, smallest / seconds(smallest)
    tried = [f"{batch}: {rate:.0f}"]
    while batch * 2 <= largest and time.monotonic() - begin < _BUDGET_S:
        twice = batch * 2 / seconds(batch * 2)
        tried.append(f"{batch * 2}: {twice:.0f}")
        if twice < _GAIN * rate:
            break
        batch, rate = batch * 2, twice
    return BatchChoice(batch, f"the fastest of those tried (tiles a second by batch: {', '.join(tried)})")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class ReadingThreads:
    """How many threads read; safe to ask and tell from several threads.

    `fixed` is the user's number. Otherwise it begins with one a core, and where the encoder waits for tiles while the
    threads wait for the storage, doubles as long as that reads a fifth faster.
    """

    fixed: int | None = None
    count: int = field(init=False)
    settled: bool = field(init=False)
    _before: tuple[int, float] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.count = self.fixed or min(cores(), MOST_CPU_THREADS)
        self.settled = self.fixed is not None
        self._lock = threading.Lock()

    def observe(self, *, rate: float, starved: float, storage: float) -> None:
        """What a second or more of reading showed: tiles a second, and two shares of the time, 0..1: in which the
        encoder waited for tiles, and in which the reading threads waited for the storage."""
        with self._lock:
            if self.settled:
                return
            if self._before is not None and rate < 1.2 * self._before[1]:
                self.count, self.settled = self._before[0], True
            elif starved < _STARVED or storage < _STORAGE or self.count * 2 > _MOST_THREADS:
                self.settled = True
            else:
                self._before = (self.count, rate)
                self.count *= 2
