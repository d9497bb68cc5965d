"""Slides as large as a scanner's, for the benchmarks: 40,000 px a side at 0.25 µm per pixel, half of them tissue.

Pieces of synthetic H&E are turned, shifted and laid beside each other under a smooth outline; every pixel has the noise
of a sensor, so that a JPEG tile is about as long, and as slow to decode, as a scanner's. Tiles are written as Aperio
and libtiff write them: abbreviated JPEG streams, their tables once in the tag JPEGTables, levels at 1/4 and 1/16.

    python benchmarks/large_slides.py /data/large --side 40000
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from coverslip.synthetic import SlideRecipe, draw

MPP = 0.25
BLOCK = 1024
# The outline is known at a node every so many pixels, and is about this smooth (nodes).
_STEP = 128
_SMOOTH = 10.0
_GLASS = (243, 241, 243)
# Grey levels. Tissue scatters light, so that its noise, shot and sensor together, is larger than that of glass.
_TISSUE_NOISE, _GLASS_NOISE = 8.0, 1.2


@dataclass(frozen=True)
class Encoding:
    """How the pixels of a slide are stored. `rgb` is JPEG without the turn to YCbCr, as old Aperio files have it."""

    tile: int
    quality: int
    subsampling: str = "422"
    aperio: bool = True
    rgb: bool = False
    jpeg2000: bool = False
    # Slides in a slow codec are smaller: their figures are per tile.
    most_side: int = 40_000

    @property
    def suffix(self) -> str:
        return ".svs" if self.aperio else ".tif"


_SUBSAMPLING = {"422": (2, 1), "420": (2, 2), "444": (1, 1)}
ENCODINGS = {
    "ap240_422_q70": Encoding(240, 70),
    "ap256_422_q75": Encoding(256, 75),
    "gen256_420_q80": Encoding(256, 80, subsampling="420", aperio=False),
    "ap256_rgb_q70": Encoding(256, 70, subsampling="444", rgb=True),
    "j2k256": Encoding(256, 0, jpeg2000=True, most_side=6_144),
}


def make_slides(folder: Path, side: int) -> dict[str, Path]:
    """One slide of each encoding in the folder, made where it is not there yet."""
    if side % 16 or side < 2 * BLOCK:
        raise SystemExit(f"--side is a multiple of 16 from {2 * BLOCK} on, not {side}")
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for name, encoding in ENCODINGS.items():
        size = min(side, encoding.most_side)
        path = folder / f"{name}_{size}{encoding.suffix}"
        if not path.exists():
            begin = time.perf_counter()
            temporary = path.with_suffix(".part")
            write_slide(temporary, Picture(size), encoding)
            temporary.replace(path)
            taken, per_pixel = time.perf_counter() - begin, path.stat().st_size / size**2
            print(f"made {path.name}: {taken:.0f} s, {path.stat().st_size / 1e6:.0f} MB, {per_pixel:.3f} bytes a pixel")
        made[name] = path
    return made


class Picture:
    """The pixels of a slide of `side` px, row by row; the same for every encoding. `tissue` says for each node, a
    square of 128 px, whether it is tissue."""

    def __init__(self, side: int, seed: int = 0) -> None:
        self.side = side
        self._seed = seed
        blocks = -(-side // BLOCK)
        nodes = blocks * (BLOCK // _STEP) + 1
        field = gaussian_filter(np.random.default_rng(seed).standard_normal((nodes, nodes)), _SMOOTH, mode="wrap")
        field -= np.median(field[: side // _STEP, : side // _STEP])
        # In units of pixels of the soft rim: from glass to tissue within some 40 px.
        self._field = (field / np.abs(np.gradient(field)[0]).mean() * (_STEP / 40)).astype(np.float32)
        self.tissue = self._field[: side // _STEP, : side // _STEP] > 0
        self._strip = lru_cache(maxsize=2)(self._made_strip)

    def rows(self, top: int, count: int) -> np.ndarray:
        """`count` rows from `top` on, (count, side, 3)."""
        parts = []
        while count > 0:
            strip, start = divmod(top, BLOCK)
            part = self._strip(strip)[start : start + count]
            parts.append(part)
            top, count = top + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _made_strip(self, row: int) -> np.ndarray:
        blocks = [self._block(row, column) for column in range(-(-self.side // BLOCK))]
        return np.ascontiguousarray(np.concatenate(blocks, axis=1)[:, : self.side])

    def _block(self, row: int, column: int) -> np.ndarray:
        rng = np.random.default_rng((self._seed, row, column))
        tissue, glass = pieces()
        per_block = BLOCK // _STEP
        nodes = self._field[row * per_block :, column * per_block :][: per_block + 1, : per_block + 1]
        weights = _linear(per_block)
        share = np.clip(weights @ nodes @ weights.T + 0.5, 0, 1)
        if share.max() == 0:
            return _varied(glass, rng)
        if share.min() == 1:
            return _varied(tissue, rng)
        over = share[..., None]
        mixed = over * _varied(tissue, rng) + (1 - over) * _varied(glass, rng)
        return (mixed + 0.5).astype(np.uint8)


@lru_cache
def pieces(count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of tissue and blocks of glass, (n, BLOCK, BLOCK, 3), with the noise of a sensor."""
    rng = np.random.default_rng(1)
    half, found = BLOCK // 2, []
    for seed in range(3, 100):
        image, truth = draw(SlideRecipe(seed=seed, side_px=4096, lesion=bool(seed % 2)))
        covered = np.kron(truth.tissue, np.ones((int(truth.scale),) * 2, bool))
        for y in range(0, 4096 - half + 1, half):
            for x in range(0, 4096 - half + 1, half):
                if covered[y : y + half, x : x + half].mean() > 0.98:
                    found.append(image[y : y + half, x : x + half])
        if len(found) >= count:
            break
    # Drawn at 0.5 µm per pixel, the slide has 0.25. Scanners sharpen.
    large = [Image.fromarray(p).resize((BLOCK, BLOCK), Image.Resampling.BICUBIC) for p in found[:count]]
    enlarged = [np.asarray(p.filter(ImageFilter.UnsharpMask(radius=2, percent=150, threshold=0))) for p in large]
    glass = np.broadcast_to(np.array(_GLASS, np.uint8), (4, BLOCK, BLOCK, 3))
    return (
        np.stack([_noisy(piece, _TISSUE_NOISE, rng) for piece in enlarged]),
        np.stack([_noisy(piece, _GLASS_NOISE, rng) for piece in glass]),
    )


