"""The contract of a reader, as a check that any plug-in can run over files of its own.

    from coverslip.testing.readers import check_reader
    check_reader(Path("a.xyz"), "xyz")

It opens the file through the registry and holds it to what `coverslip.slide.reader.Reader` promises: sizes, boxes at
the edges, equal pixels however a box is cut and from however many threads, strictness about what is not there.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Box, Size, Tiles, TileSpec
from coverslip.base.registry import READERS
from coverslip.slide import Slide
from coverslip.slide.reader import Reader

_SIDE = 300


def check_reader(path: Path, name: str) -> None:
    """Raises AssertionError, saying what is wrong, where the reader `name` breaks the contract on the file."""
    kind = READERS.load(name)
    assert issubclass(kind, Reader), f"{name} is no Reader"
    check_sight(kind, path)
    reader = kind(path)
    try:
        _check_info(reader)
        for level, size in enumerate(reader.info.levels):
            _check_pixels(reader, level, size)
            _check_grid(reader, level, size)
        _check_associated(reader)
    finally:
        reader.close()
    _check_slide(path, name)
    if path.is_file():
        check_damage(path, name)


def check_sight(kind: type[Reader], path: Path) -> None:
    """A reader sees its own file, and neither a text, an empty file nor an empty folder, under any name."""
    assert kind.sees(path), f"{kind.__name__} does not see {path.name}"
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("text", b"slide,patient\n" * 50), ("empty", b"")):
            other = Path(folder, f"{name}{path.suffix}")
            other.write_bytes(content)
            assert not kind.sees(other), f"{kind.__name__} takes a file of {name} for a slide"
        empty = Path(folder, f"folder{path.suffix}")
        empty.mkdir()
        assert not kind.sees(empty), f"{kind.__name__} takes an empty folder for a slide"


def check_damage(path: Path, name: str) -> None:
    """A file that was cut short is refused or flagged with a SlideError; it never crashes and never yields other
    pixels than the whole file."""
    data = path.read_bytes()
    with tempfile.TemporaryDirectory() as folder, Slide.open(path, reader=name) as whole:
        for part in (0.02, 0.3, 0.7, 0.97):
            cut = Path(folder, path.name)
            cut.write_bytes(data[: int(len(data) * part)])
            try:
                with Slide.open(cut, reader=name) as slide:
                    for level in slide.levels:
                        box = _corner(level.size)
                        got, expected = slide.read_level(level.index, box), whole.read_level(level.index, box)
                        assert np.array_equal(got, expected), f"{name} invents pixels of a file cut at {part:.0%}"
            except SlideError as error:
                if not error.code:
                    raise AssertionError(f"{name} gives an error without a code: {error}") from error


def _check_info(reader: Reader) -> None:
    info = reader.info
    assert info.levels, "a slide has at least one level"
    assert all(isinstance(s, Size) and s.width > 0 and s.height > 0 for s in info.levels), info.levels
    widths = [size.width for size in info.levels]
    assert widths == sorted(widths, reverse=True), f"levels are finest first, not {info.levels}"
    assert info.vendor, "vendor is empty"
    assert info.mpp is None or len(info.mpp) == 2, info.mpp
    assert not info.level_mpp or len(info.level_mpp) == len(info.levels), info.level_mpp
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in info.properties.items()), "properties are text"
    assert info.icc is None or isinstance(info.icc, bytes)
    assert all(f.code and f.message for f in info.findings), info.findings


def _check_pixels(reader: Reader, level: int, size: Size) -> None:
    box = _corner(size)
    whole = reader.read_level(level, box)
    assert whole.dtype == np.uint8 and whole.shape == (box.height, box.width, 3), (whole.dtype, whole.shape)
    assert np.array_equal(whole, reader.read_level(level, box)), "reading twice gives other pixels"
    before = whole.copy()
    half = max(1, box.width // 2)
    left = reader.read_level(level, Box(box.x, box.y, half, box.height))
    assert np.array_equal(left, whole[:, :half]), "the left half of a box has other pixels than the box"
    last = reader.read_level(level, Box(size.width - 1, size.height - 1, 1, 1))
    assert np.array_equal(last[0, 0], whole[-1, -1]), "the last pixel differs"
    with ThreadPoolExecutor(4) as pool:
        for other in pool.map(lambda _: reader.read_level(level, box), range(8)):
            assert np.array_equal(other, whole), "threads get other pixels"
    assert np.array_equal(whole, before), "a later read changed an array that was handed out"


def _check_grid(reader: Reader, level: int, size: Size) -> None:
    """The pieces of a level cover it and hold the pixels that boxes have."""
    grid = reader.grid(level)
    if grid is None:
        return
    assert grid.columns == -(-size.width // grid.piece.width), (grid, size)
    assert grid.rows == -(-size.height // grid.piece.height), (grid, size)
    assert grid.offsets.shape == (grid.columns * grid.rows,), grid.offsets.shape
    assert all(side % 2**grid.halvings == 0 for side in grid.piece) or not grid.halvings, grid
    room = np.full(grid.piece.width * grid.piece.height * 3, 1, dtype=np.uint8)
    for index in {0, grid.columns - 1, grid.columns * grid.rows - 1}:
        row, column = divmod(index, grid.columns)
        x, y = column * grid.piece.width, row * grid.piece.height
        box = Box(x, y, min(grid.piece.width, size.width - x), min(grid.piece.height, size.height - y))
        pixels = reader.piece(level, index, out=room)
        assert pixels.dtype == np.uint8 and pixels.ndim == 3, (pixels.dtype, pixels.shape)
        assert np.array_equal(pixels[: box.height, : box.width], reader.read_level(level, box)), (
            f"piece {index} of level {level} has other pixels than its box"
        )
        for halvings in range(1, grid.halvings + 1):
            small = reader.piece(level, index, out=room, halvings=halvings)
            assert small.shape[0] >= box.height >> halvings and small.shape[1] >= box.width >> halvings, small.shape


def _corner(size: Size) -> Box:
    """The bottom right corner, where tiles and strips are cut."""
    width, height = min(_SIDE, size.width), min(_SIDE, size.height)
    return Box(size.width - width, size.height - height, width, height)


def _check_associated(reader: Reader) -> None:
    for name in reader.info.associated:
        image = reader.associated_image(name)
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, (name, image.shape)


def _check_slide(path: Path, name: str) -> None:
    slide = Slide.open(path, reader=name)
    box = _corner(slide.size)
    pixels = slide.read(box, Size(box.width, box.height))
    _check_tiles(slide)
    for outside in (Box(-1, 0, 2, 2), Box(0, 0, slide.size.width + 1, 1), Box(0, slide.size.height, 1, 1)):
        assert _code_of_reading(slide, outside) == "outside", f"{outside} lies outside {slide.size} and was read"
    copy = pickle.loads(pickle.dumps(slide))  # noqa: S301 - our own object, made on this line
    assert np.array_equal(copy.read(box, Size(box.width, box.height)), pixels), "a pickled slide reads other pixels"
    copy.close()
    fingerprint = slide.fingerprint()
    slide.close()
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder, "München 東京", path.name)
        other.parent.mkdir()
        copy_tree = shutil.copytree if path.is_dir() else shutil.copy
        copy_tree(path, other)
        with Slide.open(other, reader=name) as moved:
            assert moved.fingerprint() == fingerprint, "the fingerprint depends on the folder"


def _check_tiles(slide: Slide) -> None:
    """Tiles in batches are what reading each alone gives, at the last corner of the slide too."""
    side = max(1, min(97, *slide.size))
    last = np.array(slide.size) - side
    corners = (np.linspace(0, 1, 5)[:, None] * last).astype(np.int32)
    for size_px in {side, max(1, side // 2), max(1, side // 3)}:
        spec = TileSpec(size_px, 1.0)
        tiles = Tiles(slide.id, spec, 1.0, float(side), corners, np.ones(5, np.float32))
        for batch in slide.tiles(tiles, batch=2):
            for image, row in zip(batch.images, batch.index.tolist()):
                alone = slide.read(tiles.box(row), Size(size_px, size_px))
                assert np.array_equal(image, alone), f"tile {row} at {size_px} px differs from the same box read alone"


def _code_of_reading(slide: Slide, box: Box) -> str | None:
    """The code of the error that reading gives; None where it gives pixels."""
    try:
        slide.read(box, Size(1, 1))
    except SlideError as error:
        return error.code
    return None
