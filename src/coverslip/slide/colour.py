"""Colour profiles: pixels as a scanner stored them, to the sRGB that screens and encoders mean.

A slide's pixels are handed out as stored. Whoever compares colours between scanners asks for sRGB here, with the
profile in `Slide.icc`; a slide without one is left as it is, because guessing a profile would invent colours.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageCms

from coverslip.base.errors import SlideError


def to_srgb(image: UInt8[ndarray, "h w 3"], icc: bytes | None) -> UInt8[ndarray, "h w 3"]:
    """The image in sRGB (relative colorimetric, black point compensated); the image itself where `icc` is None.

    Raises:
        SlideError: the profile is damaged or not one for RGB.
    """
    if icc is None:
        return image
    converted = ImageCms.applyTransform(Image.fromarray(image), _transform(icc))
    assert converted is not None  # only None when converting in place
    return np.asarray(converted)


@lru_cache(maxsize=16)
def _transform(icc: bytes) -> ImageCms.ImageCmsTransform:
    try:
        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(icc)),
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise SlideError(
            f"The colour profile cannot be used ({error}).", fix="Work with the pixels as stored.", code="unreadable"
        ) from error
