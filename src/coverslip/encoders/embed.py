"""From a slide and its tiles to features: read, encode, keep; what is done already is not done again."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray

from coverslip.base.errors import EncoderError, FeatureError, SettingsError, SlideError
from coverslip.base.geometry import Tiles
from coverslip.base.progress import SILENT, Progress
from coverslip.base.threads import one_blas_thread
from coverslip.encoders.device import Precision, autocast, choose_device, choose_precision
from coverslip.encoders.encoder import Encoder
from coverslip.encoders.info import EncoderInfo
from coverslip.slide import Slide, TileBatch
from coverslip.store import EncoderIdentity, FeatureIdentity, Features, FeatureStore, FeatureWriter, Skipped
from coverslip.store.writer import to_float16

# What a feature file says of its pixels where they were not read exactly.
SCALED = "scaled decoding"

OnBad = Literal["fail", "skip"]
_Encoded = tuple[Int64[ndarray, "b"], Float32[ndarray, "b d"], list[Skipped]]


def embed(
    slide: Slide,
    tiles: Tiles,
    encoder: Encoder,
    *,
    store: FeatureStore | None = None,
    batch: int = 64,
    threads: int = 2,
    precision: str = "auto",
    device: str | torch.device | None = None,
    on_bad: OnBad = "fail",
    progress: Progress = SILENT,
) -> Features:
    """The features of these tiles: in a file of `store` where one is given, else in memory.

    A file made from the same slide, tiles, encoder and precision is used again; an unfinished one is gone on with, and
    only tiles that are missing are read and encoded. `device` moves the encoder first (None: where it is). Threads read
    ahead while the encoder works. `on_bad="skip"` leaves damaged tiles out and records them in the file.

    Raises:
        SlideError: a tile cannot be read (`on_bad="fail"`).
        EncoderError: the tiles' scale is not the encoder's, or the encoder is in training mode.
        FeatureError: no tiles, or a number that is not finite or does not fit into float16.
        StoreError: the store cannot be written, or another process writes this slide.
    """
    assert tiles.slide == slide.id, (tiles.slide, slide.id)
    if on_bad not in ("fail", "skip"):
        raise SettingsError(f"on_bad = {on_bad!r} is unknown.", fix="Accepted: fail, skip.")
    if any(module.training for module in encoder.modules()):
        raise EncoderError(
            f"The encoder {encoder.info.name!r} is in training mode, where equal tiles give unequal rows.",
            fix="Call encoder.eval() first.",
        )
    work = _Work(slide, tiles, encoder, batch, threads, precision, device, on_bad)
    made = identity(slide, tiles, encoder.info, work.precision)
    if store is not None and store.has(slide.id, made.fingerprint):
        return store.read(slide.id)
    if len(tiles) == 0:
        raise FeatureError("there are no tiles to embed.", slide=slide.id, code="empty")
    if store is None:
        with one_blas_thread():
            return _in_memory(work, made, progress)
    with one_blas_thread(), FeatureWriter(store.folder, slide.id, made, tiles.xy) as writer:
        todo = writer.missing()
        with progress.stage("tiles", len(todo), unit="tile") as step, closing(work.encode(todo)) as batches:
            for index, rows, bad in batches:
                writer.put(index, rows)
                for skipped in bad:
                    writer.skip(skipped.index, skipped.reason)
                step.advance(len(index) + len(bad))
    return store.read(slide.id)


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


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _in_memory(work: _Work, made: FeatureIdentity, progress: Progress) -> Features:
    tiles = work.tiles
    rows = np.zeros((len(tiles), made.encoder.dim), dtype=np.float16)
    skipped: list[Skipped] = []
    every = np.arange(len(tiles))
    with progress.stage("tiles", len(tiles), unit="tile") as step, closing(work.encode(every)) as batches:
        for index, encoded, bad in batches:
            rows[index] = to_float16(encoded, slide=tiles.slide)
            skipped += bad
            step.advance(len(index) + len(bad))
    done = np.setdiff1d(np.arange(len(tiles)), [item.index for item in skipped])
    if len(done) == 0:
        raise FeatureError(f"none of the {len(tiles)} tiles could be embedded.", slide=tiles.slide, code="empty")
    return Features(
        tiles.slide,
        rows[done],
        tiles.xy[done],
        made,
        tiles.mpp,
        tiles.span,
        encoder=made.encoder.name,
        skipped=tuple(skipped),
    )


class _Work:
    """One slide on its way through the encoder."""

    def __init__(
        self,
        slide: Slide,
        tiles: Tiles,
        encoder: Encoder,
        batch: int,
        threads: int,
        precision: str,
        device: str | torch.device | None,
        on_bad: OnBad,
    ) -> None:
        self.slide, self.tiles, self.encoder = slide, tiles, encoder
        self.batch, self.threads, self.on_bad = batch, threads, on_bad
        here = next(encoder.parameters(), torch.empty(0)).device
        self.device = choose_device(here if device is None else device, encoder.info)
        self.precision = choose_precision(precision, self.device, encoder.info)

    def encode(self, todo: Int64[ndarray, k]) -> Generator[_Encoded, None, None]:
        """Batches of the tiles `todo`: numbers of those that were read, their rows, and those that cannot be read.

        Closing it early stops the reading threads, so that the slide may be closed after an error.
        """
        if len(todo) == 0:
            return
        self.encoder.to(self.device)
        wanted = replace(self.tiles, xy=self.tiles.xy[todo], tissue=self.tiles.tissue[todo])
        reading = self.slide.tiles(wanted, batch=self.batch, threads=self.threads)
        with closing(cast("Generator[TileBatch, None, None]", reading)) as batches:
            for images in batches:
                numbers = todo[images.index]
                bad = self._bad(images, numbers)
                yield numbers[images.ok], self._rows(images.images[images.ok]), bad

    def _rows(self, images: ndarray) -> Float32[ndarray, "b d"]:
        if len(images) == 0:
            return np.zeros((0, self.encoder.info.dim), dtype=np.float32)
        with torch.inference_mode(), autocast(self.precision, self.device):
            x = self.encoder.prepare(torch.from_numpy(images).to(self.device, non_blocking=True))
            rows: ndarray = self.encoder(x).float().cpu().numpy()
        return rows

    def _bad(self, images: TileBatch, numbers: Int64[ndarray, b]) -> list[Skipped]:
        bad = [Skipped(int(n), reason) for n, reason in zip(numbers[~images.ok], images.errors, strict=True)]
        if bad and self.on_bad == "fail":
            raise damaged_tile(self.tiles, bad[0].index, bad[0].reason)
        return bad
