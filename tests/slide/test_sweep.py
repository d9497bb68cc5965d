"""The sweep over stored pieces gives what reading each tile alone gives, in bounded memory, whatever the file holds."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.base.geometry import Size, Tiles, TileSpec
from coverslip.slide import Slide
from coverslip.slide import batches as batching
from coverslip.slide import sweep as sweeping
from coverslip.slide.batches import OPEN_BYTES
from coverslip.slide.reader import Grid
from coverslip.slide.readers._jpeg import read_header
from coverslip.slide.sweep import plan


def tiles_at(slide: Slide, xy: Any, *, size_px: int, span: float) -> Tiles:
    corners = np.array(xy, np.int32).reshape(-1, 2)
    return Tiles(slide.id, TileSpec(size_px, 0.5), 0.5, span, corners, np.ones(len(corners), np.float32))


def all_tiles(slide: Slide, size_px: int, span: float, step: int) -> Tiles:
    ends = [range(0, side - round(span) + 1, step) for side in slide.size]
    return tiles_at(slide, [(x, y) for y in ends[1] for x in ends[0]], size_px=size_px, span=span)


def by_row(slide: Slide, tiles: Tiles, **options: Any) -> dict[int, np.ndarray]:
    """Each tile by its row; every row came once and was whole."""
    found: dict[int, np.ndarray] = {}
    for batch in slide.tiles(tiles, **options):
        assert batch.ok.all(), batch.errors
        for row, image in zip(batch.index.tolist(), batch.images):
            assert row not in found
            found[row] = image.copy()
    assert sorted(found) == list(range(len(tiles)))
    return found


def assert_equal_to_reading_alone(slide: Slide, tiles: Tiles, **options: Any) -> None:
    side = Size(tiles.spec.size_px, tiles.spec.size_px)
    for row, image in by_row(slide, tiles, **options).items():
        assert np.array_equal(image, slide.read(tiles.box(row), side)), row


@pytest.fixture(scope="module")
def levels(picture: Callable, make_pyramid: Callable) -> list[np.ndarray]:
    return make_pyramid(picture(701, 903), 3)


def stream_parts(stream: bytes) -> tuple[bytes, bytes]:
    """A JPEG stream's tables as a stream of their own, and the stream without them."""
    tables, rest, at = b"", b"", 2
    while stream[at + 1] != 0xDA:
        segment = stream[at : at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")]
        if segment[1] in {0xDB, 0xC4}:
            tables += segment
        else:
            rest += segment
        at += len(segment)
    return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + rest + stream[at:]


def without_markers(stream: bytes) -> bytes:
    for start, end in reversed(read_header(stream).app_spans):
        stream = stream[:start] + stream[end:]
    return stream


def write_streams(
    path: Path, image: np.ndarray, encode: Callable[[np.ndarray], bytes], *, abbreviated: bool, bare: bool, **tags: Any
) -> Path:
    """A tiled JPEG TIFF of ready-made streams: `bare` without JFIF and Adobe markers, `abbreviated` with the tables in
    the tag."""
    side = 64
    rows, columns = -(-image.shape[0] // side), -(-image.shape[1] // side)
    padding = ((0, rows * side - image.shape[0]), (0, columns * side - image.shape[1]), (0, 0))
    padded = np.pad(image, padding, mode="edge")
    cuts = [padded[r * side :, c * side :][:side, :side] for r in range(rows) for c in range(columns)]
    streams = [encode(np.ascontiguousarray(cut)) for cut in cuts]
    streams = [without_markers(s) for s in streams] if bare else streams
    tables = stream_parts(streams[0])[0] if abbreviated else None
    streams = [stream_parts(s)[1] for s in streams] if abbreviated else streams
    tifffile.imwrite(
        path, iter(streams), shape=image.shape, dtype=np.uint8, tile=(side, side), compression="jpeg",
        jpegtables=tables, metadata=None, resolution=(2e4, 2e4), resolutionunit=3, **tags,
    )  # fmt: skip
    return path


def rgb_stream(tile: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(tile, level=85, colorspace="RGB", outcolorspace="RGB")


def ycbcr_stream(tile: np.ndarray, subsampling: str) -> bytes:
    return simplejpeg.encode_jpeg(tile, quality=85, colorsubsampling=subsampling)


YCBCR = {"photometric": "rgb", "compressionargs": {"outcolorspace": "ycbcr"}}
RGB = {"photometric": "rgb", "compressionargs": {"outcolorspace": "rgb"}}
STREAMS: dict[str, dict[str, Any]] = {
    "jpeg 4:4:4": {"encode": partial(ycbcr_stream, subsampling="444"), **YCBCR, "subsampling": (1, 1)},
    "jpeg 4:2:2": {"encode": partial(ycbcr_stream, subsampling="422"), **YCBCR, "subsampling": (2, 1)},
    "jpeg 4:2:0": {"encode": partial(ycbcr_stream, subsampling="420"), **YCBCR, "subsampling": (2, 2)},
    "jpeg rgb": {"encode": rgb_stream, **RGB},
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "uncompressed": {},
    "lzw": {"compression": "lzw"},
    "deflate, predictor": {"compression": "zlib", "predictor": 2},
    "webp": {"compression": "webp", "compressionargs": {"level": 90}},
    "jpeg 2000 (34712)": {"compression": 34712},
    "jpeg 2000 (33005)": {"compression": 33005},
    "bigtiff": {"bigtiff": True, "compression": "jpeg"},
    "strips": {"rowsperstrip": 16, "compression": "zlib"},
    "long uncompressed strip": {"rowsperstrip": 701},
    "wide tiles": {"tile": (48, 112), "compression": "jpeg"},
}


@pytest.mark.parametrize("abbreviated", [False, True])
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("name", STREAMS)
def test_every_kind_of_jpeg_is_swept_and_equals_openslide(
    tmp_path: Path, levels: list[np.ndarray], name: str, bare: bool, abbreviated: bool
) -> None:
    path = write_streams(tmp_path / "a.tif", levels[0], abbreviated=abbreviated, bare=bare, **STREAMS[name])
    with Slide.open(path) as slide, Slide.open(path, reader="openslide") as reference:
        assert slide.reader == "tiff" and slide.findings == ()
        for size_px, span in ((64, 64.0), (50, 50.0), (50, 100.0), (40, 77.0)):
            tiles = all_tiles(slide, size_px, span, step=61)
            for row, image in by_row(slide, tiles, batch=7).items():
                assert np.array_equal(image, reference.read(tiles.box(row), Size(size_px, size_px)))
        assert_equal_to_reading_alone(slide, all_tiles(slide, 64, 64.0, 64))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_swept(
    tmp_path: Path, levels: list[np.ndarray], write_tiff: Callable[..., Path], name: str
) -> None:
    written = levels[:1] if "rowsperstrip" in LAYOUTS[name] else levels
    with Slide.open(write_tiff(tmp_path / "a.tif", written, **LAYOUTS[name])) as slide:
        assert slide.reader == "tiff" and slide.findings == ()
        for size_px, span in ((64, 64.0), (50, 100.0), (40, 77.0)):
            assert_equal_to_reading_alone(slide, all_tiles(slide, size_px, span, step=90), batch=16)


def test_an_ome_pyramid_is_swept(tmp_path: Path, levels: list[np.ndarray], write_tiff: Callable[..., Path]) -> None:
    path = write_tiff(tmp_path / "a.ome.tif", levels, subifds=True, ome=True, metadata={}, compression="jpeg")
    with Slide.open(path) as slide:
        assert_equal_to_reading_alone(slide, all_tiles(slide, 50, 200.0, step=133))


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory, levels: list[np.ndarray], write_tiff: Callable) -> Iterator[Slide]:
    path = write_tiff(tmp_path_factory.mktemp("sweep") / "a.tif", levels, compression="jpeg", tile=(96, 64))
    with Slide.open(path) as opened:
        yield opened


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_sweep_equals_reading_each_tile_alone(slide: Slide, data: st.DataObject) -> None:
    span = data.draw(st.one_of(st.integers(1, 300).map(float), st.floats(1, 300)))
    last = [side - max(1, round(span)) for side in slide.size]
    corner = st.tuples(*(st.one_of(st.integers(0, end), st.just(end)) for end in last))
    xy = data.draw(st.lists(corner, min_size=1, max_size=40))
    tiles = tiles_at(slide, xy, size_px=data.draw(st.integers(1, 90)), span=span)
    batch, threads = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    assert_equal_to_reading_alone(slide, tiles, batch=batch, threads=threads)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 999))
