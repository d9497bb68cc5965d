"""The same picture is found however it lies; different ones are not taken for the same."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from coverslip.base.geometry import Size
from coverslip.preflight.content import overview
from coverslip.preflight.likeness import alike, fingerprint
from coverslip.slide import Slide, discover
from coverslip.synthetic import SlideRecipe, draw


def pairs(images: list[np.ndarray]) -> list[tuple[int, int]]:
    sizes = [Size(image.shape[1], image.shape[0]) for image in images]
    return [(i, j) for i, j, _ in alike([fingerprint(image) for image in images], sizes)]


def turned(image: np.ndarray, way: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(image[:, ::-1] if way >= 4 else image, way % 4))


def saved_again(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("way", range(8))
def test_every_way_to_lay_a_slide_is_found(picture: np.ndarray, way: int) -> None:
    assert pairs([picture, turned(picture, way)]) == [(0, 1)]


@pytest.mark.parametrize("way", [0, 1, 6])
def test_a_picture_that_is_not_square_is_found_too(picture: np.ndarray, way: int) -> None:
    part = picture[:, :1000]
    assert pairs([part, saved_again(turned(part, way), 30)]) == [(0, 1)]


def test_compression_scale_brightness_and_a_lost_edge_do_not_hide_a_copy(picture: np.ndarray) -> None:
    half = np.asarray(Image.fromarray(picture).reduce(2))
    brighter = np.clip(255 * (picture / 255.0) ** 0.8, 0, 255).astype(np.uint8)
    for copy in (saved_again(picture, 20), half, brighter, picture[8:, 4:]):
        assert pairs([picture, copy]) == [(0, 1)]


def test_a_part_of_a_slide_is_not_the_slide(picture: np.ndarray) -> None:
    assert pairs([picture, picture[:, :768]]) == []


def test_different_slides_are_not_the_same() -> None:
    sites = ("north", "south")
    images = [draw(SlideRecipe(side_px=512, seed=seed, site=sites[seed % 2]))[0] for seed in range(10)]
    assert pairs(images) == []


def test_one_drawing_in_two_stains_is_one_picture() -> None:
    assert pairs([draw(SlideRecipe(side_px=512, seed=1, site=site))[0] for site in ("north", "south")]) == [(0, 1)]


def test_pictures_without_contrast_have_no_fingerprint(picture: np.ndarray) -> None:
    glass = np.full((300, 200, 3), 243, np.uint8)
    assert fingerprint(glass) is None
    assert pairs([glass, glass, picture]) == []


def test_more_slides_than_fit_one_block_are_compared(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coverslip.preflight.likeness._BLOCK", 2)
    other = draw(SlideRecipe(side_px=512, seed=9))[0]
    assert pairs([picture, other, turned(picture, 3), turned(other, 5), turned(picture, 1)]) == [
        (0, 2),
        (0, 4),
        (1, 3),
        (2, 4),
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 7), st.integers(0, 7))
def test_likeness_does_not_depend_on_which_slide_comes_first_or_how_both_lie(seed: int, a: int, b: int) -> None:
    rng = np.random.default_rng(seed)
    image = np.repeat(np.repeat(rng.integers(60, 250, (8, 8, 3), dtype=np.uint8), 16, 0), 16, 1)
    first, second = turned(image, a), turned(image, b)
    size = Size(128, 128)
    (found,) = alike([fingerprint(first), fingerprint(second)], [size, size])
    (swapped,) = alike([fingerprint(second), fingerprint(first)], [size, size])
    assert found[2] == pytest.approx(1, abs=1e-5)
    assert swapped[2] == pytest.approx(found[2], abs=1e-5)


@pytest.mark.data
def test_no_two_of_48_real_biopsies_are_taken_for_the_same(test_data) -> None:
    images = []
    for path in discover([test_data / "prostate_slides"]):
        with Slide.open(path) as slide:
            images.append(overview(slide)[0])
    assert len(images) == 48
    assert pairs(images) == []
    copies = [saved_again(turned(image, i % 8), 30) for i, image in enumerate(images)]
    assert pairs(images + copies) == [(i, i + 48) for i in range(48)]
