"""Geometry, units, fingerprints and random streams."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.base.errors import FeatureError, SlideError
from coverslip.base.fingerprint import digest, file_digest
from coverslip.base.geometry import Box, Size, Tiles, TileSpec, centres_um
from coverslip.base.random import stream
from coverslip.base.units import is_mpp, magnification


@given(st.integers(-5, 12), st.integers(-5, 12), st.integers(-2, 12), st.integers(-2, 12))
def test_a_box_is_inside_when_each_of_its_pixels_is(x: int, y: int, width: int, height: int) -> None:
    size = Size(9, 7)
    pixels = [(i, j) for i in range(x, x + width) for j in range(y, y + height)]
    expected = bool(pixels) and all(0 <= i < 9 and 0 <= j < 7 for i, j in pixels)
    assert Box(x, y, width, height).inside(size) == expected


def test_no_stride_means_no_overlap() -> None:
    assert TileSpec(size_px=256).stride_px == 256


@pytest.mark.parametrize(
    "bad", [{"size_px": 0}, {"mpp": 0.0}, {"mpp": float("nan")}, {"stride_px": 0}, {"min_tissue": 2.0}]
)
def test_an_impossible_tile_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        TileSpec(**bad)


def test_centres_are_in_micrometres_of_the_slide() -> None:
    xy = np.array([[0, 0], [100, 50]], np.int32)
    assert centres_um(xy, span=200.0, mpp=0.25).tolist() == [[25.0, 25.0], [50.0, 37.5]]
    tiles = Tiles("a", TileSpec(size_px=100, mpp=0.5), 0.25, 200.0, xy, np.ones(2, np.float32))
    assert tiles.box(1) == Box(100, 50, 200, 200)
    assert tiles.centres_um.dtype == np.float32


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "0.5", None])
def test_what_is_no_mpp(value: object) -> None:
    assert not is_mpp(value)


def test_magnification_is_for_display() -> None:
    assert magnification(0.25) == "40x"
    assert magnification(0.5) == "20x"


def test_equal_values_have_equal_digests_whatever_the_order() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_a_file_digest_sees_length_start_end_and_whole(tmp_path: Path) -> None:
    data = bytes(np.random.default_rng(0).integers(0, 256, 12 << 20, dtype=np.uint8))
    path = tmp_path / "a"
    path.write_bytes(data)
    first, whole = file_digest(path), file_digest(path, whole=True)
    for changed in (data[:-1], b"\0" + data[1:], data[:-1] + b"\0"):
        path.write_bytes(changed)
        assert file_digest(path) != first
    # Between the samples only the whole digest sees a change: that is what `whole` is for.
    middle = (1 << 20) + (1 << 16) + 5
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert file_digest(path, whole=True) != whole


def test_streams_repeat_and_differ_by_name() -> None:
    assert stream(0, "a").integers(1 << 60) == stream(0, "a").integers(1 << 60)
    assert stream(0, "a").integers(1 << 60) != stream(0, "b").integers(1 << 60)
    assert stream(0, "ab", "c").integers(1 << 60) != stream(0, "a", "bc").integers(1 << 60)


def test_an_error_names_slide_and_way_out_and_survives_a_process() -> None:
    error = SlideError("no µm/px in the file.", slide="TCGA-05", fix="Give it in the 'mpp' column.", code="mpp_missing")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert str(copy) == "TCGA-05: no µm/px in the file. Give it in the 'mpp' column."
    assert copy.finding().code == "mpp_missing"
    assert copy.exit_code == 1
    assert FeatureError("x").exit_code == 2


def test_tiles_say_what_they_are_in_one_line() -> None:
    xy = np.zeros((2, 2), np.int32)
    tiles = Tiles("a", TileSpec(size_px=224, mpp=0.5), mpp=0.25, span=448.0, xy=xy, tissue=np.ones(2, np.float32))
    assert repr(tiles) == "<Tiles of a: 2 of 224 px at 0.5 µm/px>"
