"""A synthetic slide with every artefact, opened once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from coverslip.slide import Slide
from coverslip.synthetic import SlideRecipe, Truth, make_slide


@dataclass(frozen=True)
class Example:
    slide: Slide
    truth: Truth


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """2048 px, blue pen, a blurred region, a fold, a lesion."""
    path = tmp_path_factory.mktemp("tissue") / "example.tif"
    truth = make_slide(path, SlideRecipe(seed=9, side_px=2048, lesion=True, pen="blue", blur=True, fold=True))
    with Slide.open(path) as slide:
        yield Example(slide, truth)
