from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coverslip.base.geometry import Box
from coverslip.slide import Slide
from coverslip.slide.readers._tiffpage import TiffPage


@pytest.fixture
def path(tmp_path: Path, picture: Callable, make_pyramid: Callable, write_tiff: Callable[..., Path]) -> Path:
    return write_tiff(tmp_path / "a.tif", make_pyramid(picture(256, 320), 2), compression="jpeg")


@pytest.fixture
def misunderstood(monkeypatch: pytest.MonkeyPatch) -> None:
    """The direct reader takes red for blue."""
    real = TiffPage.pixels
    monkeypatch.setattr(TiffPage, "pixels", lambda *a, **k: np.ascontiguousarray(real(*a, **k)[..., ::-1]))


def test_a_file_that_both_read_alike_is_read_directly(path: Path) -> None:
    with Slide.open(path) as slide:
        assert slide.reader == "tiff" and slide.findings == ()


@pytest.mark.usefixtures("misunderstood")
def test_a_difference_hands_the_file_to_openslide_and_is_told(path: Path) -> None:
    with Slide.open(path) as slide, Slide.open(path, reader="openslide") as reference:
        assert slide.reader == "openslide" and [f.code for f in slide.findings] == ["readers_differ"]
        assert slide.findings[0].verdict == "warn" and "grey levels" in slide.findings[0].message
        box = Box(0, 0, 320, 256)
        assert np.array_equal(slide.read_level(0, box), reference.read_level(0, box))


@pytest.mark.usefixtures("misunderstood")
def test_a_reader_that_is_forced_stays_and_says_so(path: Path) -> None:
    with Slide.open(path, reader="tiff") as slide:
        assert slide.reader == "tiff" and [f.code for f in slide.findings] == ["readers_differ"]


def test_a_damaged_tile_is_no_difference(path: Path) -> None:
    with Slide.open(path) as slide:
        page = slide._handle._levels[0]
        counts, offsets = page.counts[0], page.offsets[0]
    largest = int(np.argmax(counts))
    data = bytearray(path.read_bytes())
    start, count = int(offsets[largest]), int(counts[largest])
    data[start + count // 2 : start + count] = bytes(count - count // 2)
    path.write_bytes(data)
    with Slide.open(path) as slide:
        assert slide.reader == "tiff" and slide.findings == ()


def test_the_tiles_that_are_compared_are_those_with_the_most_bytes(
    tmp_path: Path, picture: Callable, write_tiff: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.full((512, 512, 3), 240, np.uint8)
    image[256:320, 128:192] = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    image[384:448, :] = picture(64, 512)
    path = write_tiff(tmp_path / "a.tif", [image], compression="jpeg")
    seen: list[int] = []
    real = TiffPage.pixels
    monkeypatch.setattr(TiffPage, "pixels", lambda page, file, i, **k: seen.append(i) or real(page, file, i, **k))
    Slide.open(path).close()
    assert seen[0] == 4 * 8 + 2 and seen[1] // 8 == 6
