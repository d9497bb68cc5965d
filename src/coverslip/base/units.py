"""Conversions between pixels, µm and the magnification people say aloud. Nothing else converts."""

from __future__ import annotations

import math

# Below and above these no brightfield scanner works: a value outside is a unit mistake, not a slide.
PLAUSIBLE_MPP = (0.05, 20.0)
# x and y may differ by this much before pixels count as not square.
SQUARE_TOLERANCE = 0.01


def span_px(um: float, mpp: float) -> float:
    """Length in pixels of `um` µm on an image of `mpp` µm per pixel."""
    return um / mpp


def downsample(target_mpp: float, slide_mpp: float) -> float:
    """How many level-0 pixels make one pixel at `target_mpp`."""
    return target_mpp / slide_mpp


def magnification(mpp: float) -> str:
    """What people call this resolution, for display only: 0.5 µm/px is "20x"."""
    return f"{10 / mpp:.3g}x"


def is_mpp(value: object) -> bool:
    """True for a finite number over 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def mm2(num_pixels: float, mpp: float) -> float:
    """Area in mm² of `num_pixels` pixels at `mpp`."""
    return num_pixels * mpp * mpp * 1e-6
