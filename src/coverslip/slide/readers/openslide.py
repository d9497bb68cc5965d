"""Vendor formats through OpenSlide: MRXS, NDPI, SCN, BIF, VMS, SVSLIDE, CZI, Philips TIFF and whatever it learns.

OpenSlide gives transparent pixels where it has none. In formats that leave out empty glass that is background, and it
is put on the background colour; in plain and Aperio TIFF it is a lost tile, and reading fails: turned into RGB as it
is, a lost tile would be black, and black passes for tissue.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import numpy as np
import openslide
from jaxtyping import UInt8
from numpy import ndarray

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Box, Size
from coverslip.slide.reader import RESOLUTION_TAG, Reader, SlideInfo

ENTRIES = {
    "openslide": {
        "build": "OpenSlideReader",
        "summary": "MRXS, NDPI, SCN, BIF, VMS, CZI, Philips and other vendor formats",
        "origin": "https://openslide.org",
        "licence": "LGPL-2.1 (library, unchanged)",
        "needs": "",
    }
}

# Every pixel of these has a stored tile: a transparent one is damage, not glass.
_DENSE_VENDORS = frozenset({"generic-tiff", "aperio"})
_CACHE_BYTES = 64 << 20
# OpenSlide reserves memory for a stored tile as large as the file says, and ends the process where there is none.
_MAX_TILE_PX = 1 << 26
_MAX_EXTRA_PX = 1 << 28


class OpenSlideReader(Reader):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._handle = self._opened()
        _refuse_giants(self._handle)
        self.info = _info(self._handle)
        self._background = _background(self.info.properties.get("openslide.background-color"))
        self._scales = self._handle.level_downsamples
        self._pieces = [_piece_size(self._handle, level) for level in range(len(self._scales))]
        self._lost: dict[tuple[int, int, int], str] = {}  # level, column and row of a stored tile -> why

    @classmethod
    def sees(cls, path: Path) -> bool:
        # DICOM has a reader of its own that gets the colours right.
        return path.is_file() and openslide.OpenSlide.detect_format(str(path)) not in {None, "dicom"}

    def read_level(self, level: int, box: Box) -> UInt8[ndarray, "h w 3"]:
        scale = self._scales[level]
        corner = (round(box.x * scale), round(box.y * scale))
        piece = self._only_piece(level, box)
        if piece in self._lost:
            raise openslide.OpenSlideError(self._lost[piece])
        handle = self._handle
        try:
            rgba = np.asarray(handle.read_region(corner, level, (box.width, box.height)))
        except openslide.OpenSlideError as error:
            self._replace(handle)
            if piece is not None:
                self._lost[piece] = str(error)
            raise
        return self._on_background(rgba, box)

    def _only_piece(self, level: int, box: Box) -> tuple[int, int, int] | None:
        """The stored tile that holds the whole box; None where there are several, or where nobody knows.

        A stored tile may be large, and OpenSlide would reserve and clear its memory for each of ours that lies in it
        only to find it damaged again.
        """
        size, piece = self.info.levels[level], self._pieces[level]
        if not (piece.width and piece.height):
            return None
        # A pixel more on each side: OpenSlide takes corners in pixels of level 0, rounded.
        columns, rows = (
            {max(0, start - 1) // step, min(start + length, whole - 1) // step}
            for start, length, step, whole in zip(box[:2], box[2:], piece, size)
        )
        return (level, columns.pop(), rows.pop()) if len(columns) == len(rows) == 1 else None

    def _replace(self, dead: openslide.OpenSlide) -> None:
        # After one bad tile OpenSlide refuses every later read of the handle; the other tiles deserve a new one.
        # The old one is not closed here: another thread may be inside it. It closes when the last reference goes.
        with self._lock:
            if self._handle is dead:
                self._handle = self._opened()

    def _opened(self) -> openslide.OpenSlide:
        handle = openslide.OpenSlide(str(self._path))
        handle.set_cache(openslide.OpenSlideCache(_CACHE_BYTES))
        return handle

    def _on_background(self, rgba: UInt8[ndarray, "h w 4"], box: Box) -> UInt8[ndarray, "h w 3"]:
        alpha = rgba[..., 3]
        if alpha.min() == 255:
            return np.ascontiguousarray(rgba[..., :3])
        if self.info.vendor in _DENSE_VENDORS:
            missing = int((alpha == 0).sum())
            if missing:
                raise SlideError(f"{missing} pixels of {box} are missing.", code="decode_failed")
            # At the edge of a level whose factor is not whole, a pixel is partly covered; its colour is right.
            return np.ascontiguousarray(rgba[..., :3])
        share = alpha[..., None].astype(np.float32) / 255
        return np.rint(rgba[..., :3] * share + self._background * (1 - share)).astype(np.uint8)

    def associated_image(self, name: str) -> UInt8[ndarray, "h w 3"]:
        sides = [int(self._handle.properties[f"openslide.associated.{name}.{side}"]) for side in ("width", "height")]
        if sides[0] * sides[1] > _MAX_EXTRA_PX:
            raise SlideError(
                f"The {name} image of {sides[0]} x {sides[1]} px would not fit in memory.", code="decode_failed"
            )
        rgba = np.asarray(self._handle.associated_images[name])
        share = rgba[..., 3:].astype(np.float32) / 255
        return np.rint(rgba[..., :3] * share + 255 * (1 - share)).astype(np.uint8)

    def close(self) -> None:
        self._handle.close()


def _refuse_giants(handle: openslide.OpenSlide) -> None:
    """Raises where a stored tile is larger than any scanner writes."""
    for level in range(len(handle.level_dimensions)):
        width, height = _piece_size(handle, level)
        if width * height > _MAX_TILE_PX:
            raise SlideError(
                f"A stored tile of level {level} has {width} x {height} px, too much to hold in memory.",
                code="unreadable",
                fix="Convert it to a tiled, pyramidal TIFF.",
            )


def _piece_size(handle: openslide.OpenSlide, level: int) -> Size:
    """The size of a stored tile; 0 x 0 where OpenSlide does not say."""
    return Size(*(int(handle.properties.get(f"openslide.level[{level}].tile-{s}", 0)) for s in ("width", "height")))


def _info(handle: openslide.OpenSlide) -> SlideInfo:
    properties = dict(handle.properties)
    mpp = (_number(properties.get("openslide.mpp-x")), _number(properties.get("openslide.mpp-y")))
    vendor = properties.get("openslide.vendor", "unknown")
    profile = handle.color_profile
    return SlideInfo(
        levels=tuple(Size(*size) for size in handle.level_dimensions),
        vendor=vendor,
        mpp=None if mpp[0] is None or mpp[1] is None else (mpp[0], mpp[1]),
        mpp_source=RESOLUTION_TAG if vendor == "generic-tiff" else "the file's metadata",
        objective=_number(properties.get("openslide.objective-power")),
        properties=properties,
        associated=tuple(sorted(handle.associated_images)),
        icc=profile.tobytes() if profile is not None else None,
    )


def _background(text: str | None) -> ndarray:
    colour = bytes.fromhex(text) if text and len(text) == 6 else b"\xff\xff\xff"
    return np.frombuffer(colour, dtype=np.uint8).astype(np.float32)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
