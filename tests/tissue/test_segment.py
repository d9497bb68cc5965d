"""Tissue is found on slides of every stain, and nowhere else."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.ndimage import binary_dilation, gaussian_filter, label

from coverslip.base.errors import SettingsError, SlideError
from coverslip.base.registry import TISSUE
from coverslip.slide import Slide
from coverslip.synthetic import SITES, SlideRecipe, draw, make_slide
from coverslip.tissue import clean, segment, segment_image


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def thumbnail(image: np.ndarray, factor: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).reduce(factor))


def glass(h: int = 200, w: int = 300, colour: tuple[int, int, int] = (242, 240, 243), seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1.5, (h, w, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def with_disc(image: np.ndarray, colour: tuple[int, int, int], radius: int = 50) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    disc = np.hypot(y - image.shape[0] / 2, x - image.shape[1] / 2) < radius
    noise = np.random.default_rng(1).normal(0, 6, image.shape)
    image = image.copy()
    image[disc] = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)[disc]
    return image, disc


@pytest.mark.parametrize("method", ["otsu", "otsu_od", "fixed"])
@pytest.mark.parametrize("site", SITES)
def test_every_method_finds_the_known_tissue(method: str, site: str) -> None:
    image, truth = draw(SlideRecipe(seed=3, side_px=2048, site=site))
    # Lumens over the size of a hole are glass for a mask and tissue for the truth.
    found = segment_image(thumbnail(image, 16), mpp=8.0, method=method)
    known = truth.tissue.reshape(128, 2, 128, 2).mean((1, 3)) >= 0.5
    assert iou(found, known) > 0.85
    # The rim may be a mask pixel wide, no more.
    assert not (found & ~binary_dilation(known, iterations=2)).any()


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("pale pink", (231, 212, 224)),
        ("pale blue counterstain", (212, 216, 230)),
        ("DAB brown", (140, 100, 70)),
        ("dense haematoxylin", (80, 60, 120)),
        ("fast red", (215, 120, 140)),
    ],
)
def test_stain_of_any_colour_is_tissue(name: str, colour: tuple[int, int, int]) -> None:
    image, disc = with_disc(glass(), colour)
    assert iou(segment_image(image, mpp=8.0), disc) > 0.9, name


@pytest.mark.parametrize("white", [(255, 255, 255), (243, 243, 243), (236, 228, 214), (225, 222, 235), (205, 205, 205)])
@pytest.mark.parametrize("method", ["otsu", "otsu_od", "fixed"])
def test_glass_without_tissue_has_none_whatever_its_tint(white: tuple[int, int, int], method: str) -> None:
    assert not segment_image(glass(colour=white), mpp=8.0, method=method).any()


def test_shading_of_the_lamp_is_no_tissue() -> None:
    shade = np.linspace(1.0, 0.93, 300)[None, :, None]
    image = (glass().astype(float) * shade).astype(np.uint8)
    assert not segment_image(image, mpp=8.0).any()


def test_a_tiny_pale_fragment_is_found_on_a_large_slide() -> None:
    image, disc = with_disc(glass(600, 900), (222, 200, 214), radius=9)
    assert iou(segment_image(image, mpp=8.0), disc) > 0.6


def test_an_image_full_of_tissue_is_tissue() -> None:
    image, truth = draw(SlideRecipe(seed=3, side_px=2048))
    y, x = np.argwhere(truth.tissue & ~truth.lesion).mean(0).astype(int) * 8
    crop = thumbnail(image[y - 256 : y + 256, x - 256 : x + 256], 4)
    assert segment_image(crop, mpp=2.0).mean() > 0.6


def test_unscanned_black_and_white_parts_are_no_tissue() -> None:
    image, disc = with_disc(glass(), (200, 140, 180))
    image[:, :40] = 0
    image[:, -40:] = 255
    assert iou(segment_image(image, mpp=8.0), disc) > 0.9


def test_without_a_scale_the_same_tissue_is_found() -> None:
    image, disc = with_disc(glass(), (200, 140, 180))
    assert iou(segment_image(image, mpp=None), disc) > 0.9


def test_a_pen_on_empty_glass_is_no_tissue_and_can_be_kept() -> None:
    image = glass()
    image[80:120, 40:260] = (25, 60, 170)
    assert not segment_image(image, mpp=8.0).any()
    assert segment_image(image, mpp=8.0, keep_ink=True).any()


def test_the_mask_lies_on_the_slide_where_the_tissue_does(example: Any) -> None:
    mask = segment(example.slide)
    assert mask.slide == "example"
    assert mask.scale == 16
    assert mask.mask.shape == (128, 128)
    known = example.truth.tissue.reshape(128, 2, 128, 2).mean((1, 3)) >= 0.5
    ink = example.truth.pen.reshape(128, 2, 128, 2).any((1, 3))
    assert iou(mask.mask & ~ink, known & ~ink) > 0.85
    assert mask.area_mm2 == pytest.approx(mask.mask.sum() * 64e-6)


def test_a_slide_whose_size_is_no_multiple_is_covered_to_its_edge(tmp_path: Path) -> None:
    image, _ = draw(SlideRecipe(seed=3, side_px=1024))
    Image.fromarray(image[:1001, :1013]).save(tmp_path / "odd.png")
    with Slide.open(tmp_path / "odd.png", mpp=0.5) as slide:
        mask = segment(slide)
    assert mask.mask.shape == (63, 64)
    assert mask.scale == 16


def test_without_quality_there_are_no_layers_and_the_same_tissue(example: Any) -> None:
    plain = segment(example.slide, quality=False)
    assert plain.layers == {}
    # Reading at the mask's scale directly may round a pixel otherwise.
    assert iou(plain.mask, segment(example.slide).mask) > 0.99


def test_focus_of_a_large_slide_is_judged_on_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = draw(SlideRecipe(seed=9, side_px=2048))
    image[:, :1024] = gaussian_filter(image[:, :1024], (5, 5, 0))
    Image.fromarray(image).save(tmp_path / "half.png")
    # The package has a function of the module's name, so the module is asked for as such.
    monkeypatch.setattr(importlib.import_module("coverslip.tissue.segment"), "_FINE_PX", 1000)
    with Slide.open(tmp_path / "half.png", mpp=0.5) as slide:
        mask = segment(slide)
    blurred = mask.layers["blur"]
    assert blurred[:, :60].sum() > 0.8 * mask.mask[:, :60].sum()
    assert blurred[:, 72:].sum() < 0.05 * mask.mask[:, 72:].sum()


def test_a_slide_without_a_scale_is_refused_with_the_way_out(tmp_path: Path) -> None:
    make_slide(tmp_path / "a.tif", SlideRecipe(side_px=512, mpp=None))
    with Slide.open(tmp_path / "a.tif") as slide, pytest.raises(SlideError, match="mpp") as error:
        segment(slide)
    assert error.value.code == "mpp_missing"


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'otsu'"):
        segment_image(glass(), mpp=8.0, method="otsuu")


@pytest.mark.parametrize("method", TISSUE.names())
@settings(max_examples=15, deadline=None)
@given(
    image=arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3))),
    mpp=st.none() | st.floats(0.2, 100),
)
def test_any_image_gives_a_mask_of_its_shape(method: str, image: np.ndarray, mpp: float | None) -> None:
    mask = segment_image(image, mpp=mpp, method=method)
    assert mask.shape == image.shape[:2]
    assert mask.dtype == bool


@settings(max_examples=60, deadline=None)
@given(
    mask=arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))),
    specks=st.integers(0, 12),
    holes=st.integers(0, 12),
)
def test_cleaning_leaves_no_small_part_and_no_small_hole(mask: np.ndarray, specks: int, holes: int) -> None:
    result = clean(mask, specks_px=specks, holes_px=holes)
    parts, count = label(result, np.ones((3, 3)))
    assert all((parts == i).sum() >= specks for i in range(1, count + 1))
    gaps, count = label(~result)
    for i in range(1, count + 1):
        gap = gaps == i
        at_border = gap[0].any() or gap[-1].any() or gap[:, 0].any() or gap[:, -1].any()
        assert at_border or gap.sum() >= holes
    if specks <= 1 and holes <= 1:
        assert np.array_equal(result, mask)


@pytest.mark.data
def test_real_slides_keep_their_tissue(test_data: Path) -> None:
    """Figures read off the pictures by eye, with room; nothing of them is ink."""
    expected = {
        "C3L-00601-26_pyramid.tif": (0.28, 0.40),
        "cmu-1-small-region.svs": (0.30, 0.50),
        "tcga-cr-7395-01a-01-ts1.svs": (0.55, 0.75),
    }
    for name, (low, high) in expected.items():
        with Slide.open(test_data / "wsi" / name, mpp=0.5) as slide:
            mask = segment(slide)
        assert low < mask.usable().mean() < high, name
        assert mask.layers["pen"].mean() < 0.002, name
        assert mask.layers["blur"].mean() < 0.01, name


@pytest.mark.data
def test_the_small_fragment_of_a_real_ihc_slide_is_found(test_data: Path) -> None:
    image = np.asarray(Image.open(test_data / "wsi" / "kidney-48-5.tif").convert("RGB"))
    mask = segment_image(image, mpp=None)
    assert 0.001 < mask.mean() < 0.02
    y, x = np.argwhere(mask).mean(0) / mask.shape
    assert 0.5 < y < 0.7
    assert 0.15 < x < 0.35


@pytest.mark.data
def test_clean_biopsies_lose_nothing_to_the_layers(test_data: Path) -> None:
    for path in sorted((test_data / "prostate_slides" / "slides").glob("*.tif"))[::5]:
        with Slide.open(path) as slide:
            mask = segment(slide)
        assert 0.15 < mask.mask.mean() < 0.7, path.name
        assert mask.usable().sum() > 0.985 * mask.mask.sum(), path.name
