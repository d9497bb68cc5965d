"""Synthetic slides: files that others open, answers that hold, looks that are stained tissue."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import openslide
import pytest
import shapely

from coverslip.base.errors import SettingsError
from coverslip.synthetic import SITES, SlideRecipe, draw, make_slide

SMALL = 1024


def colours(image: np.ndarray, mask: np.ndarray, scale: float) -> np.ndarray:
    """Mean R, G, B of the image's pixels under a coarse mask."""
    step = int(scale)
    h, w = mask.shape
    means = image[: h * step, : w * step].reshape(h, step, w, step, 3).mean(axis=(1, 3))
    return means[mask].mean(0)


def test_openslide_reads_three_levels_and_the_scale(tmp_path: Path) -> None:
    make_slide(tmp_path / "a.tif", SlideRecipe(seed=1, side_px=SMALL))
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert slide.level_dimensions == ((1024, 1024), (256, 256), (64, 64))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5)
        assert slide.properties["openslide.level[0].tile-width"] == "256"


def test_the_file_shows_what_was_drawn(tmp_path: Path) -> None:
    recipe = SlideRecipe(seed=2, side_px=512)
    image, _ = draw(recipe)
    make_slide(tmp_path / "a.tif", recipe)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        stored = np.asarray(slide.read_region((0, 0), 0, (512, 512)).convert("RGB"))
    # JPEG loses detail, never the colour of a region.
    assert np.abs(stored.astype(float).mean((0, 1)) - image.mean((0, 1))).max() < 1.5
    assert np.abs(stored.astype(float) - image).mean() < 6


def test_a_file_without_a_scale_can_be_made(tmp_path: Path) -> None:
    make_slide(tmp_path / "a.tif", SlideRecipe(seed=1, side_px=512, mpp=None))
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert "openslide.mpp-x" not in slide.properties


def test_the_same_recipe_gives_the_same_file(tmp_path: Path) -> None:
    recipe = SlideRecipe(seed=7, side_px=SMALL, lesion=True, pen="blue", fold=True, blur=True)
    for name in "ab":
        make_slide(tmp_path / f"{name}.tif", recipe)
    first, second = (hashlib.sha256((tmp_path / f"{n}.tif").read_bytes()).digest() for n in "ab")
    assert first == second


def test_another_seed_gives_another_slide() -> None:
    one, two = (draw(SlideRecipe(seed=s, side_px=512))[0] for s in (1, 2))
    assert np.abs(one.astype(int) - two).mean() > 3


@pytest.mark.parametrize("seed", range(4))
def test_the_lesion_takes_3_to_15_per_cent_of_the_tissue_and_lies_in_it(seed: int) -> None:
    _, truth = draw(SlideRecipe(seed=seed, side_px=2048, lesion=True))
    assert 0.03 <= truth.lesion_fraction <= 0.15
    assert not (truth.lesion & ~truth.tissue).any()


def test_the_outline_and_the_mask_of_a_lesion_say_the_same() -> None:
    _, truth = draw(SlideRecipe(seed=3, side_px=2048, lesion=True))
    shape = shapely.union_all([shapely.Polygon(rings[0], rings[1:]) for rings in truth.outlines])
    assert shape.is_valid
    assert shape.area == pytest.approx(np.count_nonzero(truth.lesion) * truth.scale**2, rel=0.03)
    y, x = np.nonzero(truth.lesion)
    inside = shapely.contains_xy(shape, (x + 0.5) * truth.scale, (y + 0.5) * truth.scale)
    assert inside.mean() > 0.98


def test_a_slide_without_a_lesion_has_an_empty_outline() -> None:
    _, truth = draw(SlideRecipe(seed=3, side_px=512))
    assert truth.lesion_fraction == 0
    assert truth.to_geojson() == {"type": "FeatureCollection", "features": []}


def test_the_geojson_is_plain_json_in_slide_pixels() -> None:
    _, truth = draw(SlideRecipe(seed=5, side_px=SMALL, lesion=True))
    document = json.loads(json.dumps(truth.to_geojson()))
    for feature in document["features"]:
        assert feature["properties"]["objectType"] == "annotation"
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid
        assert min(shape.bounds) >= 0
        assert max(shape.bounds) <= SMALL


@pytest.mark.parametrize("site", SITES)
def test_nuclei_are_blue_purple_stroma_is_pink_and_glass_is_nearly_white(site: str) -> None:
    image, truth = draw(SlideRecipe(seed=4, side_px=SMALL, site=site))
    r, g, b = colours(image, truth.tissue, truth.scale)
    assert r > b > g
    glass = colours(image, ~truth.tissue, truth.scale)
    assert glass.min() > 225
    dark = image[image.sum(2) < np.quantile(image.sum(2), 0.01)].mean(0)
    assert dark[2] > dark[0] > dark[1]


def test_a_lesion_is_no_flag_of_colour() -> None:
    """Its mean colour differs from the rest of the tissue by less than the two sites differ from each other."""
    means = {}
    for site in SITES:
        image, truth = draw(SlideRecipe(seed=6, side_px=2048, site=site, lesion=True))
        means[site] = colours(image, truth.tissue & ~truth.lesion, truth.scale)
        lesion = colours(image, truth.lesion, truth.scale)
        assert np.abs(lesion - means[site]).max() < 30
    assert np.abs(means["north"] - means["south"]).max() > 8


@pytest.mark.parametrize("pen", ["red", "green", "blue", "black"])
def test_ink_lies_where_the_truth_says(pen: str) -> None:
    plain, _ = draw(SlideRecipe(seed=8, side_px=SMALL))
    inked, truth = draw(SlideRecipe(seed=8, side_px=SMALL, pen=pen))  # type: ignore[arg-type]
    changed = np.abs(plain.astype(int) - inked).max(2) > 40
    step = int(truth.scale)
    cells = changed.reshape(SMALL // step, step, SMALL // step, step).mean((1, 3)) > 0.5
    assert 0.005 < truth.pen.mean() < 0.2
    assert (cells & truth.pen).sum() / (cells | truth.pen).sum() > 0.8


def test_a_blurred_region_has_lost_its_detail_and_holds_no_lesion() -> None:
    recipe = SlideRecipe(seed=9, side_px=2048, lesion=True)
    sharp, _ = draw(recipe)
    image, truth = draw(SlideRecipe(seed=9, side_px=2048, lesion=True, blur=True))
    assert truth.blur.any()
    assert not (truth.blur & truth.lesion).any()
    where = np.kron(truth.blur & truth.tissue, np.ones((8, 8), bool))
    detail = [np.abs(np.diff(i[..., 1].astype(int), axis=0))[where[1:]].mean() for i in (sharp, image)]
    assert detail[1] < 0.4 * detail[0]


def test_a_fold_is_darker_than_what_lay_there() -> None:
    flat, _ = draw(SlideRecipe(seed=10, side_px=2048))
    folded, truth = draw(SlideRecipe(seed=10, side_px=2048, fold=True))
    assert truth.fold.any()
    assert colours(folded, truth.fold, 8).mean() < colours(flat, truth.fold, 8).mean() - 30


@pytest.mark.parametrize("side", [0, 256, 1000])
def test_an_impossible_size_is_refused_with_the_accepted_ones(side: int) -> None:
    with pytest.raises(SettingsError, match="multiple of 256"):
        SlideRecipe(side_px=side)


def test_an_unknown_site_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="north"):
        SlideRecipe(site="west")
