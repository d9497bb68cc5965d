"""Embedding on a Ray cluster: what is done where, and what happens when a process or a machine dies.

    plan      a task a slide          opens it, finds tissue, lays tiles
    read      tasks, a piece each     reads and decodes some hundred tiles into Ray's object store
    encode    actors, one a device    take pieces out of the store and give rows back
    write     this process            claims files, keeps rows and finishes files, as the local engine does

Rows are kept by this process alone, each as soon as it is there. So a worker that dies costs the pieces it had in its
hands: others read and encode them again, and nothing that was kept. If this process dies, the next run goes on from the
rows that are there. Pieces on their way are counted, so that the object store never overflows.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from jaxtyping import Int64
from numpy import ndarray

from coverslip.base.errors import CoverslipError, FeatureError, SlideError, StoreError
from coverslip.encoders.advice import Advice
from coverslip.encoders.engine import Outcome, damaged_tile
from coverslip.recipes.embed import claim
from coverslip.recipes.embed_ledger import EmbedLedger
from coverslip.recipes.engines import ray_workers
from coverslip.recipes.engines.ray_calls import ATTEMPTS, Calls, Ref, first_line
from coverslip.recipes.engines.ray_fleet import Encoder, Fleet
from coverslip.recipes.engines.ray_workers import Encoded, Plan, Told
from coverslip.recipes.job import LOG, Job
from coverslip.store import FeatureWriter

# Pixels of one piece, and the part of the cluster's object store that pieces may fill.
_PIECE_BYTES = 32 << 20
_STORE_SHARE = 0.3
# Tiles that an encoder takes at once where many small pieces wait: enough for several full batches.
_TAKE_TILES = 2048
_WAIT_S = 1.0
_LOCKED_WAIT_S = 2.0
# Where neither encoders nor readers are at work for this share of the time, something else limits a run.
_BUSY = 0.3


@dataclass(eq=False)
class _Slide:
    """A slide whose file is claimed. `left` tiles are neither kept nor left out yet; a dead one has failed."""

    name: str
    plan: Plan
    writer: FeatureWriter
    left: int
    dead: bool = False


@dataclass(eq=False)
class _Piece:
    """Some tiles of a slide on their way; `images` lie in Ray's store once they are read."""

    slide: _Slide
    numbers: Int64[ndarray, k]
    good: Int64[ndarray, g] | None = None
    images: Ref = None
    deaths: int = 0


