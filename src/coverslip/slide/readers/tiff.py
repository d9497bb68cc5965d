"""Plain, OME and Aperio TIFF, decoded directly from the file.

The pyramid is in levels of one series (SubIFDs or pages of falling size). Only the tiles or strips that a box touches
are read. What a file says of its scale is taken, in this order, from OME PhysicalSize, the Aperio description, the
resolution tags.

OME-TIFF: https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/. TIFF 6.0: Adobe, 1992.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openslide
import tifffile
from jaxtyping import UInt8
from numpy import ndarray

from coverslip.base.errors import Finding, SlideError
from coverslip.base.geometry import Box, Size
from coverslip.slide.levels import same_picture
from coverslip.slide.reader import RESOLUTION_TAG, Grid, Reader, SlideInfo
from coverslip.slide.readers._dicomfiles import is_dicom
from coverslip.slide.readers._files import Cache, FileBytes
from coverslip.slide.readers._jpeg import read_header, stream_colour
from coverslip.slide.readers._proof import disagreement
from coverslip.slide.readers._tiffchain import check_chain
from coverslip.slide.readers._tiffpage import TiffPage

ENTRIES = {
    "tiff": {
        "build": "TiffReader",
        "summary": "plain, pyramidal, OME and Aperio TIFF (tiles or strips)",
        "origin": "tifffile, imagecodecs, simplejpeg",
        "licence": "BSD-3-Clause, MIT",
        "needs": "",
    }
}

# tifffile logs every odd tag of a damaged file, and without a handler that lands on the screen. What matters of it
# becomes findings and errors; whoever configures logging still gets it all.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CACHE_BYTES = 96 << 20
_UM_PER_UNIT = {
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "in": 25400.0,
    "": 1.0,
}
# Fewer pieces than this share lost, and not at the end of the file: single bad entries, not a cut.
_CUT_SHARE = 0.01


class TiffReader(Reader):
    def __init__(self, path: Path) -> None:
        _leave_to_openslide(path)
        self._file = FileBytes(path)
        self._cache = Cache(_CACHE_BYTES)
        with ExitStack() as on_failure:
            on_failure.callback(self._file.close)
            check_chain(self._file)
            with tifffile.TiffFile(path) as tif:
                self._read_directories(tif)
            self._prove(path)
            on_failure.pop_all()

    @classmethod
    def sees(cls, path: Path) -> bool:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            # A DICOM file may carry a TIFF header in its preamble and be both.
            return file.read(4) in _MAGIC and not is_dicom(path)

    def _read_directories(self, tif: Any) -> None:
        series = _main_series(tif)
        pages = [level.keyframe for level in series.levels]
        first = TiffPage(pages[0])
        kept = [(page, TiffPage(page)) for page in pages[1:] if same_picture(_size(page), first.size)]
        self._levels = [first, *(p for _, p in kept)]
        self._extras = _extra_images(tif, series)
        findings = [*_cut_short(self._levels, self._file), *_colour_conflict(first, self._file)]
        properties = _properties(tif, pages[0])
        mpp, source = _mpp(tif, pages[0], properties)
        power = _number(properties.get("aperio.AppMag"))
        self.info = SlideInfo(
            levels=tuple(level.size for level in self._levels),
            vendor="aperio" if tif.is_svs else "ome-tiff" if tif.is_ome else "generic-tiff",
            mpp=mpp,
            mpp_source=source,
            level_mpp=_level_mpp([pages[0], *(p for p, _ in kept)]),
            objective=power if power is not None else _ome_objective(tif),
            properties=properties,
            associated=tuple(sorted(self._extras)),
            icc=_icc(pages[0]),
            findings=tuple(findings),
        )

    def _prove(self, path: Path) -> None:
        if any(f.code == "colour_tag_conflict" for f in self.info.findings):
            return  # OpenSlide follows the tag, which is known to be wrong
        told = disagreement(self, path, self._levels[0].stored(self._file))
        if told is not None:
            self.info = replace(self.info, findings=(*self.info.findings, told))

    def read_level(self, level: int, box: Box) -> UInt8[ndarray, "h w 3"]:
        page = self._levels[level]
        out = np.empty((box.height, box.width, 3), dtype=np.uint8)
        width, height = page.piece
        for row in range(box.y // height, -(-(box.y + box.height) // height)):
            for column in range(box.x // width, -(-(box.x + box.width) // width)):
                index = row * page.columns + column
                piece = self._cache.get((level, index), lambda i=index: page.pixels(self._file, i))  # type: ignore[misc]
                _paste(piece, column * width, row * height, out, box)
        return out

    def grid(self, level: int) -> Grid:
        page = self._levels[level]
        return Grid(page.piece, page.columns, page.rows, page.offsets[0], page.halvings)

    def piece(self, level: int, index: int, *, out: UInt8[ndarray, s], halvings: int = 0) -> UInt8[ndarray, "h w 3"]:
        return self._levels[level].pixels(self._file, index, halvings=halvings, out=out)

    def associated_image(self, name: str) -> UInt8[ndarray, "h w 3"]:
        page = self._extras[name]
        box = Box(0, 0, *page.size)
        out = np.empty((box.height, box.width, 3), dtype=np.uint8)
        for index in range(page.rows * page.columns):
            row, column = divmod(index, page.columns)
            _paste(page.pixels(self._file, index), column * page.piece.width, row * page.piece.height, out, box)
        return out

    def close(self) -> None:
        self._file.close()


def _paste(piece: ndarray, x: int, y: int, out: ndarray, box: Box) -> None:
    """Copies what `piece`, whose corner lies at (x, y), shares with `box` into `out`."""
    left, top = max(x, box.x), max(y, box.y)
    right, bottom = min(x + piece.shape[1], box.x + box.width), min(y + piece.shape[0], box.y + box.height)
    if right > left and bottom > top:
        shared = piece[top - y : bottom - y, left - x : right - x]
        out[top - box.y : bottom - box.y, left - box.x : right - box.x] = shared


def _leave_to_openslide(path: Path) -> None:
    vendor = openslide.OpenSlide.detect_format(str(path))
    if vendor not in {None, "generic-tiff", "aperio"}:
        raise SlideError(f"TIFF of the vendor {vendor} is read by OpenSlide.", code="unsupported")


def _main_series(tif: Any) -> Any:
    """The largest picture of the file; the others are associated images.

    Raises:
        SlideError: extra_axes where it has more than one plane, time or channel.
    """
    series = [s for s in tif.series if s.keyframe is not None and s.keyframe.parent is tif]
    if not series:
        raise SlideError("The file holds no image.", code="unreadable", fix="It is damaged: copy it again.")
    # The first of equals; Aperio's baseline is always the first.
    main = series[0] if tif.is_svs else max(series, key=lambda s: s.keyframe.imagewidth * s.keyframe.imagelength)
    extra = {axis: n for axis, n in zip(main.axes, main.shape) if axis not in "YXS" and n > 1}
    if extra:
        raise SlideError(
            f"The image has the axes {', '.join(f'{a} ({n})' for a, n in extra.items())} beside x, y and colour.",
            fix="A slide is one colour image: export one plane, time and brightfield channel set.",
            code="extra_axes",
        )
    return main


def _extra_images(tif: Any, main: Any) -> dict[str, TiffPage]:
    found: dict[str, TiffPage] = {}
    for number, series in enumerate(tif.series):
        page = series.keyframe
        if series is main or page is None or page.parent is not tif or len(series.pages) != 1:
            continue
        name = (series.name or "").strip().lower()
        name = next((known for known in ("label", "macro", "thumbnail") if known in name), f"image {number}")
        try:
            found.setdefault(name, TiffPage(page))
        except SlideError:
            continue  # an extra picture of a kind that cannot be shown takes nothing from the slide
    return found


def _size(page: Any) -> Size:
    return Size(page.imagewidth, page.imagelength)


def _cut_short(levels: list[TiffPage], file: FileBytes) -> list[Finding]:
    """What the file lists but does not hold: raised as `truncated` where its end is gone, told where single entries
    are wrong."""
    findings = []
    for number, page in enumerate(levels):
        ends = page.offsets + page.counts
        outside = (ends > file.size) | (page.offsets < 0) | (page.counts < 0)
        # A cut goes through the tile that lies last; a tile in the middle that reaches past the end has a wrong count.
        last_whole = int(page.offsets[~outside].max(initial=0))
        across = outside & (page.offsets < file.size) & (page.offsets > last_whole)
        lost, total = int(outside.sum()), outside.size
        if across.any() or lost > max(1, _CUT_SHARE * total):
            raise SlideError(
                f"The file is cut short: {lost} of {total} tiles of level {number} lie behind its end "
                f"(byte {int(ends.max())} of {file.size}).",
                code="truncated",
                fix="Copy it again from where it came.",
            )
        empty = int(((page.offsets == 0) | (page.counts == 0)).sum())
        if lost or empty:
            findings.append(
                Finding(
                    "decode_failed",
                    f"{lost + empty} of {total} tiles of level {number} were never written or lie outside the file.",
                    "Copy it again from where it came; or read on: the lost tiles are flagged.",
                )
            )
    return findings


def _colour_conflict(page: TiffPage, file: FileBytes) -> list[Finding]:
    if not page.is_jpeg or page.tag_colour is None:
        return []
    stored = np.flatnonzero(page.stored(file))
    if not len(stored):
        return []
    try:
        colour = stream_colour(read_header(page.data(file, int(stored[0]))))
    except ValueError:
        return []  # a damaged tile is told when it is read
    if colour is None or colour == page.tag_colour:
        return []
    return [
        Finding(
            "colour_tag_conflict",
            f"The tag says {page.tag_colour}, the JPEG stream itself {colour}; the stream is followed.",
            "Other programs may show wrong colours; correct PhotometricInterpretation in the file.",
        )
    ]


def _properties(tif: Any, page: Any) -> dict[str, str]:
    found = {}
    for name in ("ImageDescription", "Software", "Make", "Model", "DateTime", "XResolution", "YResolution"):
        tag = page.tags.get(name)
        if tag is not None:
            found[f"tiff.{name}"] = str(tag.value)[:10_000]
    if tif.is_svs:
        for part in page.description.split("|")[1:]:
            key, equals, value = part.partition("=")
            if equals:
                found[f"aperio.{key.strip()}"] = value.strip()
    return found


def _mpp(tif: Any, page: Any, properties: dict[str, str]) -> tuple[tuple[float, float] | None, str]:
    if tif.is_svs:
        value = _number(properties.get("aperio.MPP"))
        return (None, "") if value is None else ((value, value), "the Aperio description")
    if tif.is_ome and (size := _ome_pixels(tif, page)) is not None:
        return size, "OME PhysicalSize"
    tags = _resolution(page)
    return (tags, RESOLUTION_TAG) if tags else (None, "")


def _resolution(page: Any) -> tuple[float, float] | None:
    um = {2: 25400.0, 3: 10000.0}.get(int(page.resolutionunit))
    x, y = (_number(r) for r in page.resolution)
    if um is None or not x or not y or x < 0 or y < 0:
        return None
    return um / x, um / y


def _level_mpp(pages: list[Any]) -> tuple[float | None, ...]:
    """What the resolution tag of each level says. Many writers copy the first into all, which says nothing."""
    tags = [_resolution(page) for page in pages]
    values = [None if t is None else t[0] for t in tags]
    return tuple(None if i and v == values[0] else v for i, v in enumerate(values))


def _ome_root(tif: Any) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(tif.ome_metadata or "<none/>")
    except ElementTree.ParseError:
        return None


def _ome_pixels(tif: Any, page: Any) -> tuple[float, float] | None:
    """PhysicalSizeX and Y in µm of the OME image whose size is the page's."""
    root = _ome_root(tif)
    for pixels in [] if root is None else root.iterfind(".//{*}Pixels"):
        if (pixels.get("SizeX"), pixels.get("SizeY")) != (str(page.imagewidth), str(page.imagelength)):
            continue
        x, y = (_number(pixels.get(f"PhysicalSize{a}")) for a in "XY")
        units = [_UM_PER_UNIT.get(pixels.get(f"PhysicalSize{a}Unit", "")) for a in "XY"]
        if x is not None and y is not None and units[0] is not None and units[1] is not None:
            return x * units[0], y * units[1]
    return None


def _ome_objective(tif: Any) -> float | None:
    root = _ome_root(tif) if tif.is_ome else None
    found = None if root is None else root.find(".//{*}Objective[@NominalMagnification]")
    return None if found is None else _number(found.get("NominalMagnification"))


def _icc(page: Any) -> bytes | None:
    tag = page.tags.get("InterColorProfile")
    return bytes(tag.value) if tag is not None else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
