from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coverslip.base.errors import SlideError
from coverslip.slide.stain import (
    HED,
    REFERENCE,
    combine,
    estimate_stains,
    normalise_stains,
    optical_density,
    separate,
    stain_images,
)


def stained(directions: np.ndarray, seed: int = 0, white: float = 240.0) -> tuple[np.ndarray, np.ndarray]:
    """An image made of known amounts of two stains; many pixels hold nearly one alone."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0.3, 2.0, (2, 120 * 120))
    amounts[0, : 120 * 50] *= 0.01
    amounts[1, 120 * 70 :] *= 0.01
    light = white * np.exp(-directions @ amounts) - 1
    return np.clip(np.rint(light), 0, 255).astype(np.uint8).T.reshape(120, 120, 3), amounts


def test_clear_glass_has_no_density_and_a_tenth_of_the_light_has_one() -> None:
    rgb = np.array([[[255, 255, 255], [26, 26, 26]]], np.uint8)
    assert optical_density(rgb)[0, 0].tolist() == [0, 0, 0]
    assert optical_density(rgb)[0, 1] == pytest.approx(1, abs=0.01)


def test_each_stain_alone_is_found_alone() -> None:
    for stain in range(3):
        amounts = np.zeros((1, 1, 3), np.float32)
        amounts[..., stain] = 0.6
        assert separate(combine(amounts))[0, 0] == pytest.approx(amounts[0, 0], abs=0.02)


def test_the_fixed_directions_are_the_published_ones() -> None:
    assert np.linalg.norm(HED, axis=1) == pytest.approx([1, 1, 1])
    assert HED[0] / HED[0, 0] == pytest.approx(np.array([0.65, 0.704, 0.286]) / 0.65)


def test_combining_undoes_separating() -> None:
    rgb = np.random.default_rng(0).integers(1, 256, (20, 20, 3), dtype=np.uint8)
    assert np.abs(combine(separate(rgb)).astype(int) - rgb).max() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_known_stains_are_estimated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = REFERENCE.directions + rng.uniform(-0.05, 0.05, (3, 2))
    truth /= np.linalg.norm(truth, axis=0)
    found = estimate_stains(stained(truth, seed)[0])
    cosine = (found.directions * truth).sum(axis=0)
    assert (cosine > 0.998).all()


def test_an_image_in_its_own_colours_hardly_changes() -> None:
    image, _ = stained(REFERENCE.directions / np.linalg.norm(REFERENCE.directions, axis=0))
    own = estimate_stains(image)
    assert np.abs(normalise_stains(image, own, source=own).astype(int) - image).max() <= 3


def test_two_laboratories_become_alike() -> None:
    one = np.array([[0.65, 0.10], [0.70, 0.95], [0.29, 0.25]])
    other = np.array([[0.55, 0.25], [0.75, 0.85], [0.36, 0.45]])
    one, other = one / np.linalg.norm(one, axis=0), other / np.linalg.norm(other, axis=0)
    a, b = stained(one)[0], stained(other)[0]
    before = np.abs(a.astype(int) - b).mean()
    after = np.abs(normalise_stains(a).astype(int) - normalise_stains(b)).mean()
    assert after < before / 4


def test_glass_has_no_stains_to_find() -> None:
    with pytest.raises(SlideError, match="stained") as caught:
        estimate_stains(np.full((50, 50, 3), 245, np.uint8))
    assert caught.value.code == "no_tissue"


@pytest.mark.data
def test_the_published_example_is_reproduced(test_data: Path) -> None:
    def read(name: str) -> np.ndarray:
        return np.array(Image.open(test_data / "stain" / name).convert("RGB")).astype(int)

    example = read("example1.png").astype(np.uint8)
    assert np.array_equal(normalise_stains(example), read("norm1.png"))
    haematoxylin, eosin = stain_images(example)
    # The reference rounds in another order: 51 of three million values differ, by one.
    assert np.abs(haematoxylin - read("norm1_H.png")).max() <= 1
    assert np.abs(eosin - read("norm1_E.png")).max() <= 1