class Embedding:
    """One embedding run on the connected cluster."""

    def __init__(self, job: Job, slides: list[str], *, shard: str = "1/1") -> None:
        self._job, self._shard = job, shard
        self._calls = Calls()
        self._fleet = Fleet(job.study, self._calls)
        self._ledger = EmbedLedger(job, slides)
        self._rows = {str(row["slide"]): ray_workers.needed(row) for row in job.rows}
        self._names = deque(slides)
        self._begun: dict[str, float] = {}
        self._planning: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._locked: dict[str, tuple[Plan, float]] = {}  # and when to try again
        self._claimed: set[_Slide] = set()
        self._unread: deque[_Piece] = deque()
        self._unencoded: deque[_Piece] = deque()
        self._flying = 0  # pieces that are being read, wait for an encoder, or are with one
        self._effort = _Effort()

    def run(self) -> dict[str, str]:
        """Makes the feature files; the slides that failed with the reasons.

        Raises:
            EncoderError, SettingsError, StoreError: nothing more can be done; what is finished stays.
        """
        begin, most = time.monotonic(), 1
        with self._ledger, ExitStack() as ends:
            ends.callback(self._end)
            while self._names or self._planning or self._locked or self._claimed:
                self._fleet.look()
                most = max(most, len(self._fleet))
                self._plan()
                self._read()
                self._encode()
                self._calls.wait(_WAIT_S)
        self._job.store.tidy()
        advice = self._effort.advice(
            time.monotonic() - begin, encoders=most, readers=self._fleet.readers, gpu=self._fleet.gpu
        )
        self._ledger.conclude(advice, self._effort.how, shard=self._shard)
        return self._ledger.failed

    def _end(self) -> None:
        for slide in self._claimed:
            slide.writer.release()
        self._calls.cancel()
        self._fleet.end()

    # Slides: planned by tasks, claimed here.

    def _plan(self) -> None:
        for name, (plan, when) in list(self._locked.items()):
            if when <= time.monotonic():
                del self._locked[name]
                self._claim(name, plan)
        while self._names and self._fleet.made_by and len(self._planning) <= self._fleet.readers:
            if len(self._unread) >= self._limit:
                return
            name = self._names.popleft()
            self._planning.add(name)
            self._begun.setdefault(name, time.monotonic())
            overlay = self._job.run.tissue_overlay(name)
            task = self._fleet.task(ray_workers.plan)
            ref = task.remote(self._rows[name], self._fleet.study, *self._fleet.made_by, overlay)
            self._calls.ask(ref, partial(self._planned, name), partial(self._not_planned, name))

    def _planned(self, name: str, answer: Plan | CoverslipError) -> None:
        self._planning.remove(name)
        if isinstance(answer, CoverslipError):
            self._refused(name, answer)
        else:
            self._claim(name, answer)

    def _not_planned(self, name: str, error: Exception) -> None:
        self._planning.remove(name)
        self._deaths[name] += 1
        if self._deaths[name] < ATTEMPTS:
            self._names.append(name)
        else:
            self._refused(name, _ended(name, "finding its tissue", error))

    def _claim(self, name: str, plan: Plan) -> None:
        try:
            writer = claim(self._job.store, plan.tiles, plan.identity, on_bad=self._job.study.tiles.on_bad)
        except StoreError as error:
            if error.code != "locked":
                raise
            LOG.info("waiting for another process: %s", name)
            self._locked[name] = plan, time.monotonic() + _LOCKED_WAIT_S
            return
        except SlideError as error:
            self._refused(name, error)
            return
        if writer is None:
            skipped = len(self._job.store.read(name, check=False).skipped)
            self._ledger.finished(Outcome(name, "reused", plan.note, self._seconds(name), skipped))
            return
        todo = writer.missing()
        slide = _Slide(name, plan, writer, len(todo))
        self._claimed.add(slide)
        self._ledger.planned(len(todo))
        if len(todo) == 0:
            self._finish(slide)
            return
        size = max(1, _PIECE_BYTES // (plan.tiles.spec.size_px**2 * 3))
        self._unread += [_Piece(slide, todo[start : start + size]) for start in range(0, len(todo), size)]

    def _refused(self, name: str, error: CoverslipError) -> None:
        """A slide fails with its reason; what is wrong for every slide ends the run."""
        if not isinstance(error, SlideError | FeatureError):
            raise error
        self._ledger.finished(Outcome(name, "failed", seconds=self._seconds(name), error=error))

    def _fail(self, slide: _Slide, error: CoverslipError) -> None:
        if not slide.dead:
            slide.dead = True
            slide.writer.release()
            self._claimed.remove(slide)
            self._refused(slide.name, error)

    def _finish(self, slide: _Slide) -> None:
        try:
            skipped = len(slide.writer.skipped())
            slide.writer.close()
        except FeatureError as error:
            self._fail(slide, error)
            return
        self._claimed.remove(slide)
        note, seconds = slide.plan.note, self._seconds(slide.name)
        self._ledger.finished(Outcome(slide.name, "done", note, seconds, skipped))

    def _seconds(self, name: str) -> float:
        return time.monotonic() - self._begun[name]

    # Pieces: read by tasks, encoded by actors, kept here.

    @property
    def _limit(self) -> int:
        """Pieces on their way at once: enough that nobody waits, as far as the object store has room."""
        room = int(_STORE_SHARE * self._fleet.store_bytes / _PIECE_BYTES)
        return max(1, min(room, 2 * self._fleet.readers + 4 * len(self._fleet)))

    def _read(self) -> None:
        while self._unread and self._flying < self._limit:
            piece = self._unread.popleft()
            if piece.slide.dead:
                continue
            self._flying += 1
            tiles = piece.slide.plan.tiles
            wanted = replace(tiles, xy=tiles.xy[piece.numbers], tissue=tiles.tissue[piece.numbers])
            task = self._fleet.task(ray_workers.read, returns=2)
            told, piece.images = task.remote(self._rows[piece.slide.name], self._fleet.study, wanted)
            self._calls.ask(told, partial(self._was_read, piece), partial(self._lost, piece))

    def _was_read(self, piece: _Piece, answer: Told | CoverslipError) -> None:
        slide = piece.slide
        if isinstance(answer, CoverslipError):
            self._fail(slide, answer)
        elif len(answer.bad) and self._job.study.tiles.on_bad == "fail":
            self._fail(slide, damaged_tile(slide.plan.tiles, int(piece.numbers[answer.bad[0]]), answer.reasons[0]))
        if slide.dead:
            self._flying -= 1
            return
        assert isinstance(answer, Told)
        self._effort.reading += answer.seconds
        piece.good = piece.numbers[answer.good]
        for number, reason in zip(piece.numbers[answer.bad], answer.reasons, strict=True):
            slide.writer.skip(int(number), reason)
        if len(piece.good):
            self._unencoded.append(piece)
        else:
            self._flying -= 1
        self._advance(slide, len(answer.bad))

    def _encode(self) -> None:
        """Gives pieces to encoders: to an idle one whatever is there, to a busy one what fills batches."""
        waiting = [piece for piece in self._unencoded if not piece.slide.dead]
        self._flying -= len(self._unencoded) - len(waiting)
        self._unencoded = deque(waiting)
        free = self._fleet.free(calls=1)
        for place, encoder in enumerate(free):
            tiles = sum(_tiles(piece) for piece in self._unencoded)
            if encoder.calls and tiles < _TAKE_TILES // 4:
                return
            share = min(_TAKE_TILES, -(-tiles // (len(free) - place)))
            taken: list[_Piece] = []
            while self._unencoded and sum(map(_tiles, taken)) < share:
                taken.append(self._unencoded.popleft())
            if taken:
                encoder.calls += 1
                ref = encoder.actor.encode.remote(*[piece.images for piece in taken])
                self._calls.ask(ref, partial(self._encoded, encoder, taken), partial(self._not_encoded, encoder, taken))

    def _encoded(self, encoder: Encoder, pieces: list[_Piece], answer: Encoded | CoverslipError) -> None:
        encoder.calls -= 1
        self._flying -= len(pieces)
        if isinstance(answer, CoverslipError):
            raise answer
        self._effort.add(answer)
        for piece, rows in zip(pieces, answer.rows, strict=True):
            if piece.slide.dead:
                continue
            assert piece.good is not None
            try:
                piece.slide.writer.put(piece.good, rows)
            except FeatureError as error:
                self._fail(piece.slide, error)
            else:
                self._advance(piece.slide, len(rows))

    def _not_encoded(self, encoder: Encoder, pieces: list[_Piece], error: Exception) -> None:
        encoder.calls -= 1
        self._fleet.check(encoder, error)
        for piece in pieces:
            self._lost(piece, error)

    def _lost(self, piece: _Piece, error: Exception) -> None:
        """Who had the piece died: it is read again, before others."""
        self._flying -= 1
        piece.images = piece.good = None
        piece.deaths += 1
        if piece.deaths < ATTEMPTS:
            self._unread.appendleft(piece)
        else:
            self._fail(piece.slide, _ended(piece.slide.name, "reading or encoding its tiles", error))

    def _advance(self, slide: _Slide, num_tiles: int) -> None:
        self._ledger.advanced(num_tiles)
        slide.left -= num_tiles
        if slide.left == 0:
            self._finish(slide)


@dataclass
class _Effort:
    """Who worked how long: for the sentence that says what limited the run."""

    reading: float = 0.0
    encoding: float = 0.0
    num_tiles: int = 0
    how: dict[str, Any] = field(default_factory=dict)

    def add(self, encoded: Encoded) -> None:
        """Counts what an encoder did; the first answer says how it is done."""
        if not self.how:
            self.how = encoded.how
            LOG.info("encoding: %s", ", ".join(f"{key} {value}" for key, value in self.how.items()))
        self.encoding += encoded.seconds
        self.num_tiles += sum(map(len, encoded.rows))

    def advice(self, seconds: float, *, encoders: int, readers: int, gpu: bool) -> Advice | None:
        """What limited the run; None where nothing was encoded."""
        if self.num_tiles == 0:
            return None
        shares = {"encoding": self.encoding / (seconds * encoders), "decoding": self.reading / (seconds * readers)}
        worst = max(shares, key=lambda name: shares[name])
        worked = (
            f"{encoders} encoders worked {shares['encoding']:.0%} of the time, "
            f"{readers} readers {shares['decoding']:.0%}"
        )
        if shares[worst] < _BUSY:
            worst = "opening"
            sentence = f"Starting processes and opening slides limited the run ({worked}): it is small for a cluster."
        else:
            more = "GPUs" if gpu and worst == "encoding" else "processor cores"
            sentence = f"{worst.capitalize()} limited the run ({worked}): more {more} would help."
        return Advice(worst, {k: round(v, 4) for k, v in shares.items()}, round(self.num_tiles / seconds, 2), sentence)


def _tiles(piece: _Piece) -> int:
    return 0 if piece.good is None else len(piece.good)


def _ended(slide: str, what: str, error: Exception) -> SlideError:
    return SlideError(
        f"{what} ended the worker process {ATTEMPTS} times, the last time with {first_line(error)}.",
        slide=slide,
        fix="If memory is short, use machines with more, or fewer cores a machine; else the file is damaged.",
        code="unreadable",
    )
