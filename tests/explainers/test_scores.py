from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from coverslip.base.errors import SlideError
from coverslip.explainers import TileScores
from coverslip.explainers.colours import colours_of
from coverslip.explainers.picture import nice_length_um, paint
from coverslip.slide import Slide


def scores(values: list[float], *, signed: bool = True, mpp: float | None = 0.5) -> TileScores:
    xy = np.array([[i * 448, 0] for i in range(len(values))], np.int32)
    kind = "evidence" if signed else "attention"
    return TileScores("s", xy, 448.0, np.array(values, np.float32), kind, "lesion", signed, mpp)


def test_top_and_bottom_tiles_are_in_order_and_ties_are_stable() -> None:
    found = scores([0.5, 2.0, -1.0, 2.0])
    assert found.top(3).tolist() == [1, 3, 0]
    assert found.bottom(2).tolist() == [2, 0]
    assert found.top(99).tolist() == [1, 3, 0, 2]


def test_overlapping_tiles_are_averaged_and_gaps_are_empty() -> None:
    xy = np.array([[0, 0], [2, 0], [8, 3]], float)
    grid = paint((5, 12), xy, 4.0, np.array([1.0, 3.0, 7.0]))
    assert grid[0, :7].tolist()[:6] == [1, 1, 2, 2, 3, 3]
    assert np.isnan(grid[0, 6])
    assert np.isnan(grid[4, 0])
    assert (grid[3:5, 8:12] == 7).all()


@pytest.mark.parametrize("seed", range(5))
def test_painting_is_the_mean_over_the_tiles_of_each_pixel(seed: int) -> None:
    random = np.random.default_rng(seed)
    xy, values = random.uniform(-3, 22, (30, 2)), random.standard_normal(30)
    grid = paint((20, 25), xy, 5.3, values)
    left, top = np.rint(xy).T
    right, low = np.rint(xy + 5.3).T
    for y in range(20):
        for x in range(25):
            over = (left <= x) & (x < right) & (top <= y) & (y < low)
            assert (
                np.isnan(grid[y, x]) if not over.any() else grid[y, x] == pytest.approx(values[over].mean(), abs=1e-9)
            )


def test_geojson_is_one_detection_a_tile_in_level_0_pixels() -> None:
    found = json.loads(json.dumps(scores([1.5, -2.0]).geojson()))
    assert found["type"] == "FeatureCollection"
    first, second = found["features"]
    assert second["geometry"]["coordinates"] == [[[448, 0], [896, 0], [896, 448], [448, 448], [448, 0]]]
    assert first["properties"]["objectType"] == "detection"
    assert first["properties"]["measurements"] == {"evidence for lesion": 1.5}
    assert first["properties"]["classification"]["name"] == "lesion"
    assert second["properties"]["classification"]["name"] == "not lesion"
    red, _, blue = first["properties"]["color"]
    assert red > blue, "for is warm"


def test_parquet_holds_position_score_and_kind(tmp_path: Path) -> None:
    scores([1.5, -2.0]).parquet(tmp_path / "s.parquet")
    table = pd.read_parquet(tmp_path / "s.parquet")
    assert table[["x", "y", "span", "score", "kind"]].to_numpy().tolist() == [
        [0, 0, 448.0, 1.5, "evidence"],
        [448, 0, 448.0, -2.0, "evidence"],
    ]


def test_a_slide_with_equal_scores_can_be_drawn() -> None:
    for values in ([0.0, 0.0], [1.0, 1.0]):
        for signed in (True, False):
            assert scores(values, signed=signed).image().size[0] >= 112


def test_the_map_is_drawn_over_the_slide_where_the_tiles_lie(tmp_path: Path) -> None:
    path = tmp_path / "s.png"
    Image.fromarray(np.full((900, 1800, 3), 200, np.uint8)).save(path)
    with Slide.open(path, mpp=0.5) as slide:
        picture = np.asarray(scores([1.0, -1.0], mpp=None).image(slide, mpp=2.0)).astype(int)
    warm, cold, bare = picture[50, 50], picture[50, 112 + 50], picture[50, 300]
    assert warm[0] > warm[2]
    assert cold[2] > cold[0]
    assert bare[0] == bare[1] == bare[2]
    assert picture.shape[0] > 225, "the footer is below the slide"


def test_without_any_scale_there_is_no_picture() -> None:
    with pytest.raises(SlideError, match="no µm per pixel"):
        scores([1.0], mpp=None).image()


@pytest.mark.parametrize(("width_um", "length_um"), [(4000, 1000), (2100, 500), (799, 100), (36000, 5000)])
def test_the_scale_bar_has_a_round_length(width_um: float, length_um: float) -> None:
    assert nice_length_um(width_um) == pytest.approx(length_um)


def test_the_sequential_scale_gets_lighter_evenly_and_the_signed_one_is_pale_in_the_middle() -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])
    light = (colours_of(np.linspace(0, 1, 256), signed=False) / 255) ** 2.2 @ weights
    assert (np.diff(light) > -0.004).all()
    signed = (colours_of(np.linspace(0, 1, 256), signed=True) / 255) ** 2.2 @ weights
    assert signed.argmax() in range(120, 136)
    # To the eye (the cube root of luminance) equal steps are equal.
    steps = np.diff(np.cbrt(light)[::16])
    assert steps.std() < 0.35 * steps.mean()


def test_scores_off_the_scale_get_the_colour_of_its_end() -> None:
    ends = colours_of(np.array([-3.0, 0.0, 1.0, 9.0]), signed=True)
    assert (ends[0] == ends[1]).all()
    assert (ends[2] == ends[3]).all()
