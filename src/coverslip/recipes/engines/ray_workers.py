"""What runs in Ray's worker processes: finding tissue, reading tiles, encoding them, training a fold.

Every function here takes and returns values. A mistake that a user can make (a `CoverslipError`) is returned and not
raised, so that the process that asked can raise it as its own; anything else that is raised is a bug and told as one.
"""

from __future__ import annotations

import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray

from coverslip._version import __version__
from coverslip.base.errors import CoverslipError
from coverslip.base.geometry import Tiles
from coverslip.base.study import Study
from coverslip.base.threads import one_blas_thread
from coverslip.encoders import EncoderInfo
from coverslip.encoders.device import Precision
from coverslip.recipes.embed import StudyEncoder, plan_slide
from coverslip.recipes.slides import open_slide
from coverslip.slide import Slide, TileBatch
from coverslip.store import FeatureIdentity

Answer = TypeVar("Answer")

# The columns of a table that opening a slide needs; the others stay where they are.
_COLUMNS = ("slide", "path", "mpp")
_OPEN_SLIDES = 4
_READ_BATCH = 64


@dataclass(frozen=True)
class Place:
    """What a machine of the cluster is and sees."""

    host: str
    coverslip: str
    sees: bool  # the folder that was asked for


@dataclass(frozen=True)
class Plan:
    """Where a slide's tiles lie, and what its feature file would be made from."""

    tiles: Tiles
    identity: FeatureIdentity
    note: str


@dataclass(frozen=True)
class Told:
    """What reading some tiles gave, without their pixels: places of the good ones in the order of the pixels, places
    of the damaged ones with the reasons, and how long it took."""

    good: Int64[ndarray, g]
    bad: Int64[ndarray, b]
    reasons: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Encoded:
    """Rows of several pieces, in their order, how long the encoder worked, and how (for embedding.json)."""

    rows: list[Float32[ndarray, "g d"]]
    seconds: float
    how: dict[str, Any]


def look_around(folder: Path) -> Place:
    """What this machine is, and whether it sees `folder`."""
    return Place(platform.node(), __version__, folder.is_dir())


def needed(row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a table's row has to travel."""
    return {name: row[name] for name in _COLUMNS if name in row and row[name] == row[name]}


def plan(
    row: Mapping[str, Any], study: Study, info: EncoderInfo, precision: Precision, overlay: Path
) -> Plan | CoverslipError:
    """A slide's tissue and tiles; its tissue is drawn to `overlay`."""
    try:
        planned = plan_slide(row, study, info, precision, overlay=overlay)
    except CoverslipError as error:
        return error
    planned.slide.close()
    return Plan(planned.tiles, planned.identity, planned.note)


def read(
    row: Mapping[str, Any], study: Study, tiles: Tiles
) -> tuple[Told | CoverslipError, UInt8[ndarray, "g h w 3"] | None]:
    """The pixels of some tiles of a slide; damaged ones are left out and told."""
    begin = time.perf_counter()
    side = tiles.spec.size_px
    images = np.empty((len(tiles), side, side, 3), dtype=np.uint8)
    good = np.zeros(0, dtype=np.int64)
    bad = good.copy()
    reasons: tuple[str, ...] = ()
    try:
        reading = _OPEN.slide(row, study).tiles(tiles, batch=_READ_BATCH, threads=1, exact=study.tiles.exact)
        with closing(cast("Generator[TileBatch, None, None]", reading)) as batches:
            for batch in batches:
                images[len(good) : len(good) + int(batch.ok.sum())] = batch.images[batch.ok]
                good = np.concatenate([good, batch.index[batch.ok]])
                bad = np.concatenate([bad, batch.index[~batch.ok]])
                reasons += batch.errors
    except CoverslipError as error:
        return error, None
    return Told(good, bad, reasons, time.perf_counter() - begin), images[: len(good)]


class _OpenSlides:
    """The slides that this process read last, still open: opening one can cost more than reading a piece of it."""

    def __init__(self) -> None:
        self._slides: OrderedDict[tuple[Any, ...], Slide] = OrderedDict()

    def slide(self, row: Mapping[str, Any], study: Study) -> Slide:
        """The slide of a row, opened where it is not open."""
        key = (*sorted(row.items()), study.slides.reader, study.slides.mpp)
        if key not in self._slides:
            self._slides[key] = open_slide(row, study)
            if len(self._slides) > _OPEN_SLIDES:
                self._slides.popitem(last=False)[1].close()
        self._slides.move_to_end(key)
        return self._slides[key]


_OPEN = _OpenSlides()


class Encoding:
    """An encoder on one device, as long as its process lives."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._model: StudyEncoder | None = None

    def describe(self) -> tuple[EncoderInfo, Precision] | CoverslipError:
        """Which encoder it is and in which precision it computes; no network is built for that."""
        try:
            self._model = StudyEncoder(self._study)
        except CoverslipError as error:
            return error
        return self._model.info, self._model.precision

    def encode(self, *pieces: UInt8[ndarray, "g h w 3"]) -> Encoded | CoverslipError:
        """The rows of each piece; batches go over the borders of pieces, and a row depends on its tile alone."""
        begin = time.perf_counter()
        assert self._model is not None, "describe comes first"
        try:
            with one_blas_thread():
                runner = self._model.runner(self._study.tiles.size_px)
                images = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
                starts = range(0, len(images), runner.batch)
                rows = np.concatenate([runner.rows(images[start : start + runner.batch]) for start in starts])
        except CoverslipError as error:
            return error
        ends = np.cumsum([len(piece) for piece in pieces])[:-1]
        how = self._model.how(self._study.tiles.size_px)
        return Encoded(np.split(rows, ends), time.perf_counter() - begin, how)


def work_on(work: Callable[[Any], Answer], item: Any, threads: int) -> Answer | CoverslipError:
    """`work` of `item` with as many of torch's threads as the process that asked has: sums come in the same order."""
    torch.set_num_threads(threads)
    try:
        with one_blas_thread():
            return work(item)
    except CoverslipError as error:
        return error
