"""Brightfield tissue passes; the dark, the empty and the colourless are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coverslip.preflight.content import content, overview
from coverslip.slide import Slide


def codes(image: np.ndarray, mpp: float | None = 8.0) -> list[str]:
    return [finding.code for finding in content(image, mpp)]


def test_stained_tissue_on_glass_is_fine_with_and_without_a_scale(picture: np.ndarray) -> None:
    assert codes(picture[::8, ::8], 4.0) == []
    assert codes(picture[::4, ::4], None) == []


def test_empty_glass_has_no_tissue() -> None:
    rng = np.random.default_rng(0)
    glass = np.clip(rng.normal(242, 2, (256, 256, 3)), 0, 255).astype(np.uint8)
    assert codes(glass) == ["no_tissue"]
    assert codes(np.full((64, 64, 3), 255, np.uint8), None) == ["no_tissue"]


def test_the_dark_is_fluorescence_and_not_empty() -> None:
    rng = np.random.default_rng(0)
    dark = rng.poisson(8, (256, 256, 3)).astype(np.uint8)
    dark[60:100, 60:100, 2] = 220
    assert codes(dark) == ["not_brightfield"]


def test_a_single_channel_is_not_brightfield_however_bright() -> None:
    image = np.zeros((128, 128, 3), np.uint8)
    image[..., 1] = np.random.default_rng(0).integers(60, 255, (128, 128))
    assert codes(image) == ["not_brightfield"]


def test_a_picture_without_colour_is_told(picture: np.ndarray) -> None:
    grey = np.repeat(picture[::8, ::8].mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    assert codes(grey, 4.0) == ["not_brightfield"]


def test_black_filling_around_a_scan_is_no_fluorescence(picture: np.ndarray) -> None:
    small = picture[::8, ::8]
    side = small.shape[0]
    filled = np.zeros((2 * side, 2 * side, 3), np.uint8)
    filled[:side, :side] = small
    assert codes(filled, 4.0) == []


def test_the_overview_is_at_the_scale_of_tissue_finding(slide_file: Path) -> None:
    with Slide.open(slide_file) as slide:
        image, mpp = overview(slide)
    assert max(image.shape) == 256
    assert mpp == pytest.approx(0.5 * 1536 / 256)
