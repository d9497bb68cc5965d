"""Two colour scales whose steps look equal: computed in OKLab, so that equal differences of score are equal to the eye.

OKLab: Bjorn Ottosson 2020, https://bottosson.github.io/posts/oklab/. Its lightness rises evenly along the sequential
scale, and falls evenly to both sides of the signed one; both survive grey print and colour-blind eyes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

_STEPS = 256

# Control points as (lightness 0 to 1, chroma, hue in degrees).
_SEQUENTIAL = [(0.25, 0.09, 300), (0.42, 0.13, 275), (0.60, 0.11, 215), (0.78, 0.15, 150), (0.94, 0.17, 108)]
_SIGNED = [(0.42, 0.14, 262), (0.68, 0.09, 245), (0.95, 0.00, 245), (0.68, 0.12, 45), (0.42, 0.15, 27)]

_LAB_TO_LMS = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def colours_of(values: Float[ndarray, ...], *, signed: bool) -> UInt8[ndarray, "... 3"]:
    """sRGB colours of values from 0 to 1; values outside get the colour of the end. Signed: 0.5 is the pale middle."""
    index = np.clip(np.rint(np.asarray(values, np.float64) * (_STEPS - 1)), 0, _STEPS - 1).astype(np.int64)
    return (_SIGNED_SCALE if signed else _SEQUENTIAL_SCALE)[index]


def _scale(points: Sequence[tuple[float, float, float]]) -> UInt8[ndarray, "s 3"]:
    """The colour scale through the control points, straight lines between them in OKLab."""
    lightness, chroma, hue = np.array(points, np.float64).T
    lab = np.stack([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], 1)
    at, steps = np.linspace(0, 1, len(points)), np.linspace(0, 1, _STEPS)
    return _srgb(np.stack([np.interp(steps, at, column) for column in lab.T], 1))


def _srgb(lab: Float[ndarray, "s 3"]) -> UInt8[ndarray, "s 3"]:
    linear = np.clip((lab @ _LAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)


_SEQUENTIAL_SCALE = _scale(_SEQUENTIAL)
_SIGNED_SCALE = _scale(_SIGNED)
