"""The sound files that are mutated: small slides and feature files in every encoding, and where their parts lie."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pydicom
import simplejpeg
import tifffile
from numpy import ndarray

from coverslip.base.geometry import Tiles, TileSpec
from coverslip.store import EncoderIdentity, FeatureIdentity, FeatureWriter
from dicom_files import write_dicom

WIDTH, HEIGHT, TILE = 300, 200, 64
MPP = 0.5


@dataclass(frozen=True)
class Number:
    """A number in a file: where, how many bytes, and of what (a tag's type, count or value, a length, an offset)."""

    at: int
    size: int
    what: str


@dataclass(frozen=True)
class Piece:
    """A stored tile, strip or frame: its pixels (in its level) and its bytes. `offset` and `count` are the numbers of
    the file that say where the bytes lie; None where the place is fixed."""

    level: int
    x: int
    y: int
    width: int
    height: int
    start: int
    stop: int
    offset: Number | None = None
    count: Number | None = None

    def bytes_in(self, data: bytes, order: str) -> bytes | None:
        """What the file holds as this piece; None where its place is none."""
        start, stop = self.start, self.stop
        if self.offset is not None and self.count is not None:
            start, length = (int.from_bytes(data[n.at : n.at + n.size], order) for n in (self.offset, self.count))  # type: ignore[arg-type]
            stop = start + length
            if start == 0 or length == 0:
                return None
        return data[start:stop] if stop <= len(data) else None


@dataclass(frozen=True)
class Seed:
    """A sound file. `numbers` are the numbers of its structure, `pieces` its pixels; what lies in neither is told
    from both by nobody, and counts as structure."""

    name: str
    suffix: str
    data: bytes
    codec: str = ""  # jpeg, jpeg2000, deflate, lzw, webp, none: of the pieces
    order: str = "little"
    tables: bytes = b""
    numbers: tuple[Number, ...] = ()
    pieces: tuple[Piece, ...] = ()
    levels: tuple[tuple[int, int], ...] = ()

    @property
    def kind(self) -> str:
        return {".h5": "hdf5", ".dcm": "dicom"}.get(self.suffix, "tiff")


def picture(height: int = HEIGHT, width: int = WIDTH) -> ndarray:
    """Violet and pink blobs on glass: tissue enough for every check, different in every tile, smooth as JPEG likes."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    blobs = sum(np.sin(x / rng.uniform(5, 20) + a) * np.cos(y / rng.uniform(5, 20) - a) for a in range(4))
    grain = rng.normal(0, 4, (height, width, 3))
    colour = np.array([190, 120, 180]) + np.stack([blobs * 12, blobs * 25, blobs * 10], axis=-1) + grain
    colour[(x - width / 2) ** 2 / width**2 + (y - height / 2) ** 2 / height**2 > 0.3] = 240
    return np.clip(colour, 0, 255).astype(np.uint8)


def seeds(folder: Path) -> list[Seed]:
    """Every sound file; `folder` is for their writing."""
    return [*_tiffs(folder), *_dicoms(folder), *_features(folder)]


def _halved(image: ndarray) -> ndarray:
    h, w = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    return image[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).mean(axis=(1, 3)).astype(np.uint8)


def _tiffs(folder: Path) -> Iterator[Seed]:
    size = f"{WIDTH}x{HEIGHT}"
    aperio = f"Aperio Image Library v1\n{size} [0,0 {size}] (64x64) JPEG/RGB Q=80|AppMag = 20|MPP = {MPP}"
    kinds: dict[str, dict[str, Any]] = {
        "aperio 4:2:2, tables apart": {"suffix": ".svs", "jpeg": "422", "description": aperio},
        "aperio jpeg 2000": {"suffix": ".svs", "compression": "aperio_jp2000_rgb", "description": aperio},
        "jpeg 4:2:0, bigtiff": {"jpeg": "420", "bigtiff": True},
        "jpeg 4:4:4, big-endian": {"jpeg": "444", "byteorder": ">"},
        "jpeg rgb": {"compression": "jpeg", "compressionargs": {"level": 80, "outcolorspace": "rgb"}},
        "jpeg strips": {"compression": "jpeg", "rowsperstrip": 16, "tile": None},
        "deflate, predictor": {"compression": "zlib", "predictor": True},
        "lzw": {"compression": "lzw"},
        "jpeg 2000": {"compression": "jpeg2000"},
        "webp": {"compression": "webp"},
        "uncompressed": {},
        "uncompressed strips": {"rowsperstrip": 50, "tile": None},
        "ome, subifds": {"suffix": ".ome.tif", "ome": True, "compression": "zlib", "bigtiff": True},
    }
    for name, options in kinds.items():
        path = folder / f"seed{options.pop('suffix', '.tif')}"
        levels = [picture(), _halved(picture())]
        _write_tiff(path, levels, **options)
        yield _tiff_seed(name, path)


def _write_tiff(path: Path, levels: list[ndarray], **options: Any) -> None:
    jpeg, ome = options.pop("jpeg", None), options.pop("ome", False)
    writer = tifffile.TiffWriter(
        path, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("byteorder", "<"), ome=ome
    )
    settings: dict[str, Any] = {"photometric": "rgb", "tile": (TILE, TILE), "metadata": {} if ome else None}
    settings |= options
    with writer as tif:
        for number, image in enumerate(levels):
            settings |= {"subfiletype": 1 if number else 0, "resolution": (1e4 / MPP / 2**number,) * 2}
            settings |= {"resolutionunit": "CENTIMETER"}
            if ome and number == 0:
                settings["subifds"] = len(levels) - 1
            if jpeg:
                streams, tables = _abbreviated(image, jpeg)
                ratio = {"444": (1, 1), "422": (2, 1), "420": (2, 2)}[jpeg]
                tif.write(
                    iter(streams),
                    shape=image.shape,
                    dtype=np.uint8,
                    compression="jpeg",
                    jpegtables=tables,
                    subsampling=ratio,
                    **settings | {"photometric": "ycbcr"},
                )
            else:
                tif.write(image, **settings)
            settings.pop("subifds", None)
            settings.pop("description", None)


def _abbreviated(image: ndarray, subsampling: str) -> tuple[list[bytes], bytes]:
    """The tiles of an image as JPEG streams without tables, and the tables, as scanners write them."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % TILE), (0, -width % TILE), (0, 0)), mode="edge")
    streams, tables = [], b""
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            tile = np.ascontiguousarray(padded[y : y + TILE, x : x + TILE])
            whole = simplejpeg.encode_jpeg(tile, quality=80, colorsubsampling=subsampling)
            apart = [s for s in segments(whole) if s[1] in b"\xc4\xdb"]
            tables = b"\xff\xd8" + b"".join(apart) + b"\xff\xd9"
            for segment in apart:
                whole = whole.replace(segment, b"", 1)
            streams.append(whole)
    return streams, tables


def segments(stream: bytes) -> list[bytes]:
    """The marker segments of a sound JPEG stream from behind SOI up to its first scan, SOS included."""
    found, at = [], 2
    while True:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        found.append(stream[at:end])
        if stream[at + 1] == 0xDA:
            return found
        at = end


def _tiff_seed(name: str, path: Path) -> Seed:
    numbers: list[Number] = []
    pieces: list[Piece] = []
    with tifffile.TiffFile(path) as tif:
        order = "little" if tif.byteorder == "<" else "big"
        big = tif.is_bigtiff
        word = 8 if big else 4
        numbers += [Number(0, 2, "byte order"), Number(2, 2, "magic"), Number(8 if big else 4, word, "link")]
        pages = [level.keyframe for level in tif.series[0].levels]
        for level, page in enumerate(pages):
            numbers.append(Number(page.offset, 8 if big else 2, "number of tags"))
            last = max(tag.offset for tag in page.tags)
            numbers.append(Number(last + (20 if big else 12), word, "link"))
            spots: dict[str, list[Number]] = {}
            for tag in page.tags:
                numbers.append(Number(tag.offset, 2, "tag"))
                numbers.append(Number(tag.offset + 2, 2, "type"))
                numbers.append(Number(tag.offset + 4, word, f"count of {tag.name}"))
                size = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 13: 4, 16: 8, 18: 8}[int(tag.dtype)]
                if tag.valueoffset != tag.offset + 4 + word:
                    numbers.append(Number(tag.offset + 4 + word, word, f"place of {tag.name}"))
                values = [Number(tag.valueoffset + i * size, size, tag.name) for i in range(min(tag.count, 64))]
                numbers += values
                spots[tag.name] = values
            offsets = spots.get("TileOffsets") or spots["StripOffsets"]
            counts = spots.get("TileByteCounts") or spots["StripByteCounts"]
            width = page.tilewidth if page.is_tiled else page.imagewidth
            height = page.tilelength if page.is_tiled else page.rowsperstrip
            columns = -(-page.imagewidth // width)
            for i, (start, length) in enumerate(zip(page.dataoffsets, page.databytecounts)):
                x, y = i % columns * width, i // columns * height
                rows = height if page.is_tiled else min(height, page.imagelength - y)
                pieces.append(Piece(level, x, y, width, rows, start, start + length, offsets[i], counts[i]))
        codec = {1: "none", 5: "lzw", 7: "jpeg", 8: "deflate", 50001: "webp"}.get(int(pages[0].compression), "jpeg2000")
        levels = tuple((page.imagewidth, page.imagelength) for page in pages)
        tables = pages[0].jpegtables or b""
    return Seed(
        name, "".join(path.suffixes), path.read_bytes(), codec, order, tables, tuple(numbers), tuple(pieces), levels
    )


def _dicoms(folder: Path) -> Iterator[Seed]:
    kinds: dict[str, tuple[str, str, Callable[[ndarray], bytes] | None]] = {
        "dicom, uncompressed": ("none", "RGB", None),
        "dicom, jpeg": (
            "jpeg",
            "YBR_FULL_422",
            lambda frame: simplejpeg.encode_jpeg(frame, 80, colorsubsampling="422"),
        ),
        "dicom, jpeg 2000": (
            "jpeg2000",
            "YBR_ICT",
            lambda frame: imagecodecs.jpeg2k_encode(frame, level=30, codecformat="J2K"),
        ),
    }
    for name, (codec, tag, encode) in kinds.items():
        path = folder / "seed.dcm"
        write_dicom(path, picture(), encode=encode, tag=tag, jpeg2000=codec == "jpeg2000")
        yield _dicom_seed(name, path, codec)


def _dicom_seed(name: str, path: Path, codec: str) -> Seed:
    data = path.read_bytes()
    columns, rows = -(-WIDTH // TILE), -(-HEIGHT // TILE)
    at = data.rindex(b"\xe0\x7f\x10\x00")
    numbers = [Number(at, 4, "tag"), Number(at + 4, 2, "type"), Number(at + 8, 4, "length of the pixels")]
    header = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    for tag in header.keys():  # noqa: SIM118 - raw elements, which know where they lie
        element = header.get_item(tag)
        place = getattr(element, "value_tell", None)
        if place is not None and tag.group > 2:
            numbers.append(Number(place - 2, 2, f"length of {tag}"))
            numbers += [Number(place + i, 2, str(tag)) for i in range(0, min(8, getattr(element, "length", 0) or 0), 2)]
    pieces, place = [], at + 12
    if codec == "none":
        spans = [(place + i * TILE * TILE * 3, place + (i + 1) * TILE * TILE * 3) for i in range(columns * rows)]
    else:
        spans = []
        while data[place : place + 4] == b"\xfe\xff\x00\xe0":
            length = int.from_bytes(data[place + 4 : place + 8], "little")
            numbers.append(Number(place + 4, 4, "length of a frame" if spans else "length of the offset table"))
            if place == at + 12:
                numbers += [Number(place + 8 + i, 4, "offset of a frame") for i in range(0, length, 4)]
            spans.append((place + 8, place + 8 + length))
            place += 8 + length
        spans = spans[1:]
    for i, (start, stop) in enumerate(spans):
        pieces.append(Piece(0, i % columns * TILE, i // columns * TILE, TILE, TILE, start, stop))
    return Seed(name, ".dcm", data, codec, numbers=tuple(numbers), pieces=tuple(pieces), levels=((WIDTH, HEIGHT),))


def _features(folder: Path) -> Iterator[Seed]:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(40, 24)).astype(np.float16)
    xy = np.stack([np.arange(40) % 8 * 100, np.arange(40) // 8 * 100], axis=1).astype(np.int32)
    tiles = Tiles("ours", TileSpec(64, MPP), MPP, 64.0, xy, np.ones(40, np.float32))
    identity = FeatureIdentity.of(tiles, EncoderIdentity("texture", 24), slide_fingerprint="0" * 16)
    with FeatureWriter(folder, "ours", identity, xy) as writer:
        writer.put(np.arange(39), rows[:39])
        writer.skip(39, "damaged")
    yield _hdf5_seed("features, ours", folder / "ours.h5")
    layouts: dict[str, Callable[[h5py.File], None]] = {
        "features, trident": lambda f: _layout(f, "features", rows, xy, {"patch_size_level0": 64}),
        "features, chunked": lambda f: _layout(
            f,
            "features",
            rows.astype("f4"),
            xy,
            {"patch_size": 64, "patch_level": 0},
            chunks=(8, 24),
            compression="gzip",
        ),
        "features, in um": lambda f: _layout(f, "feats", rows, xy / 2, {}, unit="um", tile_size_um=32.0),
    }
    for name, write in layouts.items():
        path = folder / "other.h5"
        with h5py.File(path, "w") as file:
            write(file)
        yield _hdf5_seed(name, path)


def _layout(
    file: h5py.File, name: str, rows: ndarray, xy: ndarray, on_coords: dict[str, Any], *, unit: str = "",
    tile_size_um: float = 0.0, **storage: Any,
) -> None:  # fmt: skip
    file.create_dataset(name, data=rows, **storage)
    file.create_dataset("coords", data=xy).attrs.update(on_coords)
    if unit:
        file.attrs.update({"unit": unit, "tile_size_um": tile_size_um, "extractor": "x"})


def _hdf5_seed(name: str, path: Path) -> Seed:
    """HDF5 keeps its structure in the first kilobytes and in between; every aligned byte there counts as a number."""
    data = path.read_bytes()
    numbers = tuple(Number(at, size, "structure") for at in range(0, min(len(data), 4096), 8) for size in (1, 2, 4, 8))
    return Seed(name, ".h5", data, numbers=numbers)
