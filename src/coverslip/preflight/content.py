"""What the picture shows: stained tissue in bright light, something else, or nothing."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from coverslip.base.errors import Finding
from coverslip.slide import Slide
from coverslip.tissue import segment_image

# The scale at which tissue is looked for later, so that both agree on what is empty.
_MPP = 8.0
_LEAST_PX, _MOST_PX, _UNSCALED_PX = 256, 1024, 512

# No channel of a pixel in the dark reaches this; haematoxylin at its densest does in red or blue.
_DARK = 60
# Glass is bright and nearly grey.
_BRIGHT, _GREY = 190, 28
_PERCENTILE = 95


def overview(slide: Slide) -> tuple[UInt8[ndarray, "h w 3"], float | None]:
    """The whole slide at about 8 µm per pixel, coarser where that is too large, and its µm per pixel where known."""
    if slide.mpp is None:
        return slide.overview(_UNSCALED_PX)[0], None
    wanted = round(max(slide.size) * slide.mpp / _MPP)
    image, scale = slide.overview(min(_MOST_PX, max(_LEAST_PX, wanted)))
    return image, slide.mpp * scale


def content(image: UInt8[ndarray, "h w 3"], mpp: float | None) -> list[Finding]:
    """not_brightfield or no_tissue, or nothing where the overview shows stained tissue."""
    strange = _not_brightfield(image)
    if strange is not None:
        return [
            Finding(
                "not_brightfield",
                strange,
                "Encoders and stain methods expect stained tissue in bright light: leave the slide out, or treat "
                "what comes of it with care.",
            )
        ]
    if not segment_image(image, mpp=mpp).any():
        return [
            Finding(
                "no_tissue",
                "No tissue was found on the overview: the slide is empty, or its stain is too pale.",
                "Look at the slide. If there is tissue, give a mask in tissue.masks; otherwise leave the slide out.",
            )
        ]
    return []


def _not_brightfield(image: UInt8[ndarray, "h w 3"]) -> str | None:
    """What speaks against brightfield, or None. Black filling around a scan is no darkness while there is glass."""
    high, low = image.max(axis=2), image.min(axis=2)
    dark = float((high < _DARK).mean())
    glass = float(((low >= _BRIGHT) & (high - low <= _GREY)).mean())
    if dark > 0.5 and glass < 0.05:
        return f"{dark:.0%} of the picture is dark and {glass:.0%} is bright glass: this looks like fluorescence."
    channels = np.percentile(image.reshape(-1, 3), _PERCENTILE, axis=0)
    if (channels < 10).sum() == 2:
        return f"Only the {('red', 'green', 'blue')[int(channels.argmax())]} channel holds a picture."
    if np.percentile(high - low, 99) <= 2 and high.std() > 10:
        return "The picture has no colour: red, green and blue are the same."
    return None