def test_threads_that_dawdle_and_a_slow_caller_never_wait_for_each_other_for_ever(slide: Slide, seed: int) -> None:
    """Many tiles in random order, more pieces a job than open batches can take, delays anywhere."""
    rng = np.random.default_rng(seed)
    reader, real = slide._handle, slide._handle.piece
    pauses = rng.exponential(0.0005, 1000)

    def piece(level: int, index: int, **options: Any) -> np.ndarray:
        time.sleep(pauses[index])
        return real(level, index, **options)

    side = int(rng.integers(20, 150))
    xy = np.stack([rng.integers(0, end - side + 1, 120) for end in slide.size], axis=1)
    tiles = tiles_at(slide, xy, size_px=side, span=float(side))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "piece", piece)
        patch.setattr(batching, "_MOST_OPEN", int(rng.integers(1, 4)))
        seen = 0
        for batch in slide.tiles(tiles, batch=int(rng.integers(1, 5)), threads=int(rng.integers(1, 7))):
            seen += len(batch)
            time.sleep(rng.exponential(0.0005))
    assert seen == len(tiles)


def test_each_piece_is_decoded_once_and_in_the_order_of_the_file(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    reader = slide._handle
    real = reader.piece
    monkeypatch.setattr(reader, "piece", lambda level, index, **o: seen.append(index) or real(level, index, **o))
    list(slide.tiles(all_tiles(slide, 70, 70.0, 35), threads=1))
    grid = reader.grid(0)
    assert len(seen) == len(set(seen)) and len(seen) > 0.9 * grid.columns * grid.rows
    assert (np.diff(grid.offsets[seen]) > 0).all()


def test_a_narrow_budget_means_strips_and_the_same_tiles(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = all_tiles(slide, 70, 70.0, 50)
    whole = by_row(slide, tiles)
    grid, size = slide._handle.grid(0), slide.size
    monkeypatch.setattr(sweeping, "PIECE_BYTES", 10 * grid.piece.width * grid.piece.height * 3)
    narrow = plan(grid, size, tiles.xy.astype(float), 70.0, 70)
    assert narrow is not None and len(narrow.pieces) > len(set(narrow.pieces))
    assert _most_kept_bytes(narrow, grid) <= sweeping.PIECE_BYTES
    cut = by_row(slide, tiles, threads=3)
    assert all(np.array_equal(cut[row], whole[row]) for row in whole)
    monkeypatch.setattr(sweeping, "_MOST_PIECE_BYTES", 1)
    assert plan(grid, size, tiles.xy.astype(float), 70.0, 70) is None
    alone = by_row(slide, tiles)
    assert all(np.array_equal(alone[row], whole[row]) for row in whole)


def test_a_slide_of_any_width_keeps_a_bounded_number_of_pieces() -> None:
    grid = Grid(Size(256, 256), 4000, 8, np.arange(32_000))
    xy = np.array([(x, y) for y in range(0, 1500, 448) for x in range(0, 1_000_000, 448)], float)
    made = plan(grid, Size(1_024_000, 2048), xy, 448.0, 224)
    assert made is not None
    assert _most_kept_bytes(made, grid) <= sweeping.PIECE_BYTES
    assert len(made.pieces) < 1.05 * len(set(made.pieces))


def _most_kept_bytes(made: sweeping.Plan, grid: Grid) -> int:
    """Kept pieces of one thread when no batch is open in time: each from its step to the last step of its last tile."""
    ends = np.zeros(len(made.order), int)
    step = np.repeat(np.arange(len(made.pieces)), np.diff(made.starts))
    np.maximum.at(ends, made.shares[:, 0], step)
    until = np.maximum.reduceat(ends[made.shares[:, 0]], made.starts[:-1])
    change = np.zeros(len(until) + 1, int)
    change[: len(until)] += 1
    np.subtract.at(change, until + 1, 1)
    return int(np.cumsum(change).max()) * grid.piece.width * grid.piece.height * 3


def test_memory_stays_within_the_open_batches_and_kept_pieces(tmp_path: Path, write_tiff: Callable[..., Path]) -> None:
    image = np.broadcast_to(np.uint8(200), (4096, 4096, 3))
    with Slide.open(write_tiff(tmp_path / "a.tif", [image], tile=(256, 256), compression="zlib")) as slide:
        tiles = all_tiles(slide, 224, 224.0, 112)
        batches = slide.tiles(tiles, batch=64, threads=4)
        tracemalloc.start()
        next(batches)
        time.sleep(0.5)  # the caller dawdles, the threads run into their limit
        for count, _ in enumerate(batches):
            if count == 8:
                break
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        batches.close()
        one_batch = 64 * 224 * 224 * 3
        assert one_batch < peak < OPEN_BYTES + 2 * one_batch + 3 * 16 * 256 * 256 * 3


@pytest.mark.parametrize(
    ("size_px", "span", "halved"), [(50, 100, 1), (40, 87, 1), (45, 89, 0), (30, 130, 2), (20, 179, 3)]
)
def test_halving_while_decoding_is_near_the_exact_pixels(
    tmp_path: Path, levels: list[np.ndarray], write_tiff: Callable[..., Path], size_px: int, span: int, halved: int
) -> None:
    with Slide.open(write_tiff(tmp_path / "a.tif", levels[:1], compression="jpeg")) as slide:
        tiles = all_tiles(slide, size_px, float(span), step=91)
        exact, near = by_row(slide, tiles), by_row(slide, tiles, exact=False)
        apart = np.concatenate([np.abs(exact[r].astype(int) - near[r]).ravel() for r in exact])
        assert apart.mean() < 1.5 and (apart > 0).any() == (halved > 0)


def test_readers_that_cannot_halve_give_exact_pixels(
    tmp_path: Path, levels: list[np.ndarray], write_tiff: Callable[..., Path]
) -> None:
    with Slide.open(write_tiff(tmp_path / "a.tif", levels[:1], compression="lzw")) as slide:
        tiles = all_tiles(slide, 50, 100.0, step=91)
        exact, other = by_row(slide, tiles), by_row(slide, tiles, exact=False)
        assert all(np.array_equal(exact[row], other[row]) for row in exact)


@pytest.mark.parametrize("exact", [True, False])
def test_a_lost_piece_is_flagged_in_every_tile_that_touches_it_and_in_no_other(
    tmp_path: Path, levels: list[np.ndarray], write_tiff: Callable[..., Path], exact: bool
) -> None:
    path = write_tiff(tmp_path / "a.tif", levels[:1], compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[0].dataoffsets[17], tif.pages[0].databytecounts[17]
    data = bytearray(path.read_bytes())
    data[offset + count // 2 : offset + count] = bytes(count - count // 2)
    with Slide.open(path) as slide:
        tiles = all_tiles(slide, 30, 60.0, 45)
        right = by_row(slide, tiles, exact=exact)
    path.write_bytes(data)
    columns = -(-903 // 64)
    left, top = 17 % columns * 64, 17 // columns * 64
    x, y = tiles.xy.T
    touching = set(np.flatnonzero((x < left + 64) & (x + 60 > left) & (y < top + 64) & (y + 60 > top)).tolist())
    with Slide.open(path) as slide:
        flagged = set()
        for batch in slide.tiles(tiles, batch=10, threads=3, exact=exact):
            assert len(batch.errors) == (~batch.ok).sum() and (batch.images[~batch.ok] == 0).all()
            assert all("column 2, row 1" in text for text in batch.errors)
            flagged |= set(batch.index[~batch.ok].tolist())
            for row, image in zip(batch.index[batch.ok].tolist(), batch.images[batch.ok]):
                assert np.array_equal(image, right[row])
        assert flagged == touching and len(touching) > 3
        again = [row for batch in slide.tiles(tiles) for row in batch.index[~batch.ok].tolist()]
        assert set(again) == touching, "the handle lives on"


def test_a_piece_that_was_never_written_is_flagged(
    tmp_path: Path, levels: list[np.ndarray], write_tiff: Callable[..., Path]
) -> None:
    path = write_tiff(tmp_path / "a.tif", levels[:1], compression="jpeg")
    with tifffile.TiffFile(path, mode="r+") as tif:
        tag = tif.pages[0].tags["TileByteCounts"]
        tag.overwrite([0 if i == 3 else n for i, n in enumerate(tag.value)])
    with Slide.open(path) as slide:
        (batch,) = slide.tiles(tiles_at(slide, [(0, 0), (192, 0), (128, 0)], size_px=64, span=64.0))
        assert batch.index[~batch.ok].tolist() == [1] and "never written" in batch.errors[0]


def test_an_iterator_that_is_closed_or_forgotten_leaves_no_thread(slide: Slide) -> None:
    before = threading.active_count()
    tiles = all_tiles(slide, 20, 20.0, 10)
    batches = slide.tiles(tiles, batch=4, threads=4)
    next(batches)
    batches.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="the caller fails"):
        for _ in slide.tiles(tiles, batch=4, threads=4):
            raise RuntimeError("the caller fails")
    gc.collect()
    assert threading.active_count() == before
    never_started = slide.tiles(tiles)
    del never_started
    assert threading.active_count() == before


def test_an_error_of_ours_in_a_thread_is_raised_to_the_caller(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise AssertionError("an invariant is broken")

    monkeypatch.setattr(sweeping, "resample", broken)
    with pytest.raises(AssertionError, match="invariant"):
        list(slide.tiles(all_tiles(slide, 30, 77.0, 50), threads=3))
