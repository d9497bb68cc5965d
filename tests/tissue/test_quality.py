"""Ink, blur and folds: found where they are known to be, and not on clean tissue of any stain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter, label

from coverslip.synthetic import SITES, SlideRecipe, draw
from coverslip.tissue import quality_layers, segment, segment_image
from coverslip.tissue.quality import bands, focus_ratio


def layers_of(image: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Layers at 8 µm/px of a level-0 image, and its tissue with ink."""
    fine = np.asarray(Image.fromarray(image).reduce(4))
    rgb = np.asarray(Image.fromarray(image).reduce(16))
    mask = segment_image(rgb, mpp=8.0, keep_ink=True)
    return dict(quality_layers(rgb, mask, mpp=8.0, fine=fine)), mask


def at_8_um(truth_mask: np.ndarray) -> np.ndarray:
    h, w = truth_mask.shape
    return truth_mask.reshape(h // 2, 2, w // 2, 2).mean((1, 3)) >= 0.5


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("pen", ["red", "green", "blue", "black"])
def test_ink_of_every_colour_is_found_and_little_else(site: str, pen: str) -> None:
    image, truth = draw(SlideRecipe(seed=11, side_px=2048, site=site, pen=pen))  # type: ignore[arg-type]
    layers, _ = layers_of(image)
    known = at_8_um(truth.pen)
    found = layers["pen"]
    assert (found & known).sum() > 0.95 * known.sum()
    # The rim around the stroke is meant; it is some pixels wide.
    assert (found & ~known).sum() < 0.8 * known.sum()


@pytest.mark.parametrize("seed", range(4))
def test_clean_tissue_has_no_ink_and_no_blur(seed: int) -> None:
    image, _ = draw(SlideRecipe(seed=seed, side_px=2048, site=list(SITES)[seed % 2], lesion=seed > 1))
    layers, mask = layers_of(image)
    assert not layers["pen"].any()
    assert (layers["blur"] & mask).sum() < 0.005 * mask.sum()
    assert (layers["fold"] & mask).sum() < 0.02 * mask.sum()


def test_a_blurred_region_is_found() -> None:
    image, truth = draw(SlideRecipe(seed=9, side_px=2048, blur=True))
    layers, mask = layers_of(image)
    known = at_8_um(truth.blur) & mask
    assert (layers["blur"] & known).sum() > 0.6 * known.sum()
    assert (layers["blur"] & ~known).sum() < 0.03 * mask.sum()


def test_a_slide_that_is_blurred_all_over_is_found() -> None:
    image, _ = draw(SlideRecipe(seed=9, side_px=1024))
    soft = np.stack([gaussian_filter(image[..., c], 6) for c in range(3)], -1)
    layers, mask = layers_of(soft)
    assert (layers["blur"] & mask).sum() > 0.95 * mask.sum()


def test_the_focus_ratio_depends_on_neither_stain_nor_brightness() -> None:
    fine = np.asarray(Image.fromarray(draw(SlideRecipe(seed=9, side_px=1024))[0]).reduce(4))
    pale = (255 - (255 - fine.astype(float)) * 0.5).astype(np.uint8)
    mask = np.ones((64, 64), bool)
    strong, _ = focus_ratio(fine, mask, factor=4, window_px=16)
    weak, _ = focus_ratio(pale, mask, factor=4, window_px=16)
    inner = np.s_[20:44, 20:44]
    assert np.median(weak[inner]) == pytest.approx(np.median(strong[inner]), rel=0.1)


def test_folds_are_found_in_part_and_not_invented() -> None:
    found = known = wrong = tissue = 0
    for seed in range(20, 26):
        image, truth = draw(SlideRecipe(seed=seed, side_px=2048, fold=True, site=list(SITES)[seed % 2]))
        layers, mask = layers_of(image)
        fold = at_8_um(truth.fold)
        found += (layers["fold"] & fold).sum()
        known += fold.sum()
        wrong += (layers["fold"] & ~fold).sum()
        tissue += mask.sum()
    assert found > 0.25 * known
    assert wrong < 0.005 * tissue


def plain_bands(mask: np.ndarray, mpp: float) -> np.ndarray:
    """Each part alone on an image of its own."""
    labels, count = label(mask, np.ones((3, 3)))
    result = np.zeros_like(mask)
    for part in (labels == i for i in range(1, count + 1)):
        rows, columns = np.nonzero(part)
        width = 2 * distance_transform_edt(mask)[part].max()
        length = np.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1)
        if length > 3 * width and length * mpp > 150 and part.sum() < 1.2 * length * width:
            result |= part
    return result


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.02, 0.6), thick=st.integers(1, 4))
def test_bands_are_the_long_and_narrow_parts(seed: int, density: float, thick: int) -> None:
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((48, 64)), (thick, 3 * thick))
    mask = noise > np.quantile(noise, 1 - density)
    assert np.array_equal(bands(mask, 8.0), plain_bands(mask, 8.0))


def test_focus_is_not_judged_where_it_cannot_be() -> None:
    image, _ = draw(SlideRecipe(seed=9, side_px=512))
    rgb = np.asarray(Image.fromarray(image).reduce(16))
    mask = np.ones(rgb.shape[:2], bool)
    assert set(quality_layers(rgb, mask, mpp=8.0)) == {"pen", "fold"}
    assert set(quality_layers(rgb, mask, mpp=None)) == {"pen", "fold"}
    assert set(quality_layers(rgb, mask, mpp=2.0)) == {"pen", "fold", "blur"}


def test_layers_of_a_slide_have_the_shape_of_its_mask(example: Any) -> None:
    mask = segment(example.slide)
    assert set(mask.layers) == {"pen", "blur", "fold"}
    assert (mask.layers["pen"] & at_8_um(example.truth.pen)).sum() > 0.9 * at_8_um(example.truth.pen).sum()
    assert mask.usable().sum() < mask.mask.sum()
    assert np.array_equal(mask.usable(()), mask.mask)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "mpp", "low", "high"),
    [
        ("diagnostic-slide-thumb-rgb.png", 30.0, 0.2, 0.45),
        ("tcga-green-pen.png", 4.0, 0.12, 0.3),
        ("tcga-red-pen.png", 4.0, 0.15, 0.4),
        ("wsi-blue-pen.png", 60.0, 0.01, 0.06),
        ("no-tissue-green-pen.png", 4.0, 0.5, 0.9),
        ("no-tissue-red-pen.png", 4.0, 0.35, 0.85),
        ("medium-nuclei-score-green-pen-level1.png", 2.0, 0.4, 0.7),
        ("tissue-level2-3000-7666-7096-11763.png", 4.0, 0.0, 0.001),
        ("tcga-lung-rgb.png", 0.25, 0.0, 0.001),
        ("almost-white-ihc.png", 8.0, 0.0, 0.001),
    ],
)
def test_real_ink_is_found_and_real_tissue_is_not_ink(
    test_data: Path, name: str, mpp: float, low: float, high: float
) -> None:
    rgb = np.asarray(Image.open(test_data / "stain" / "pen_marks" / name).convert("RGB"))
    mask = segment_image(rgb, mpp=mpp, keep_ink=True)
    assert low <= quality_layers(rgb, mask, mpp=mpp)["pen"].mean() <= high
