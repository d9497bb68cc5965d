"""Small slides with known contents, made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coverslip.slide import Slide
from coverslip.synthetic import SlideRecipe, make_slide
from coverslip.synthetic.pyramid import write_pyramid


@pytest.fixture(scope="session")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good slide of 1536 px; not to be changed: copy it."""
    path = tmp_path_factory.mktemp("good") / "good.tif"
    make_slide(path, SlideRecipe(side_px=1536, seed=5))
    return path


@pytest.fixture(scope="session")
def picture(slide_file: Path) -> np.ndarray:
    """The pixels of the good slide."""
    with Slide.open(slide_file) as slide:
        return slide.overview(1536)[0]


@pytest.fixture
def write():
    """Writes an image as a slide."""

    def write(path: Path, image: np.ndarray, *, mpp: float | None = 0.5, **options) -> Path:
        write_pyramid(path, np.ascontiguousarray(image), mpp=mpp, **options)
        return path

    return write
