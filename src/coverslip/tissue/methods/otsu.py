"""Tissue by a threshold between glass and what absorbs light.

Otsu, "A threshold selection method from gray-level histograms", IEEE SMC 9 (1979), doi 10.1109/TSMC.1979.4310076.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy import ndarray
from scipy.ndimage import gaussian_filter

from coverslip.tissue.glass import optical_density, unscanned, white_level

ENTRIES = {
    "otsu": {
        "build": "otsu",
        "summary": "Otsu on optical density plus colour, kept between limits; H&E, IHC, pale stain",
        "origin": "Otsu 1979",
        "licence": "Apache-2.0",
    },
    "otsu_od": {
        "build": "otsu_od",
        "summary": "Otsu on mean optical density alone, without limits but for blank slides",
        "origin": "Otsu 1979",
        "licence": "Apache-2.0",
    },
    "fixed": {
        "build": "fixed",
        "summary": "darker than the glass by a fixed optical density of 0.08: the same on every slide",
        "origin": "Coverslip",
        "licence": "Apache-2.0",
    },
    "all": {
        "build": "everything",
        "summary": "the whole image: for prepared crops and cores without glass",
        "origin": "Coverslip",
        "licence": "Apache-2.0",
    },
}

# Otsu splits any image, a blank one too. Absorption below the first is glass with its shading, above the second it is
# never glass: between them the slide decides.
_LIMITS = (0.10, 0.18)
_FIXED_OD = 0.08
# Tissue must absorb this much more than glass on average, else there is none.
_SEPARATION = 0.12
_SMOOTH_UM = 6.0


def otsu(rgb: UInt8[ndarray, "h w 3"], *, mpp: float | None) -> Bool[ndarray, "h w"]:
    """Tissue: where the most absorbed channel and the colourfulness together exceed the threshold.

    The density of the channel that is absorbed most finds any dye, whatever its colour; the difference between the
    most and the least absorbed channel is its colourfulness, which dust, shadows and air bubbles lack and pale stain
    has.
    """
    density = optical_density(rgb, white_level(rgb))
    most = density.max(2)
    absorption = _smooth(2 * most - density.min(2), mpp)
    seen = ~unscanned(rgb)
    threshold = float(np.clip(otsu_threshold(absorption[seen]), *_LIMITS))
    return _if_separate(absorption, (absorption > threshold) & seen, seen)


def otsu_od(rgb: UInt8[ndarray, "h w 3"], *, mpp: float | None) -> Bool[ndarray, "h w"]:
    """Tissue: where the mean optical density exceeds Otsu's threshold."""
    density = _smooth(optical_density(rgb, white_level(rgb)).mean(2), mpp)
    seen = ~unscanned(rgb)
    return _if_separate(density, (density > max(otsu_threshold(density[seen]), 0.03)) & seen, seen)


def fixed(rgb: UInt8[ndarray, "h w 3"], *, mpp: float | None) -> Bool[ndarray, "h w"]:
    """Tissue: where the mean optical density exceeds 0.08."""
    density = _smooth(optical_density(rgb, white_level(rgb)).mean(2), mpp)
    return (density > _FIXED_OD) & ~unscanned(rgb)


def everything(rgb: UInt8[ndarray, "h w 3"], *, mpp: float | None) -> Bool[ndarray, "h w"]:
    """Everything is tissue."""
    return np.ones(rgb.shape[:2], bool)


def _smooth(values: Float32[ndarray, "h w"], mpp: float | None) -> Float32[ndarray, "h w"]:
    """Single pixels do not decide. A micrometre scale, or one pixel where the scale is not known."""
    sigma = 1.0 if mpp is None else min(_SMOOTH_UM / mpp, 8.0)
    return gaussian_filter(values, sigma, truncate=2.5) if sigma > 0.3 else values


def otsu_threshold(values: Float32[ndarray, n]) -> float:
    """The value that splits a histogram into the two classes of greatest variance between them."""
    if not len(values):
        return np.inf
    bins = np.minimum(values * 256, 255).astype(np.uint8)
    counts = np.bincount(bins.ravel(), minlength=256)
    edges = np.arange(257) / 256
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = sums / below - (sums[-1] - sums) / above
        between = np.nan_to_num(below * 1.0 * above * gap**2)
    return float(edges[1:][between.argmax()])


def _if_separate(
    values: Float32[ndarray, "h w"], mask: Bool[ndarray, "h w"], seen: Bool[ndarray, "h w"]
) -> Bool[ndarray, "h w"]:
    """The mask where its two sides differ enough to be tissue and glass, an empty one otherwise."""
    glass = seen & ~mask
    if not mask.any():
        return mask
    base = float(values[glass].mean()) if glass.any() else 0.0
    return mask if float(values[mask].mean()) - base >= _SEPARATION else np.zeros_like(mask)
