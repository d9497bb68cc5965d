"""An open slide: its levels, its scale, its pixels."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, final

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from coverslip.base.errors import Finding, SlideError
from coverslip.base.fingerprint import path_digest
from coverslip.base.geometry import Box, Size, Tiles
from coverslip.slide.batches import CLOSED, OpenBatches, TileBatch, deliver, read_batches
from coverslip.slide.discover import slide_id
from coverslip.slide.levels import best_level, downsample_of, halvings_for
from coverslip.slide.memory import Rooms
from coverslip.slide.reader import Reader, SlideInfo
from coverslip.slide.readers import open_reader
from coverslip.slide.readers._guard import guarded
from coverslip.slide.resample import Region, resample, snapped, touched
from coverslip.slide.scale import GIVE_MPP, checked_mpp, scale_of
from coverslip.slide.sweep import Sweep, common_ratio, plan, shrunk

# Larger boxes are read and averaged in bands of about this many source pixels, so that the overview of a slide
# without a pyramid does not need the whole slide in memory.
_BAND_PX = 4 << 20
# No image of more pixels is handed out in one piece.
_MAX_OUT_PX = 1 << 28


@dataclass(frozen=True)
class Level:
    """One resolution of the pyramid. `downsample` is level-0 pixels per pixel of this level."""

    index: int
    size: Size
    downsample: float


@final
class Slide:
    """A slide that is open for reading; close it or use `with`. Made by `Slide.open`.

    `id` is the file's name without its last suffix, or the folder's name. `mpp` is µm per level-0 pixel, None where
    nobody knows. `associated` names the label, macro and thumbnail images; they may show patient data and are only
    read by `associated_image`. `icc` is the colour profile; pixels are as stored, `to_srgb` converts them.
    `findings` is what opening saw: codes as in preflight.

    Reading is safe from several threads. A pickled slide is its path, reader and mpp, and opens again.
    """

    id: str
    path: Path
    size: Size
    levels: tuple[Level, ...]
    mpp: float | None
    vendor: str
    reader: str
    objective: float | None
    properties: Mapping[str, str]
    associated: tuple[str, ...]
    icc: bytes | None
    findings: tuple[Finding, ...]

    def __init__(self, path: Path, reader: Reader, *, reader_name: str, mpp: float | None, name: str) -> None:
        info = reader.info
        self._handle: Reader | None = reader
        self._given_mpp = mpp
        self.id = name
        self.path = path
        self.reader = reader_name
        self.size = info.levels[0]
        self.levels = tuple(Level(i, s, downsample_of(s, self.size)) for i, s in enumerate(info.levels))
        scale = scale_of(info, tuple(level.downsample for level in self.levels), mpp)
        self.mpp = scale.mpp
        self.vendor = info.vendor
        self.objective = info.objective
        self.properties = MappingProxyType(dict(info.properties))
        self.associated = info.associated
        self.icc = info.icc
        self.findings = (*info.findings, *scale.findings, *_no_pyramid(info))

    @classmethod
    def open(
        cls, path: Path | str, *, mpp: float | None = None, reader: str | None = None, id: str | None = None
    ) -> Slide:
        """The slide at `path`: a file, or the folder of one DICOM series.

        `mpp` is for files that do not state it; where both are there and differ, the given one is used and a finding
        says so. `reader` forces a reader by name; `id` names the slide otherwise than its file does (a cohort's table).

        Raises:
            SlideError: the file cannot be read (unreadable), was cut short (truncated), has Z, time or channel axes
                (extra_axes), or `mpp` is none that a microscope has (mpp_implausible).
            SettingsError: there is no reader of that name.
        """
        path = Path(path)
        name = slide_id(path) if id is None else id
        if mpp is not None:
            mpp = checked_mpp(mpp, slide=name)
        chosen, opened = open_reader(path, name, name=reader)
        return cls(path, opened, reader_name=chosen, mpp=mpp, name=name)

    def require_mpp(self) -> float:
        """µm per level-0 pixel.

        Raises:
            SlideError: nobody knows (mpp_missing), or the file contradicts itself (mpp_conflict).
        """
        if self.mpp is not None:
            return self.mpp
        known = [f for f in self.findings if f.code in {"mpp_conflict", "mpp_implausible"}]
        if known and known[0].code == "mpp_conflict":
            raise SlideError(known[0].message, slide=self.id, fix=known[0].fix, code="mpp_conflict")
        found = f"{known[0].message} " if known else ""
        raise SlideError(f"{found}No µm per pixel is known.", slide=self.id, fix=GIVE_MPP, code="mpp_missing")

    def read(self, box: Box, out: Size) -> UInt8[ndarray, "h w 3"]:
        """The pixels of `box`, which is in level-0 pixels, at `out` pixels.

        Read from the coarsest level that is fine enough; every output pixel is the mean of what it covers.

        Raises:
            SlideError: the box leaves the slide (outside), or a stored tile is damaged (decode_failed).
        """
        box, out = Box(*box), Size(*out)
        self._inside(box, self.size, "the slide")
        if out.width < 1 or out.height < 1:
            raise SlideError(f"An image of {out.width} x {out.height} px was asked for.", slide=self.id, code="outside")
        return self._sample(Region(*map(float, box)), out)

    def read_level(self, level: int, box: Box) -> UInt8[ndarray, "h w 3"]:
        """The stored pixels of `box`, which is in pixels of that level.

        Raises:
            SlideError: the box leaves the level (outside), or a stored tile is damaged (decode_failed).
        """
        box = Box(*box)
        if not 0 <= level < len(self.levels):
            raise SlideError(
                f"There is no level {level}.",
                slide=self.id,
                fix=f"Levels: 0 to {len(self.levels) - 1}.",
                code="outside",
            )
        self._inside(box, self.levels[level].size, f"level {level}")
        reader = self._open_reader()
        with guarded(self.id, f"Reading {_where(box)} of level {level}", code="decode_failed"):
            pixels = reader.read_level(level, box)
        assert pixels.shape == (box.height, box.width, 3) and pixels.dtype == np.uint8, (pixels.shape, pixels.dtype)
        return pixels

    def thumbnail(self, mpp: float) -> UInt8[ndarray, "h w 3"]:
        """The whole slide at `mpp` µm per pixel; the last row and column may stand for less than a pixel.

        Raises:
            SlideError: the slide's own mpp is not known, or the image would be too large.
        """
        return self._whole(checked_mpp(mpp, slide=self.id) / self.require_mpp())

    def overview(self, max_px: int) -> tuple[UInt8[ndarray, "h w 3"], float]:
        """The whole slide with a longer side of at most `max_px`, and the level-0 pixels per pixel of it. Needs no
        mpp; never enlarges."""
        scale = max(1.0, max(self.size) / max_px)
        return self._whole(scale), scale

    def associated_image(self, name: str) -> UInt8[ndarray, "h w 3"]:
        """The label, macro or thumbnail image. It may show a name or a number of the patient.

        Raises:
            SlideError: there is no image of that name, or it is damaged.
        """
        if name not in self.associated:
            names = ", ".join(self.associated) or "none"
            raise SlideError(f"There is no image {name!r}.", slide=self.id, fix=f"It has: {names}.", code="outside")
        reader = self._open_reader()
        with guarded(self.id, f"Reading the {name} image", code="decode_failed"):
            return reader.associated_image(name)

    def fingerprint(self) -> str:
        """16 hex digits of the file's content: the same wherever it lies."""
        return path_digest(self.path)

    def tiles(self, tiles: Tiles, *, batch: int = 64, threads: int = 2, exact: bool = True) -> Iterator[TileBatch]:
        """Every tile once, in batches; `batch.index` says which. `threads` read ahead while the caller works.

        The order is the reader's: the one in which the file is read fastest. A damaged tile is flagged in its batch
        and harms no other. `exact=False` lets a reader decode at a half, a quarter or an eighth where that is faster
        and the tile is smaller still; pixels then differ from `read` by less than the choice of a filter does.

        Raises:
            SlideError: a tile leaves the slide (outside); before anything is read.
        """
        if batch < 1 or threads < 1:
            raise ValueError(f"batch and threads are whole numbers over 0, not {batch} and {threads}")
        self._open_reader()
        self._all_inside(tiles)
        swept = self._swept(tiles, batch=batch, threads=threads, exact=exact)
        if swept is not None:
            return swept
        side = Size(tiles.spec.size_px, tiles.spec.size_px)
        return read_batches(
            lambda index: self.read(tiles.box(index), side),
            len(tiles),
            side_px=side.width,
            batch=batch,
            threads=threads,
        )

    def close(self) -> None:
        """Lets go of the file; closing twice is no mistake."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.path, self._given_mpp, self.reader, self.id)

    def __repr__(self) -> str:
        scale = "unknown" if self.mpp is None else f"{self.mpp:.4g}"
        return f"<Slide {self.id}: {self.size.width} x {self.size.height} px, mpp {scale}, {self.reader}>"

    def _open_reader(self) -> Reader:
        if self._handle is None:
            raise SlideError("The slide is closed.", slide=self.id, fix="Open it again.", code=CLOSED)
        return self._handle

    def _whole(self, scale: float) -> UInt8[ndarray, "h w 3"]:
        # Rounding up keeps the last row; a rounding error in the last digit does not add one.
        width, height = (max(1, math.ceil(side / scale - 1e-6)) for side in self.size)
        if width * height > _MAX_OUT_PX:
            raise SlideError(
                f"An image of {width} x {height} px would not fit in memory.", slide=self.id, fix="Take a larger mpp."
            )
        return self._sample(Region(0, 0, width * scale, height * scale), Size(width, height))

    def _sample(self, region: Region, out: Size) -> UInt8[ndarray, "h w 3"]:
        """A region in level-0 pixels at `out` pixels, in bands where it is large."""
        wanted = min(region.width / out.width, region.height / out.height)
        level = self.levels[self._level_for(wanted)]
        x, y, width, height = (float(snapped(v / level.downsample)) for v in region)
        rows = max(1, int(out.height * _BAND_PX / max(1.0, width * height)))
        if rows >= out.height or height < out.height:
            return self._sample_level(level, Region(x, y, width, height), out)
        image = np.empty((out.height, out.width, 3), dtype=np.uint8)
        step = height / out.height
        for top in range(0, out.height, rows):
            count = min(rows, out.height - top)
            band = Region(x, y + top * step, width, count * step)
            image[top : top + count] = self._sample_level(level, band, Size(out.width, count))
        return image

    def _sample_level(self, level: Level, region: Region, out: Size) -> UInt8[ndarray, "h w 3"]:
        left, right = (int(v) for v in touched(region.x, region.width, level.size.width))
        top, bottom = (int(v) for v in touched(region.y, region.height, level.size.height))
        pixels = self.read_level(level.index, Box(left, top, right - left, bottom - top))
        return resample(pixels, out, Region(region.x - left, region.y - top, region.width, region.height))

    def _swept(self, tiles: Tiles, *, batch: int, threads: int, exact: bool) -> Iterator[TileBatch] | None:
        """The tiles by a sweep over the stored pieces of their level; None where its pieces cannot be read alone, or
        where they or the tiles are too large for it."""
        wanted = tiles.span_px / tiles.spec.size_px
        level = self.levels[self._level_for(wanted)]
        grid = self._open_reader().grid(level.index)
        if grid is None or not len(tiles):
            return None
        halvings = 0 if exact else halvings_for(wanted / level.downsample, grid.halvings)
        scale = level.downsample * 2**halvings
        # A level of halved pieces: what lies behind the last whole pixel of it is padding.
        size = Size(level.size.width >> halvings, level.size.height >> halvings)
        piece = Size(grid.piece.width >> halvings, grid.piece.height >> halvings)
        corners, side = snapped(tiles.xy / scale), float(snapped(tiles.span_px / scale))
        if side * side > _BAND_PX:
            return None
        ratio = common_ratio(piece, size, corners, side, tiles.spec.size_px)
        grid = replace(grid, piece=shrunk(piece, ratio))
        route = plan(grid, shrunk(size, ratio), corners / ratio, side / ratio, tiles.spec.size_px)
        if route is None:
            return None
        scratch = _Scratch(piece.width * piece.height * 3)

        def read(index: int, room: ndarray) -> ndarray:
            reader = self._open_reader()
            with guarded(self.id, f"Reading piece {index} of level {level.index}", code="decode_failed"):
                return reader.piece(level.index, index, halvings=halvings, out=room)

        def read_shrunk(index: int, room: ndarray) -> ndarray:
            pixels = read(index, scratch.room)
            out = shrunk(Size(pixels.shape[1], pixels.shape[0]), ratio)
            return resample(pixels[: out.height * ratio, : out.width * ratio], out, room=room)

        batches = OpenBatches(route.order, side_px=tiles.spec.size_px, batch=batch)
        sweep = Sweep(route, grid, read if ratio == 1 else read_shrunk, batches, threads=threads)
        return deliver(batches, sweep, sweep.num_jobs, threads=threads)

    def _level_for(self, wanted: float) -> int:
        return best_level([level.downsample for level in self.levels], wanted)

    def _inside(self, box: Box, size: Size, what: str) -> None:
        if not box.inside(size):
            raise SlideError(
                f"{_where(box)} is not inside {what}, which has {size.width} x {size.height} px.",
                slide=self.id,
                fix="Boxes lie inside the slide and have at least one pixel.",
                code="outside",
            )

    def _all_inside(self, tiles: Tiles) -> None:
        ends = tiles.xy.astype(np.int64) + tiles.span_px
        outside = np.flatnonzero((tiles.xy < 0).any(axis=1) | (ends > np.array(self.size)).any(axis=1))
        if len(outside):
            self._inside(tiles.box(int(outside[0])), self.size, "the slide")


class _Scratch(threading.local):
    """A room for each thread, to decode into."""

    def __init__(self, num_bytes: int) -> None:
        self.room = Rooms(num_bytes, 0).take()


def _reopen(path: Path, mpp: float | None, reader: str, name: str) -> Slide:
    return Slide.open(path, mpp=mpp, reader=reader, id=name)


def _no_pyramid(info: SlideInfo) -> tuple[Finding, ...]:
    size = info.levels[0]
    if len(info.levels) > 1 or max(size) <= 8192:
        return ()
    return (
        Finding(
            "no_pyramid",
            f"The file has one level of {size.width} x {size.height} px and no smaller ones; overviews are slow.",
            "Convert it to a pyramidal TIFF to make it fast.",
        ),
    )


def _where(box: Box) -> str:
    return f"The box {box.width} x {box.height} at ({box.x}, {box.y})"
