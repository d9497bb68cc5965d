"""Damage never crashes, never hangs and never becomes pixels that were not there."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tifffile

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Box, Size, Tiles, TileSpec
from coverslip.slide import Slide

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def whole_files(
    tmp_path_factory: pytest.TempPathFactory,
    picture: Callable,
    make_pyramid: Callable,
    write_tiff: Callable[..., Path],
    write_dicom: Callable[..., Path],
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    levels = make_pyramid(picture(256, 256), 3)
    return {
        "jpeg": write_tiff(folder / "jpeg.tif", levels, compression="jpeg"),
        "deflate": write_tiff(folder / "deflate.tif", levels, compression="zlib", predictor=2),
        "plain": write_tiff(folder / "plain.tif", levels),
        "ome": write_tiff(folder / "a.ome.tif", levels, subifds=True, ome=True, metadata={}, compression="jpeg"),
        "dicom": write_dicom(folder / "a.dcm", levels[0]),
        "dicom jpeg": write_dicom(folder / "b.dcm", levels[0], encode=simplejpeg.encode_jpeg, tag="YBR_FULL_422"),
    }


KINDS = ["jpeg", "deflate", "plain", "ome", "dicom", "dicom jpeg"]


def all_pixels(path: Path) -> list[np.ndarray | None]:
    """Each tile of each level; None where it is told to be damaged."""
    found: list[np.ndarray | None] = []
    with Slide.open(path) as slide:
        for level in slide.levels:
            for y in range(0, level.size.height - 63, 64):
                for x in range(0, level.size.width - 63, 64):
                    try:
                        found.append(slide.read_level(level.index, Box(x, y, 64, 64)))
                    except SlideError as error:
                        if error.code != "decode_failed":
                            raise
                        found.append(None)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_anywhere_is_refused_or_reads_right(
    whole_files: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    path = whole_files[kind]
    data, right = path.read_bytes(), all_pixels(path)
    cut = tmp_path / path.name
    refusals = set()
    for part in (*np.linspace(0.0, 0.995, 15), 0.9999):
        cut.write_bytes(data[: int(len(data) * part)])
        try:
            got = all_pixels(cut)
        except SlideError as error:
            refusals.add((error.code, bool(error.fix)))
            continue
        assert all(a is None or np.array_equal(a, b) for a, b in zip(got, right))
    assert refusals and refusals <= {("truncated", True), ("unreadable", True)}


@pytest.mark.parametrize("kind", ["jpeg", "deflate", "plain", "ome"])
def test_a_tiff_without_its_end_is_called_truncated(whole_files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    data = whole_files[kind].read_bytes()
    for part in (0.5, 0.8):
        (tmp_path / "cut.tif").write_bytes(data[: int(len(data) * part)])
        with pytest.raises(SlideError) as caught:
            Slide.open(tmp_path / "cut.tif")
        assert caught.value.code == "truncated"


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes_are_slide_errors_or_pixels(whole_files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    path = whole_files[kind]
    data = path.read_bytes()
    rng = np.random.default_rng(7)
    broken = tmp_path / path.name
    # Half of the flips hit the first kilobyte, where the structure is.
    for round_ in range(60):
        changed = bytearray(data)
        for _ in range(3):
            changed[rng.integers(1024 if round_ % 2 else len(data))] = rng.integers(256)
        broken.write_bytes(changed)
        with suppress(SlideError):
            all_pixels(broken)


@pytest.mark.parametrize(
    "magic", [b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM"]
)
def test_random_bytes_behind_a_known_beginning_are_refused(tmp_path: Path, magic: bytes) -> None:
    rng = np.random.default_rng(3)
    for length in (0, 10, 300, 5000):
        (tmp_path / "a.svs").write_bytes(magic + rng.bytes(length))
        with pytest.raises(SlideError) as caught:
            Slide.open(tmp_path / "a.svs")
        assert caught.value.code in {"unreadable", "truncated"}


def test_directories_that_run_in_a_circle_are_refused(tmp_path: Path, write_tiff: Callable[..., Path]) -> None:
    path = write_tiff(tmp_path / "a.tif", [np.full((64, 64, 3), 9, np.uint8), np.full((32, 32, 3), 9, np.uint8)])
    with tifffile.TiffFile(path) as tif:
        first, second = (page.offset for page in tif.pages)
        entries = len(tif.pages[1].tags)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, second + 2 + 12 * entries, first)
    path.write_bytes(bytes(data))
    with pytest.raises(SlideError, match="circle") as caught:
        Slide.open(path)
    assert caught.value.code == "unreadable"


def altered(path: Path, index: int, change: Callable[[bytes], bytes]) -> None:
    """Replaces the stored bytes of one level-0 tile, at the end of the file."""
    with tifffile.TiffFile(path, mode="r+") as tif:
        page = tif.pages[0]
        offsets, counts = list(page.dataoffsets), list(page.databytecounts)
        with path.open("r+b") as file:
            file.seek(offsets[index])
            stream = change(file.read(counts[index]))
            offsets[index], counts[index] = file.seek(0, 2), len(stream)
            file.write(stream)
        page.tags["TileOffsets"].overwrite(offsets)
        page.tags["TileByteCounts"].overwrite(counts)


def in_header(marker: int, at: int, value: bytes) -> Callable[[bytes], bytes]:
    def change(stream: bytes) -> bytes:
        start = stream.index(bytes([0xFF, marker])) + at
        return stream[:start] + value + stream[start + len(value) :]

    return change


BAD_TILES: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda s: s[: len(s) // 2],
    "codes zeroed": lambda s: s[: len(s) // 2] + b"\0" * (len(s) - len(s) // 2),
    "random bytes": lambda s: np.random.default_rng(0).bytes(len(s)),
    "frame says 512 px": in_header(0xC0, 5, b"\x02\x00\x02\x00"),
    "frame says 60000 px": in_header(0xC0, 5, b"\xea\x60\xea\x60"),
    "frame says 32 px": in_header(0xC0, 5, b"\x00\x20\x00\x20"),
    "fake progressive": in_header(0xC0, 1, b"\xc2"),
    "one byte": lambda s: s[:1],
}


@pytest.mark.parametrize("name", BAD_TILES)
def test_a_bad_tile_is_flagged_and_the_others_are_right(
    whole_files: dict[str, Path], tmp_path: Path, name: str
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(whole_files["jpeg"].read_bytes())
    with Slide.open(path) as slide:
        right = slide.read_level(0, Box(0, 0, 256, 256))
    altered(path, 5, BAD_TILES[name])
    xy = np.array([(x, y) for y in range(0, 256, 64) for x in range(0, 256, 64)], np.int32)
    with Slide.open(path) as slide:
        tiles = Tiles(slide.id, TileSpec(64, 0.5), 0.5, 64.0, xy, np.ones(16, np.float32))
        (batch,) = slide.tiles(tiles)
        assert batch.index[~batch.ok].tolist() == [5] and len(batch.errors) == 1 and batch.errors[0]
        for image, (x, y) in zip(batch.images[batch.ok], xy[batch.index[batch.ok]]):
            assert np.array_equal(image, right[y : y + 64, x : x + 64])
        with pytest.raises(SlideError):
            slide.read(Box(0, 0, 256, 256), Size(256, 256))


@pytest.mark.parametrize(("name", "value"), [("TileOffsets", 2**31), ("TileByteCounts", 2**30)])
def test_one_tile_whose_place_is_wrong_is_told_at_opening_and_flagged(
    whole_files: dict[str, Path], tmp_path: Path, name: str, value: int
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(whole_files["jpeg"].read_bytes())
    with tifffile.TiffFile(path, mode="r+") as tif:
        tag = tif.pages[0].tags[name]  # type: ignore[union-attr]
        tag.overwrite([value if i == 5 else number for i, number in enumerate(tag.value)], dtype="I")
    with Slide.open(path) as slide:
        assert [f.code for f in slide.findings] == ["decode_failed"]
        with pytest.raises(SlideError, match="outside the file"):
            slide.read_level(0, Box(64, 64, 64, 64))
        slide.read_level(0, Box(128, 64, 64, 64))


def test_an_image_that_claims_to_be_gigantic_is_refused(tmp_path: Path, write_tiff: Callable[..., Path]) -> None:
    path = write_tiff(tmp_path / "a.tif", [np.full((64, 64, 3), 9, np.uint8)])
    with tifffile.TiffFile(path, mode="r+") as tif:
        for name in ("ImageWidth", "ImageLength"):
            tif.pages[0].tags[name].overwrite(2**31 - 1)  # type: ignore[union-attr]
    with pytest.raises(SlideError, match="pieces"):
        Slide.open(path)
