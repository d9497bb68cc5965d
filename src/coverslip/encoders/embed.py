"""From a slide and its tiles to features: read, encode, keep; what is done already is not done again."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray

from coverslip.base.errors import CoverslipError, FeatureError, SettingsError
from coverslip.base.geometry import Tiles
from coverslip.base.progress import SILENT, Progress, Step
from coverslip.base.threads import one_blas_thread
from coverslip.encoders.device import Precision, choose_device, choose_precision
from coverslip.encoders.encoder import Encoder
from coverslip.encoders.engine import Engine, OnBad, Outcome, Sink, SlideWork
from coverslip.encoders.info import EncoderInfo
from coverslip.encoders.runner import Runner, check_evaluates
from coverslip.encoders.tuning import ReadingThreads, choose_batch
from coverslip.slide import Slide
from coverslip.store import EncoderIdentity, FeatureIdentity, Features, FeatureStore, FeatureWriter, Skipped
from coverslip.store.writer import none_embedded, to_float16

# What a feature file says of its pixels where they were not read exactly.
SCALED = "scaled decoding"


def embed(
    slide: Slide,
    tiles: Tiles,
    encoder: Encoder,
    *,
    store: FeatureStore | None = None,
    batch: int | None = None,
    threads: int | None = None,
    precision: str = "auto",
    device: str | torch.device | None = None,
    on_bad: OnBad = "fail",
    exact: bool = True,
    progress: Progress = SILENT,
) -> Features:
    """The features of these tiles: in a file of `store` where one is given, else in memory.

    A file made from the same slide, tiles, encoder and precision is used again; an unfinished one is gone on with, and
    only tiles that are missing are read and encoded. `batch` tiles are encoded at once and `threads` read ahead
    (None: `coverslip.encoders.tuning` chooses). `device` moves the encoder first (None: where it is). `on_bad="skip"`
    leaves damaged tiles out and records them in the file. `exact=False` is that of `Slide.tiles`, and part of what a
    file is made from.

    Raises:
        SlideError: a tile cannot be read (`on_bad="fail"`).
        EncoderError: the tiles' scale is not the encoder's, or the encoder is in training mode.
        FeatureError: no tiles, or a number that is not finite or does not fit into float16.
        StoreError: the store cannot be written, or another process writes this slide.
    """
    assert tiles.slide == slide.id, (tiles.slide, slide.id)
    if on_bad not in ("fail", "skip"):
        raise SettingsError(f"on_bad = {on_bad!r} is unknown.", fix="Accepted: fail, skip.")
    for name, number in (("batch", batch), ("threads", threads)):
        if number is not None and number < 1:
            raise SettingsError(f"{name} = {number} is no whole number over 0.", fix="Leave it out to have it chosen.")
    check_evaluates(encoder)
    here = next(encoder.parameters(), torch.empty(0)).device
    there = choose_device(here if device is None else device, encoder.info)
    chosen = choose_precision(precision, there, encoder.info)
    made = identity(slide, tiles, encoder.info, chosen, exact=exact)
    if store is not None and store.has(slide.id, made.fingerprint):
        return store.read(slide.id)
    if len(tiles) == 0:
        raise FeatureError("there are no tiles to embed.", slide=slide.id, code="empty")

    def runner(size_px: int) -> Runner:
        found = choose_batch(encoder, device=there, precision=chosen, size_px=size_px, fixed=batch)
        return Runner(encoder, device=there, precision=chosen, batch=found.batch)

    with ExitStack() as ends, one_blas_thread():
        memory = _Memory(tiles, made)
        sink: Sink = memory if store is None else FeatureWriter(store.folder, slide.id, made, tiles.xy)
        ends.callback(sink.release)
        work = SlideWork(slide, tiles, sink, closes=False)
        step = ends.enter_context(progress.stage("tiles", work.left, unit="tile"))
        watcher = _OneSlide(step)
        Engine(lambda _: work, runner, watcher, threads=ReadingThreads(threads), on_bad=on_bad, exact=exact).run(
            [slide.id]
        )
    if watcher.error is not None:
        raise watcher.error
    return memory.features() if store is None else store.read(slide.id)


class _OneSlide:
    """Passes progress on, and keeps why the slide failed."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.error: CoverslipError | None = None

    def planned(self, num_tiles: int) -> None:
        pass

    def advanced(self, num_tiles: int) -> None:
        self._step.advance(num_tiles)

    def finished(self, outcome: Outcome) -> None:
        self.error = outcome.error


class _Memory:
    """Keeps the rows of one slide in memory, as `FeatureWriter` does in a file."""

    def __init__(self, tiles: Tiles, identity: FeatureIdentity) -> None:
        self._tiles, self._identity = tiles, identity
        self._rows = np.zeros((len(tiles), identity.encoder.dim), dtype=np.float16)
        self._skipped: dict[int, str] = {}

    def missing(self) -> Int64[ndarray, m]:
        return np.arange(len(self._tiles))

    def put(self, index: Int64[ndarray, b], rows: Float32[ndarray, "b d"]) -> None:
        self._rows[index] = to_float16(rows, slide=self._tiles.slide)

    def skip(self, index: int, reason: str) -> None:
        self._skipped[index] = reason

    def skipped(self) -> dict[int, str]:
        return self._skipped

    def close(self) -> None:
        if len(self._skipped) == len(self._tiles):
            raise none_embedded(self._tiles.slide, self._skipped)

    def release(self) -> None:
        pass

    def features(self) -> Features:
        tiles, made = self._tiles, self._identity
        done = np.setdiff1d(np.arange(len(tiles)), list(self._skipped))
        return Features(
            tiles.slide,
            self._rows[done],
            tiles.xy[done],
            made,
            tiles.mpp,
            tiles.span,
            encoder=made.encoder.name,
            skipped=tuple(Skipped(index, reason) for index, reason in sorted(self._skipped.items())),
        )


def identity(
    slide: Slide, tiles: Tiles, info: EncoderInfo, precision: Precision, *, exact: bool = True
) -> FeatureIdentity:
    """What a feature file of these tiles would be made from; its fingerprint decides whether one is used again.

    Raises:
        EncoderError: the tiles' scale is not the encoder's.
    """
    info.check_scale(tiles.spec)
    made_by = encoder_identity(info, precision)
    reading = "" if exact else SCALED
    return FeatureIdentity.of(tiles, made_by, slide_fingerprint=slide.fingerprint(), reading=reading)


def encoder_identity(info: EncoderInfo, precision: Precision) -> EncoderIdentity:
    """The part of a feature file's identity that says which encoder."""
    size = "any size" if info.input_px is None else f"{info.input_px} px"
    return EncoderIdentity(
        name=info.name,
        dim=info.dim,
        source=info.source,
        revision=info.revision,
        sha256=info.sha256 or "",
        pooling=info.pooling,
        preprocessing=f"{size}, resize {info.resize}, mean {_numbers(info.mean)}, sd {_numbers(info.std)}",
        precision=precision,
        licence=info.licence,
    )


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
