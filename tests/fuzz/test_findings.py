"""What the fuzzer has found, each as the smallest file that shows it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import openslide
import pytest
import tifffile

from coverslip.base.errors import FeatureError, SlideError
from coverslip.base.geometry import Box
from coverslip.slide import Slide
from coverslip.slide.readers.openslide import OpenSlideReader
from coverslip.slide.readers.tiff import TiffReader
from coverslip.store import read_features


@pytest.mark.parametrize("number", [1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_places_beyond_any_file_are_a_file_cut_short_and_never_openslide_s(tmp_path: Path, number: int) -> None:
    """OpenSlide reserved memory for so many bytes, and ended the process."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((128, 128, 3), np.uint8), tile=(64, 64), bigtiff=True, photometric="rgb")
    with tifffile.TiffFile(path) as tif:
        spots = [tif.pages.first.tags[name].valueoffset for name in ("TileOffsets", "TileByteCounts")]
    data = bytearray(path.read_bytes())
    for spot in spots:
        struct.pack_into("<4Q", data, spot, *[number] * 4)
    path.write_bytes(bytes(data))
    with pytest.raises(SlideError, match="cut short") as caught:
        TiffReader(path)
    assert caught.value.code == "truncated"
    with pytest.raises(SlideError) as caught:
        Slide.open(path)
    assert caught.value.code == "truncated"


def test_a_stored_tile_that_no_memory_holds_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), tile=(64, 64), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tif:
        for name in ("TileWidth", "TileLength"):
            tif.pages.first.tags[name].overwrite(30_000)
    for reader in (TiffReader, OpenSlideReader):
        with pytest.raises(SlideError, match="30000 x 30000 px, too much to hold in memory"):
            reader(path)


def test_a_damaged_piece_is_decoded_once_however_many_tiles_lie_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """240 tiles in one stored tile of 4096 px took 10 s: its memory was reserved and cleared for each of them."""
    path = tmp_path / "a.tif"
    image = np.random.default_rng(0).integers(0, 255, (256, 512, 3)).astype(np.uint8)
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path) as tif:
        first = tif.pages.first.dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[first : first + 100] = bytes(100)
    path.write_bytes(bytes(data))
    asked = []
    read_region = openslide.OpenSlide.read_region
    monkeypatch.setattr(
        openslide.OpenSlide, "read_region", lambda self, *where: asked.append(where) or read_region(self, *where)
    )
    with Slide.open(path, mpp=0.5, reader="openslide") as slide:
        asked.clear()
        for x in (0, 64, 128):
            with pytest.raises(SlideError) as caught:
                slide.read_level(0, Box(x, 64, 64, 64))
            assert caught.value.code == "decode_failed"
        assert len(asked) == 1
        np.testing.assert_array_equal(slide.read_level(0, Box(256, 0, 64, 64)), image[:64, 256:320])
        with pytest.raises(SlideError):
            slide.read_level(0, Box(250, 0, 64, 64))


def test_a_damaged_tile_is_no_difference_between_readers(tmp_path: Path) -> None:
    """A tile whose checksum is wrong made the direct reader step back for OpenSlide, which reads no checksums."""
    path = tmp_path / "a.tif"
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    tifffile.imwrite(path, image, tile=(64, 64), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts)]
    data = bytearray(path.read_bytes())
    for end in ends:
        data[end - 1] ^= 1
    path.write_bytes(bytes(data))
    with Slide.open(path, mpp=0.5) as slide:
        assert slide.reader == "tiff"
        with pytest.raises(SlideError):
            slide.read_level(0, Box(0, 0, 64, 64))


def _lying_heap(path: Path) -> None:
    """A text whose length leads out of the heap: the library walked it for ever."""
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((3, 4), np.float16)
        file.attrs["encoder"] = "x" * 20
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, data.index(b"GCOL") + 16 + 8, 0x7FFFFFFF)
    path.write_bytes(bytes(data))


def _endless_heap(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((3, 4), np.float16)
        file.attrs["encoder"] = "x" * 20
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, data.index(b"GCOL") + 8, (1 << 63) + 4096)
    path.write_bytes(bytes(data))


def _never_written(path: Path) -> None:
    """HDF5 gives zeros for rows that were never written."""
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (30, 4), "f2")


def _chunks_missing(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (30, 4), "f2", chunks=(10, 4))[:20] = 1


def _larger_than_memory(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (1 << 40, 1024), "f2", chunks=(1 << 10, 1024))


def _rows_elsewhere(path: Path) -> None:
    (path.parent / "other").write_bytes(bytes(1000))
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (10, 4), "f4", external=[(str(path.parent / "other"), 0, 1000)])


def _group_of_coords(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((3, 4), np.float16)
        file.attrs["format"] = "coverslip.features/1"
        file.create_group("coords")


def _broken_filter(path: Path) -> None:
    with h5py.File(path, "w") as file:
        data = file.create_dataset("features", data=np.ones((30, 4), "f2"), chunks=(30, 4), compression="gzip")
        spot = data.id.get_chunk_info(0).byte_offset
    stored = bytearray(path.read_bytes())
    stored[spot : spot + 8] = b"\xff" * 8
    path.write_bytes(bytes(stored))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "write",
    [
        _lying_heap,
        _endless_heap,
        _never_written,
        _chunks_missing,
        _larger_than_memory,
        _rows_elsewhere,
        _group_of_coords,
        _broken_filter,
    ],
)
def test_a_feature_file_that_does_not_hold_what_it_lists_is_refused(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "a.h5")
    with pytest.raises(FeatureError) as caught:
        read_features(tmp_path / "a.h5")
    assert caught.value.code == "damaged" and caught.value.fix
