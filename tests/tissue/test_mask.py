"""TissueMask: fractions by area against a slow count, what is usable, GeoJSON that comes back the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coverslip.tissue import TissueMask
from coverslip.tissue.polygons import fill, outline

masks = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def slow_fraction(mask: np.ndarray, scale: float, x: float, y: float, span: float) -> float:
    """Area of the square over each True pixel, one by one."""
    total = 0.0
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            if mask[row, column]:
                wide = min(x + span, (column + 1) * scale) - max(x, column * scale)
                high = min(y + span, (row + 1) * scale) - max(y, row * scale)
                total += max(0.0, wide) * max(0.0, high)
    return total / span**2


@settings(max_examples=150, deadline=None)
@given(
    mask=masks,
    scale=st.floats(0.5, 40),
    span=st.floats(1, 300),
    corners=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=5),
)
def test_fractions_equal_a_slow_count(
    mask: np.ndarray, scale: float, span: float, corners: list[tuple[int, int]]
) -> None:
    tissue = TissueMask("a", mask, scale, 0.5, "test")
    found = tissue.fraction(np.array(corners, np.int32), span)
    assert found.dtype == np.float32
    for value, (x, y) in zip(found, corners):
        assert value == pytest.approx(slow_fraction(mask, scale, x, y, span), abs=1e-4)


def test_excluded_layers_do_not_count() -> None:
    mask = np.ones((4, 4), bool)
    pen = np.zeros((4, 4), bool)
    pen[:, :2] = True
    tissue = TissueMask("a", mask, 10, 0.5, "test", {"pen": pen})
    xy = np.zeros((1, 2), np.int32)
    assert tissue.fraction(xy, 40)[0] == pytest.approx(0.5)
    assert tissue.fraction(xy, 40, ())[0] == pytest.approx(1.0)
    assert tissue.fraction(xy, 40, ("fold",))[0] == pytest.approx(1.0)


def test_area_needs_a_scale() -> None:
    mask = np.ones((10, 10), bool)
    assert TissueMask("a", mask, 16, 0.5, "test").area_mm2 == pytest.approx(100 * 64e-6)
    assert TissueMask("a", mask, 16, None, "test").area_mm2 is None


def test_an_empty_mask_says_so() -> None:
    empty = TissueMask("a", np.zeros((3, 3), bool), 1, None, "test")
    assert empty.is_empty
    assert empty.to_geojson()["features"] == []


@settings(max_examples=200, deadline=None)
@given(mask=masks, scale=st.sampled_from([1.0, 7.5, 16.0]))
def test_a_mask_goes_to_polygons_and_back_unchanged(mask: np.ndarray, scale: float) -> None:
    assert np.array_equal(fill(outline(mask, scale), mask.shape, scale), mask)  # type: ignore[arg-type]


def test_outlines_have_holes_and_the_area_of_the_mask() -> None:
    mask = np.zeros((60, 60), bool)
    mask[10:50, 10:50] = True
    mask[20:40, 20:40] = False
    mask[27:33, 27:33] = True
    shape = outline(mask, 4.0)
    assert shape.is_valid
    assert sorted(len(p.interiors) for p in shape.geoms) == [0, 1]
    # A corner loses an eighth of a pixel.
    assert shape.area == pytest.approx(mask.sum() * 16, rel=0.01)
    assert shape.bounds == pytest.approx((40, 40, 200, 200))


def test_filling_follows_pixel_centres() -> None:
    triangle = shapely.Polygon([(0, 0), (10, 0), (0, 10)])
    y, x = np.mgrid[:10, :10] + 0.5
    slow = np.array([[shapely.contains_xy(triangle, a, b) for a, b in zip(r, s)] for r, s in zip(x, y)])
    assert np.array_equal(fill(triangle, (10, 10), 1.0) & ~np.eye(10, dtype=bool)[::-1], slow)


def test_geojson_is_what_qupath_reads() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:8, 2:8] = True
    pen = np.zeros_like(mask)
    pen[12:15, 12:15] = True
    document = json.loads(json.dumps(TissueMask("a", mask, 16, 0.5, "test", {"pen": pen}).to_geojson()))
    assert document["type"] == "FeatureCollection"
    tissue, ink = document["features"]
    assert tissue["geometry"]["type"] == "Polygon"
    assert tissue["properties"]["objectType"] == "annotation"
    assert tissue["properties"]["classification"]["name"] == "Tissue"
    assert ink["properties"]["classification"]["name"] == "Pen"
    # A signed 32-bit ARGB number, opaque: between -2^24 and -1.
    assert -(1 << 24) <= tissue["properties"]["classification"]["colorRGB"] < 0
    assert shapely.geometry.shape(tissue["geometry"]).bounds == pytest.approx((32, 32, 128, 128))


def test_a_mask_says_what_it_is_in_one_line() -> None:
    layer = {"pen": np.zeros((2, 2), bool)}
    assert repr(TissueMask("a", np.ones((2, 2), bool), 1000.0, 0.5, "otsu", layer)) == (
        "<TissueMask of a: 1 mm² by otsu, with pen>"
    )
    assert "size unknown" in repr(TissueMask("a", np.ones((2, 2), bool), 1000.0, None, "image"))
