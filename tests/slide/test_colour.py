from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageCms

from coverslip.base.errors import SlideError
from coverslip.slide.colour import to_srgb


def picture_of_colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def test_without_a_profile_nothing_is_converted() -> None:
    image = picture_of_colours()
    assert to_srgb(image, None) is image


def test_the_srgb_profile_changes_nothing() -> None:
    image = picture_of_colours()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.abs(to_srgb(image, profile).astype(int) - image).max() <= 1


def test_a_damaged_profile_is_refused() -> None:
    with pytest.raises(SlideError, match="profile"):
        to_srgb(picture_of_colours(), b"no profile at all")
