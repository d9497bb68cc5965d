from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.base.geometry import Size
from coverslip.slide.resample import Region, resample


def slow_area(image: np.ndarray, out: Size, region: Region) -> np.ndarray:
    """Every output pixel by the overlap of its area with every input pixel, in float64."""
    result = np.zeros((out.height, out.width, 3))
    sx, sy = region.width / out.width, region.height / out.height
    for oy in range(out.height):
        for ox in range(out.width):
            x0, y0 = region.x + ox * sx, region.y + oy * sy
            total = np.zeros(3)
            area = 0.0
            for y in range(max(0, math.floor(y0)), min(image.shape[0], math.ceil(y0 + sy))):
                for x in range(max(0, math.floor(x0)), min(image.shape[1], math.ceil(x0 + sx))):
                    w = min(x0 + sx, x + 1) - max(x0, x)
                    h = min(y0 + sy, y + 1) - max(y0, y)
                    total += w * h * image[y, x]
                    area += w * h
            result[oy, ox] = total / area
    return result


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(4, 20),
    st.integers(4, 20),
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(0, 0.9),
    st.floats(0, 0.9),
    st.integers(0, 99),
)
def test_it_equals_the_slow_loop(h: int, w: int, oh: int, ow: int, x: float, y: float, seed: int) -> None:
    region = Region(x, y, max(w - 1.3, ow), max(h - 1.3, oh))
    out = Size(ow, oh)
    image = noise(h, w, seed)
    if region.width >= ow and region.height >= oh and x + region.width <= w and y + region.height <= h:
        assert np.abs(resample(image, out, region) - slow_area(image, out, region)).max() <= 0.501


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 6, 7, 10, 16])
def test_a_whole_factor_is_exact(factor: int) -> None:
    image = noise(4 * factor, 5 * factor, seed=factor)
    sums = image.reshape(4, factor, 5, factor, 3).astype(np.int64).sum(axis=(1, 3))
    n = factor * factor
    assert np.array_equal(resample(image, Size(5, 4)), (2 * sums + n) // (2 * n))


def test_the_same_size_is_the_same_image() -> None:
    image = noise(7, 9)
    assert np.array_equal(resample(image, Size(9, 7)), image)
    assert np.array_equal(resample(image, Size(4, 3), Region(2, 1, 4, 3)), image[1:4, 2:6])


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
@pytest.mark.parametrize("out", [Size(3, 5), Size(11, 13), Size(40, 50), Size(64, 64)])
def test_a_flat_image_stays_flat_at_every_ratio(value: int, out: Size) -> None:
    image = np.full((31, 29, 3), value, np.uint8)
    assert (resample(image, out) == value).all()
    assert (resample(image, out, Region(0.37, 0.61, 27.3, 29.1)) == value).all()


def test_the_mean_of_the_picture_does_not_change() -> None:
    image = noise(97, 101)
    assert resample(image, Size(13, 17)).mean() == pytest.approx(image.mean(), abs=0.3)


def test_two_halves_make_the_whole() -> None:
    image = noise(60, 90)
    whole = resample(image, Size(20, 8))
    top = resample(image, Size(20, 4), Region(0, 0, 90, 30))
    bottom = resample(image, Size(20, 4), Region(0, 30, 90, 30))
    assert np.array_equal(np.concatenate([top, bottom]), whole)


def test_what_lies_outside_the_image_does_not_count() -> None:
    image = noise(10, 10)
    inside = resample(image, Size(5, 5), Region(0, 0, 10, 10))
    beyond = resample(image, Size(6, 6), Region(0, 0, 12, 12))
    assert np.array_equal(beyond[:5, :5], inside)
    half = resample(image, Size(4, 4), Region(0, 0, 12, 12))
    assert np.abs(half[3, 3] - image[9:, 9:].reshape(-1, 3).mean(axis=0)).max() <= 0.501


def test_enlarging_interpolates_between_pixel_centres() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 1] = 100
    assert resample(image, Size(4, 1))[0, :, 0].tolist() == [0, 25, 75, 100]
    assert resample(image, Size(8, 3))[1, :, 0].tolist() == [0, 0, 13, 38, 63, 88, 100, 100]
