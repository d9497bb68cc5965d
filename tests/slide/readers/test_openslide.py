from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Box, Size
from coverslip.slide import Slide
from coverslip.slide.readers.openslide import OpenSlideReader


@pytest.fixture
def jpeg_slide(tmp_path: Path, picture: Callable, make_pyramid: Callable, write_tiff: Callable[..., Path]) -> Path:
    return write_tiff(tmp_path / "a.tif", make_pyramid(picture(256, 256), 2), compression="jpeg")


def broken_tile(path: Path, index: int, *, empty: bool = False) -> None:
    """Overwrites the codes of one tile of level 0, or says that it has no bytes."""
    with tifffile.TiffFile(path, mode="r+") as tif:
        page = tif.pages[0]
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if empty:
            tag = page.tags["TileByteCounts"]
            tag.overwrite([0 if i == index else n for i, n in enumerate(page.databytecounts)])
    if not empty:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"\0" * count)


@pytest.mark.parametrize("reader", ["openslide", "tiff"])
def test_one_bad_tile_does_not_kill_the_others(jpeg_slide: Path, reader: str) -> None:
    with Slide.open(jpeg_slide, reader=reader) as slide:
        good = slide.read_level(0, Box(128, 128, 64, 64))
    broken_tile(jpeg_slide, 5)
    with Slide.open(jpeg_slide, reader=reader) as slide:
        for _ in range(2):
            with pytest.raises(SlideError) as caught:
                slide.read_level(0, Box(64, 64, 64, 64))
            assert caught.value.code == "decode_failed"
            assert np.array_equal(slide.read_level(0, Box(128, 128, 64, 64)), good)


@pytest.mark.parametrize("reader", ["openslide", "tiff"])
def test_a_tile_without_bytes_is_damage_and_neither_black_nor_white(jpeg_slide: Path, reader: str) -> None:
    broken_tile(jpeg_slide, 5, empty=True)
    with Slide.open(jpeg_slide, reader=reader) as slide:
        with pytest.raises(SlideError) as caught:
            slide.read_level(0, Box(64, 64, 64, 64))
        assert caught.value.code == "decode_failed"
        slide.read_level(0, Box(128, 128, 64, 64))


class SparseHandle:
    """What OpenSlide gives of an MRXS slide: the left half was never scanned."""

    level_dimensions = ((100, 60),)
    level_downsamples = (1.0,)
    color_profile = None
    associated_images: dict[str, object] = {}

    def __init__(self, name: str) -> None:
        colour = {} if "plain" in name else {"openslide.background-color": "F0E0D0"}
        vendor = "aperio" if "aperio" in name else "mirax"
        self.properties = {"openslide.vendor": vendor, "openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25", **colour}

    def set_cache(self, cache: object) -> None:
        pass

    def read_region(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        rgba = np.zeros((size[1], size[0], 4), np.uint8)
        rgba[:, 50 - corner[0] :] = (10, 20, 30, 255)
        return rgba

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("name", "background"), [("mirax", (0xF0, 0xE0, 0xD0)), ("plain mirax", (255, 255, 255))])
def test_glass_that_was_never_scanned_is_background_and_never_black(
    monkeypatch: pytest.MonkeyPatch, name: str, background: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(openslide, "OpenSlide", SparseHandle)
    pixels = OpenSlideReader(Path(name)).read_level(0, Box(0, 0, 100, 60))
    assert (pixels[:, :50] == background).all() and (pixels[:, 50:] == (10, 20, 30)).all()


def test_a_missing_tile_of_a_format_without_gaps_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openslide, "OpenSlide", SparseHandle)
    reader = OpenSlideReader(Path("aperio"))
    with pytest.raises(SlideError, match="3000 pixels"):
        reader.read_level(0, Box(0, 0, 100, 60))
    assert reader.read_level(0, Box(50, 0, 50, 60)).shape == (60, 50, 3)


def test_levels_are_read_in_their_own_pixels(jpeg_slide: Path) -> None:
    with openslide.OpenSlide(str(jpeg_slide)) as reference, Slide.open(jpeg_slide, reader="openslide") as slide:
        for level in slide.levels:
            expected = np.asarray(reference.read_region((0, 0), level.index, level.size))[..., :3]
            assert np.array_equal(slide.read_level(level.index, Box(0, 0, *level.size)), expected)
        part = np.asarray(reference.read_region((20, 40), 1, (30, 10)))[..., :3]
        assert np.array_equal(slide.read_level(1, Box(10, 20, 30, 10)), part)
        assert slide.read(Box(0, 0, 64, 64), Size(32, 32)).shape == (32, 32, 3)