def _noisy(image: np.ndarray, spread: float, rng: np.random.Generator) -> np.ndarray:
    """The image with noise, the same in R, G and B for one half: what a sensor's colour filter leaves of it."""
    shared = rng.standard_normal((*image.shape[:2], 1), dtype=np.float32)
    own = rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + spread * (0.8 * shared + 0.6 * own) + 0.5, 0, 255).astype(np.uint8)


def _varied(blocks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the blocks, turned, mirrored and shifted around its edges."""
    block = np.rot90(blocks[rng.integers(len(blocks))], rng.integers(4))
    if rng.integers(2):
        block = block[::-1]
    return np.roll(block, tuple(rng.integers(0, BLOCK, 2)), axis=(0, 1))


@lru_cache
def _linear(steps: int) -> np.ndarray:
    """The (BLOCK, steps + 1) matrix that draws straight lines between nodes."""
    at = np.arange(BLOCK) / BLOCK * steps
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(steps + 1))).astype(np.float32)


def write_slide(path: Path, picture: Picture, encoding: Encoding) -> None:
    """Writes the picture with its levels at 1/4 and 1/16; Aperio files have a thumbnail as their second page."""
    quarter = np.empty((picture.side // 4, picture.side // 4, 3), np.uint8)

    def full(top: int, count: int) -> np.ndarray:
        rows = picture.rows(top, min(count, picture.side - top))
        quarter[top // 4 : (top + len(rows)) // 4] = np.asarray(Image.fromarray(rows).reduce(4))
        return rows

    with ThreadPoolExecutor(os.cpu_count()) as pool, tifffile.TiffWriter(path, bigtiff=not encoding.aperio) as writer:
        _write_level(writer, pool, picture.side, full, encoding, first=True)
        small = np.asarray(Image.fromarray(quarter).reduce(4))
        if encoding.aperio:
            options = {"photometric": "rgb", "compression": "jpeg", "rowsperstrip": 16, "metadata": None}
            writer.write(small[::2, ::2], description=_aperio_text(picture.side, encoding), **options, software=False)
        for level in (quarter, small):
            _write_level(writer, pool, len(level), lambda top, n, of=level: of[top : top + n], encoding, first=False)


def _write_level(
    writer: tifffile.TiffWriter,
    pool: ThreadPoolExecutor,
    side: int,
    rows: Callable[[int, int], np.ndarray],
    encoding: Encoding,
    *,
    first: bool,
) -> None:
    tables, stored = None, {}
    if not encoding.jpeg2000:
        tables = jpeg_parts(_encoded(np.zeros((encoding.tile, encoding.tile, 3), np.uint8), encoding))[0]
        stored = {"outcolorspace": "rgb" if encoding.rgb else "ycbcr"}
    writer.write(
        _tiles(pool, side, rows, encoding),
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(encoding.tile, encoding.tile),
        compression=33005 if encoding.jpeg2000 else 7,
        compressionargs=stored,
        photometric="rgb",
        subsampling=_SUBSAMPLING[encoding.subsampling] if stored else None,
        jpegtables=tables,
        subfiletype=0 if first or encoding.aperio else 1,
        description=_aperio_text(side, encoding) if encoding.aperio else None,
        resolution=(1e4 / MPP, 1e4 / MPP) if first else None,
        resolutionunit="CENTIMETER" if first else None,
        metadata=None,
        software=False,
    )


def _tiles(
    pool: ThreadPoolExecutor, side: int, rows: Callable[[int, int], np.ndarray], encoding: Encoding
) -> Iterator[bytes]:
    step = encoding.tile

    def one(band: np.ndarray, left: int) -> bytes:
        tile = band[:, left : left + step]
        missing = (step - tile.shape[0], step - tile.shape[1])
        if any(missing):
            tile = np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        stream = _encoded(np.ascontiguousarray(tile), encoding)
        return stream if encoding.jpeg2000 else jpeg_parts(stream)[1]

    for top in range(0, side, step):
        band = rows(top, step)
        yield from pool.map(lambda left, of=band: one(of, left), range(0, side, step))


def _encoded(tile: np.ndarray, encoding: Encoding) -> bytes:
    if encoding.jpeg2000:
        # Some 1 bit a pixel, as scanners that write JPEG 2000 do.
        return imagecodecs.jpeg2k_encode(tile, level=29, codecformat="j2k", mct=True)
    space = "RGB" if encoding.rgb else "YCBCR"
    return imagecodecs.jpeg8_encode(
        tile, level=encoding.quality, colorspace="RGB", outcolorspace=space, subsampling=encoding.subsampling
    )


def jpeg_parts(stream: bytes) -> tuple[bytes, bytes]:
    """The tables of a JPEG stream as a stream of their own, and the stream without them.

    JFIF and Adobe markers are dropped and components numbered 0, 1, 2: nothing but the tag of the file then says which
    colours they are.
    """
    tables, rest, at = bytearray(), bytearray(), 2
    while True:
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = bytearray(stream[at : at + 2 + length])
        at += 2 + length
        if marker in {0xDB, 0xC4}:
            tables += segment
        elif marker == 0xC0:
            segment[10::3] = bytes(range(segment[9]))
            rest += segment
        elif marker == 0xDA:
            segment[5 : 5 + 2 * segment[4] : 2] = bytes(range(segment[4]))
            return b"\xff\xd8" + bytes(tables) + b"\xff\xd9", b"\xff\xd8" + bytes(rest + segment) + stream[at:]


def _aperio_text(side: int, encoding: Encoding) -> str:
    colours = "J2K/YUV16" if encoding.jpeg2000 else "JPEG/RGB" if encoding.rgb else "JPEG/YCC"
    return (
        f"Aperio Image Library v12.0.0\r\n{side}x{side} ({encoding.tile}x{encoding.tile}) {colours} "
        f"Q={encoding.quality}|AppMag = 40|MPP = {MPP}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=40_000)
    given = parser.parse_args()
    for path in make_slides(given.folder, given.side).values():
        print(path)


if __name__ == "__main__":
    main()
