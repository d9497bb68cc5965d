"""Damage: each kind breaks what it says and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from coverslip.synthetic import SlideRecipe, damage, make_slide


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "a.tif"
    make_slide(path, SlideRecipe(seed=1, side_px=512))
    return path


def tile(path: Path, index: int) -> np.ndarray | None:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        tiff.filehandle.seek(page.dataoffsets[index])
        data = tiff.filehandle.read(page.databytecounts[index])
        return page.decode(data, index, jpegtables=page.jpegtables)[0]


def test_truncation_keeps_the_first_header_and_loses_half_of_the_pixels(slide: Path) -> None:
    before = slide.stat().st_size
    damage(slide, "truncate")
    assert 0.2 * before < slide.stat().st_size < 0.7 * before
    assert tile(slide, 0) is not None


def test_random_bytes_are_no_tiff_of_the_same_length(slide: Path) -> None:
    before = slide.stat().st_size
    damage(slide, "random_bytes")
    assert slide.stat().st_size == before
    with pytest.raises(tifffile.TiffFileError):
        tifffile.TiffFile(slide)


def test_one_tile_is_broken_and_its_neighbours_are_not(slide: Path) -> None:
    good = [tile(slide, i) for i in range(4)]
    damage(slide, "tile", tile=2)
    for i in (0, 1, 3):
        assert np.array_equal(tile(slide, i), good[i])  # type: ignore[arg-type]
    with openslide.OpenSlide(slide) as opened, pytest.raises(openslide.OpenSlideError, match="Corrupt JPEG"):
        opened.read_region((0, 256), 0, (256, 256))


def test_a_skipped_tile_has_no_bytes(slide: Path) -> None:
    damage(slide, "zero_tile", tile=1)
    with tifffile.TiffFile(slide) as tiff:
        counts = tiff.pages.first.databytecounts
    assert counts[1] == 0
    assert all(counts[i] > 0 for i in (0, 2, 3))


def test_an_unknown_kind_is_refused(slide: Path) -> None:
    with pytest.raises(ValueError, match="zero_tile"):
        damage(slide, "melt")  # type: ignore[arg-type]
