"""Rasters: each value where its tile lies, holes where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.base.geometry import Size, Tiles, TileSpec
from coverslip.tiles import grid, raster


def tiles_of(size: Size, spec: TileSpec, mpp: float, keep: np.ndarray | None = None) -> Tiles:
    scale = spec.mpp / mpp
    assert spec.stride_px is not None
    xy = grid(size, spec.size_px * scale, spec.stride_px * scale)
    xy = xy if keep is None else xy[keep[: len(xy)]]
    return Tiles("a", spec, mpp, spec.size_px * scale, xy, np.ones(len(xy), np.float32))


@settings(max_examples=100, deadline=None)
@given(
    size=st.builds(Size, st.integers(60, 900), st.integers(60, 900)),
    mpp=st.floats(0.3, 0.7),
    seed=st.integers(0, 999),
)
def test_without_overlap_every_value_comes_back_from_where_its_tile_is(size: Size, mpp: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spec = TileSpec(size_px=40, mpp=0.7)
    tiles = tiles_of(size, spec, mpp, rng.random(10_000) < 0.6)
    values = rng.random(len(tiles))
    result = raster(tiles, values)
    assert np.isfinite(result.values).sum() == len(tiles)
    for (x, y), value in zip(tiles.xy, values):
        column = int((x + tiles.span / 2 - result.x) // result.cell)
        row = int((y + tiles.span / 2 - result.y) // result.cell)
        assert result.values[row, column] == pytest.approx(value, abs=1e-6)


def test_overlapping_tiles_are_averaged_over_what_they_cover() -> None:
    tiles = tiles_of(Size(40, 20), TileSpec(size_px=20, mpp=0.5, stride_px=10), 0.5)
    assert tiles.xy.tolist() == [[0, 0], [10, 0], [20, 0]]
    result = raster(tiles, np.array([1.0, 2.0, 4.0]))
    assert result.values.tolist() == [[1.0, 1.5, 3.0, 4.0]] * 2
    assert (result.x, result.y, result.cell) == (0.0, 0.0, 10.0)


def test_tiles_with_gaps_keep_their_places() -> None:
    tiles = tiles_of(Size(100, 20), TileSpec(size_px=20, mpp=0.5, stride_px=40), 0.5)
    result = raster(tiles, np.arange(3))
    assert result.values.tolist() == [[0.0, 1.0, 2.0]]
    assert result.cell == 40


def test_no_tiles_give_an_empty_grid() -> None:
    empty = Tiles("a", TileSpec(), 0.5, 224.0, np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
    assert raster(empty, np.zeros(0)).values.shape == (0, 0)


def test_a_value_too_many_is_refused() -> None:
    tiles = tiles_of(Size(100, 100), TileSpec(size_px=50, mpp=0.5), 0.5)
    with pytest.raises(ValueError, match="one number a tile"):
        raster(tiles, np.zeros(len(tiles) + 1))
