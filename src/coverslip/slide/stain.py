"""Stains: how much haematoxylin, eosin and DAB is in each pixel, and the same tissue in another laboratory's colours.

Light that passes a stain falls off exponentially with the amount of stain (Beer and Lambert), so that in optical
density, the logarithm of what is absorbed, stains add up. A stain matrix holds one direction a stain; separating is a
linear solve.

- Fixed matrix: Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution, 2001.
- Estimated from the image, and normalisation: Macenko et al., A method for normalizing histology slides for
  quantitative analysis, 2009, https://doi.org/10.1109/ISBI.2009.5193250
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy import ndarray

from coverslip.base.errors import SlideError

# Directions of haematoxylin, eosin and DAB in optical density of red, green, blue; one stain a row, length 1.
_RUIFROK = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
HED: Float64[ndarray, "3 3"] = _RUIFROK / np.linalg.norm(_RUIFROK, axis=1, keepdims=True)
HED.setflags(write=False)

# The percentile that stands for the strongest stain: the maximum itself is dirt.
_STRONGEST = 99
# Fewer stained pixels than this have no two directions to find.
_LEAST_PIXELS = 100


def optical_density(rgb: UInt8[ndarray, "*n 3"], *, white: float = 255.0) -> Float32[ndarray, "*n 3"]:
    """log10(white / intensity) of each channel; 0 is clear glass. A black channel counts as intensity 1."""
    table = -np.log10(np.maximum(np.arange(256, dtype=np.float64), 1.0) / white)
    return table.astype(np.float32)[rgb]


def separate(
    rgb: UInt8[ndarray, "*n 3"], stains: Float64[ndarray, "3 3"] = HED, *, white: float = 255.0
) -> Float32[ndarray, "*n 3"]:
    """How much of each stain is in each pixel: haematoxylin, eosin, DAB with the default matrix. A little below 0 is
    noise, much below 0 says that the stains are others."""
    return optical_density(rgb, white=white) @ np.linalg.inv(stains).astype(np.float32)


def combine(
    amounts: Float32[ndarray, "*n 3"], stains: Float64[ndarray, "3 3"] = HED, *, white: float = 255.0
) -> UInt8[ndarray, "*n 3"]:
    """The pixels that these amounts of stain give: undoes `separate`."""
    density = np.asarray(amounts, dtype=np.float64) @ stains
    return np.clip(np.rint(white * 10.0**-density), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class StainColours:
    """Two stains of one slide: `directions` (3, 2), columns haematoxylin and eosin in natural-log optical density of
    red, green, blue; `strongest` (2,) the amount of each at its 99th percentile; `white` the intensity of glass."""

    directions: Float64[ndarray, "3 2"]
    strongest: Float64[ndarray, 2]
    white: float = 240.0


# A commonly used target, so that results compare.
REFERENCE = StainColours(
    directions=np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]]), strongest=np.array([1.9705, 1.0308])
)


def estimate_stains(
    rgb: UInt8[ndarray, "*n 3"], *, white: float = 240.0, alpha: float = 1.0, beta: float = 0.15
) -> StainColours:
    """The haematoxylin and eosin of an image (Macenko). `beta` is the least optical density of a stained pixel,
    `alpha` the percentile of angles that is taken for the purest of each stain.

    Raises:
        SlideError: too few pixels are stained.
    """
    density = _natural_density(rgb, white)
    stained = density[(density >= beta).all(axis=1)]
    if len(stained) < _LEAST_PIXELS:
        raise SlideError(
            f"Only {len(stained)} pixels are stained; at least {_LEAST_PIXELS} are needed to find the stains.",
            fix="Estimate on more tissue, or use the fixed matrix.",
            code="no_tissue",
        )
    # The plane of the two stains: the two directions in which stained pixels vary most.
    _, vectors = np.linalg.eigh(np.cov(stained.T))
    plane = vectors[:, 1:]
    # Eigenvectors have no sign of their own. Densities are positive, and so must be the main direction, else the
    # angles below jump from pi to minus pi in the middle of the tissue.
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    on_plane = stained @ plane
    angles = np.arctan2(on_plane[:, 1], on_plane[:, 0])
    ends = [plane @ np.array([np.cos(a), np.sin(a)]) for a in np.percentile(angles, [alpha, 100 - alpha])]
    # Haematoxylin absorbs more red than eosin does.
    ends.sort(key=lambda direction: -direction[0])
    directions = np.column_stack(ends)
    strongest = np.percentile(_amounts(density, directions), _STRONGEST, axis=1)
    return StainColours(directions, strongest, white)


def normalise_stains(
    rgb: UInt8[ndarray, "h w 3"], target: StainColours = REFERENCE, *, source: StainColours | None = None
) -> UInt8[ndarray, "h w 3"]:
    """The image in the colours of `target`. `source` are the image's own stains; estimated from it where not given
    (give a whole slide's, so that its tiles stay alike).

    Raises:
        SlideError: the stains cannot be estimated.
    """
    amounts = _matched(rgb, target, source)
    return _painted(amounts, target.directions, target.white, rgb.shape)


def stain_images(
    rgb: UInt8[ndarray, "h w 3"], target: StainColours = REFERENCE, *, source: StainColours | None = None
) -> tuple[UInt8[ndarray, "h w 3"], UInt8[ndarray, "h w 3"]]:
    """The image with haematoxylin alone and with eosin alone, in the colours of `target`.

    Raises:
        SlideError: the stains cannot be estimated.
    """
    amounts = _matched(rgb, target, source)
    pictures = [_painted(amounts[[i]], target.directions[:, [i]], target.white, rgb.shape) for i in (0, 1)]
    return pictures[0], pictures[1]


def _matched(rgb: ndarray, target: StainColours, source: StainColours | None) -> Float64[ndarray, "2 n"]:
    """Amounts of both stains, scaled so that the strongest are as strong as the target's."""
    source = source or estimate_stains(rgb, white=target.white)
    amounts = _amounts(_natural_density(rgb, source.white), source.directions)
    return amounts / (source.strongest / target.strongest)[:, None]


def _natural_density(rgb: ndarray, white: float) -> Float64[ndarray, "n 3"]:
    # One is added so that black has a logarithm; this is how the reference implementations do it.
    return -np.log((rgb.reshape(-1, 3).astype(np.float64) + 1) / white)


def _amounts(density: Float64[ndarray, "n 3"], directions: Float64[ndarray, "3 2"]) -> Float64[ndarray, "2 n"]:
    solved: ndarray = np.linalg.lstsq(directions, density.T, rcond=None)[0]
    return solved


def _painted(amounts: ndarray, directions: ndarray, white: float, shape: tuple[int, ...]) -> UInt8[ndarray, "h w 3"]:
    light = white * np.exp(-directions @ amounts)
    light[light > 255] = 254  # lighter than glass: where a stain came out negative
    return light.T.reshape(shape).astype(np.uint8)
