"""Glass and density: the quick ways give what the plain ones give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coverslip.tissue.glass import optical_density, unscanned, white_level
from coverslip.tissue.methods.otsu import otsu_threshold

BRIGHT = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)), elements=st.integers(186, 255))


def plain_white(rgb: np.ndarray) -> np.ndarray:
    """The same pixel by pixel."""
    pixels = rgb.reshape(-1, 3).astype(int)
    glass = [p for p in pixels if min(p) >= 190 and max(p) - min(p) <= 28]
    for some in ([p for p in glass if min(p) < 255], glass):
        if len(some) < 0.01 * len(pixels):
            continue
        frequent = [sum(abs(min(p) - level) <= 2 for p in some) for level in range(256)]
        peak = frequent.index(max(frequent))
        return np.median([p for p in some if abs(min(p) - peak) <= 6], axis=0).astype(np.float32)
    return np.full(3, 243, np.float32)


@settings(max_examples=150, deadline=None)
@given(rgb=BRIGHT)
@example(rgb=np.full((2, 2, 3), 255, np.uint8))
@example(rgb=np.zeros((2, 2, 3), np.uint8))
def test_the_white_level_is_the_median_around_the_most_frequent_brightness(rgb: np.ndarray) -> None:
    assert np.array_equal(white_level(rgb), plain_white(rgb))


def test_density_is_the_logarithm_against_the_glass_and_never_negative() -> None:
    rgb = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2)
    white = np.array([240, 243, 250], np.float32)
    expected = np.maximum(0, -np.log((rgb.astype(float) + 1) / (white + 1)))
    assert optical_density(rgb, white) == pytest.approx(expected, abs=1e-6)


def test_only_what_is_black_in_every_channel_was_not_scanned() -> None:
    rgb = np.array([[[0, 0, 0], [3, 3, 3], [4, 0, 0], [0, 4, 0], [0, 0, 4]]], np.uint8)
    assert unscanned(rgb).tolist() == [[True, True, False, False, False]]


@settings(max_examples=100, deadline=None)
@given(values=arrays(np.float32, st.integers(2, 60), elements=st.floats(0, 2, width=32)))
def test_the_threshold_parts_values_with_the_greatest_variance_between(values: np.ndarray) -> None:
    kept = np.minimum((values * 256).astype(int), 255)
    centres = (kept + 0.5) / 256

    def between(threshold: float) -> float:
        low, high = centres[centres < threshold], centres[centres >= threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    best = max(between(edge / 256) for edge in range(1, 257))
    assert between(otsu_threshold(values)) == pytest.approx(best, rel=1e-9, abs=1e-12)
