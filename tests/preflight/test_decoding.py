"""The sample covers what it says, and damage in it is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.base.geometry import Size
from coverslip.preflight.decoding import SAMPLE, SIDE_PX, cut_short, sample, undecodable
from coverslip.slide import Slide
from coverslip.synthetic import damage

sides = st.integers(1, 200_000)


@given(sides, sides)
def test_sampled_pieces_lie_inside_hold_the_corners_and_are_as_many_as_promised(width: int, height: int) -> None:
    size = Size(width, height)
    boxes = sample(size, "a", 0)
    pieces = -(-width // SIDE_PX) * -(-height // SIDE_PX)
    assert len(boxes) == min(SAMPLE, pieces)
    assert len(set(boxes)) == len(boxes)
    assert all(box.inside(size) for box in boxes)
    for x in (0, width - 1):
        for y in (0, height - 1):
            assert any(b.x <= x < b.x + b.width and b.y <= y < b.y + b.height for b in boxes)


def test_the_sample_is_the_same_each_time_and_another_for_another_slide() -> None:
    size = Size(100_000, 80_000)
    assert sample(size, "a", 0) == sample(size, "a", 0)
    assert sample(size, "a", 0) != sample(size, "b", 0)


def test_a_sound_slide_decodes(slide_file: Path) -> None:
    with Slide.open(slide_file) as slide:
        assert undecodable(slide) == []


@pytest.mark.parametrize("tile", [0, 7, 35])
def test_one_damaged_tile_of_a_small_slide_is_found_with_its_place(slide_file: Path, tmp_path: Path, tile: int) -> None:
    path = tmp_path / "hurt.tif"
    shutil.copy(slide_file, path)
    damage(path, "tile", tile=tile)
    with Slide.open(path) as slide:
        sampled = {(b.x // 256, b.y // 256) for b in sample(slide.size, slide.id, 0)}
        findings = undecodable(slide)
    if (tile % 6, tile // 6) in sampled:
        assert [f.code for f in findings] == ["decode_failed"]
        assert "Level 0: 1 of 32 pieces" in findings[0].message
        assert f"({tile % 6 * 256}, {tile // 6 * 256})" in findings[0].message
    else:
        assert findings == []


def test_a_tiff_that_lists_more_than_it_holds_is_told_cut_short(picture: np.ndarray, write, tmp_path: Path) -> None:
    # With one level the directory lies in front of the pixels, and stays when the end is lost.
    path = write(tmp_path / "cut.tif", picture, levels=1)
    assert cut_short(path) == []
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    (finding,) = cut_short(path)
    assert finding.code == "truncated"
    assert f"of {len(data) // 2})" in finding.message


def test_what_is_no_tiff_is_left_to_its_reader(tmp_path: Path) -> None:
    for content in (b"", b"something else", b"II*\0 and then nothing of a TIFF"):
        (tmp_path / "other").write_bytes(content)
        assert cut_short(tmp_path / "other") == []
