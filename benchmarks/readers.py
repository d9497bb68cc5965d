"""The ways to read tiles that `read.py` compares: the raw decode loop, Coverslip, and the libraries of the field.

Each is used as its own documentation shows, with its file open beforehand, and hands out the same thing: batches of 64
tiles, uint8 RGB. At half the stored resolution each reads the stored pixels and halves them with the same box filter
(`cv2.INTER_AREA`), the quickest there is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import openslide
import simplejpeg
import tifffile

import coverslip as cs
from coverslip.base.geometry import Tiles

BATCH = 64


@dataclass(frozen=True)
class Work:
    """Tiles to be read from a slide: `corners` (n, 2) and `side` are pixels of the stored level, `size_px` what comes
    out."""

    path: Path
    tiles: Tiles
    level: int
    downsample: int
    corners: np.ndarray
    side: int
    exact: bool = True

    @property
    def size_px(self) -> int:
        return self.tiles.spec.size_px

    @property
    def page(self) -> int:
        """The level's page in the TIFF: Aperio's second one is a thumbnail."""
        return self.level + (1 if self.level and self.path.suffix == ".svs" else 0)


Pass = Callable[[], Iterator[np.ndarray]]


class Raw:
    """The limit: every stored tile that is needed, read and decoded once, by a plain loop that does nothing with it."""

    def __init__(self, work: Work) -> None:
        with tifffile.TiffFile(work.path) as tif:
            page = tif.pages[work.page]
            width, columns = page.tilewidth, -(-page.imagewidth // page.tilewidth)
            needed = {
                row * columns + column
                for x, y in work.corners.tolist()
                for row in range(y // width, (y + work.side - 1) // width + 1)
                for column in range(x // width, (x + work.side - 1) // width + 1)
            }
            self.places = sorted((page.dataoffsets[i], page.databytecounts[i]) for i in needed)
            self._jpeg2000 = int(page.compression) == 33005
            # Without this marker libjpeg takes RGB for YCbCr.
            marker = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00" if int(page.photometric) == 2 else b""
            self._start = b"\xff\xd8" + marker + (page.jpegtables or b"")[2:-2]
        self._width = width
        self._file = os.open(work.path, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self.places)

    def decode(self, start: int = 0, step: int = 1) -> None:
        # Rows that start at a multiple of 32 would be slower: libjpeg-turbo then stores past the caches.
        whole = np.empty(self._width**2 * 3 + 64, np.uint8)
        room = whole[(16 - whole.ctypes.data) % 64 :][: self._width**2 * 3]
        for offset, count in self.places[start::step]:
            data = os.pread(self._file, count, offset)
            if self._jpeg2000:
                imagecodecs.jpeg2k_decode(data)
            else:
                stream = b"".join((self._start, memoryview(data)[2:]))
                simplejpeg.decode_jpeg(stream, buffer=room, strict=True)

    def __call__(self) -> Iterator[np.ndarray]:
        self.decode()
        return iter(())

    def in_two_threads(self) -> None:
        others = [threading.Thread(target=self.decode, args=(i, 2)) for i in range(2)]
        for other in others:
            other.start()
        for other in others:
            other.join()


def coverslip(work: Work, threads: int = 1) -> Pass:
    slide = cs.Slide.open(work.path)

    def read() -> Iterator[np.ndarray]:
        for batch in slide.tiles(work.tiles, batch=BATCH, threads=threads, exact=work.exact):
            assert batch.ok.all(), batch.errors
            yield batch.images

    return read


def coverslip_in_order(work: Work) -> np.ndarray:
    """All tiles (n, h, w, 3) in their own order."""
    images = np.empty((len(work.tiles), work.size_px, work.size_px, 3), np.uint8)
    with cs.Slide.open(work.path) as slide:
        for batch in slide.tiles(work.tiles, batch=BATCH, exact=work.exact):
            assert batch.ok.all(), batch.errors
            images[batch.index] = batch.images
    return images


def with_openslide(work: Work) -> Pass:
    slide = openslide.OpenSlide(str(work.path))

    def one(x: int, y: int) -> np.ndarray:
        corner = (x * work.downsample, y * work.downsample)
        return np.asarray(slide.read_region(corner, work.level, (work.side, work.side)).convert("RGB"))

    def read() -> Iterator[np.ndarray]:
        # Each pass begins with an empty cache of the usual size; a few tiles would still be there from the last one.
        slide.set_cache(openslide.OpenSlideCache(32 << 20))
        return batches(work, one)

    return read


def with_tiffslide(work: Work) -> Pass:
    import tiffslide

    slide = tiffslide.TiffSlide(work.path)

    def one(x: int, y: int) -> np.ndarray:
        corner = (x * work.downsample, y * work.downsample)
        return slide.read_region(corner, work.level, (work.side, work.side), as_array=True)

    return lambda: batches(work, one)


def with_pyvips(work: Work) -> Pass | None:
    import pyvips

    image = pyvips.Image.new_from_file(str(work.path), page=work.page)
    region = pyvips.Region.new(image)
    try:
        region.fetch(0, 0, 1, 1)
    except pyvips.Error:
        return None  # built without the codec, as the wheel is for JPEG 2000

    def one(x: int, y: int) -> np.ndarray:
        pixels = np.frombuffer(region.fetch(x, y, work.side, work.side), np.uint8)
        return pixels.reshape(work.side, work.side, 3)

    return lambda: batches(work, one)


def with_tifffile(work: Work) -> Pass:
    tif = tifffile.TiffFile(work.path)
    page = tif.pages[work.page].aspage()
    width, columns = page.tilewidth, -(-page.imagewidth // page.tilewidth)
    # Looking `decode` up reads tags, which moves the file's position.
    handle, decode = tif.filehandle, page.decode

    def one(x: int, y: int) -> np.ndarray:
        pixels = np.empty((work.side, work.side, 3), np.uint8)
        for row in range(y // width, (y + work.side - 1) // width + 1):
            for column in range(x // width, (x + work.side - 1) // width + 1):
                index = row * columns + column
                handle.seek(page.dataoffsets[index])
                piece = decode(handle.read(page.databytecounts[index]), index, jpegtables=page.jpegtables)[0][0]
                left, top = column * width, row * width
                x0, x1 = max(x, left), min(x + work.side, left + piece.shape[1])
                y0, y1 = max(y, top), min(y + work.side, top + piece.shape[0])
                pixels[y0 - y : y1 - y, x0 - x : x1 - x] = piece[y0 - top : y1 - top, x0 - left : x1 - left]
        return pixels

    return lambda: batches(work, one)


def batches(work: Work, one: Callable[[int, int], np.ndarray]) -> Iterator[np.ndarray]:
    """Batches of what `one(x, y)` reads, halved where the level is twice as fine as wanted."""
    size = work.size_px
    for start in range(0, len(work.corners), BATCH):
        some = work.corners[start : start + BATCH].tolist()
        images = np.empty((len(some), size, size, 3), np.uint8)
        for image, (x, y) in zip(images, some):
            pixels = one(x, y)
            image[:] = pixels if work.side == size else cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
        yield images


OTHERS: dict[str, Callable[[Work], Pass | None]] = {
    "openslide-python": with_openslide,
    "tiffslide": with_tiffslide,
    "pyvips": with_pyvips,
    "tifffile": with_tifffile,
}
