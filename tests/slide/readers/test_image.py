from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Box
from coverslip.slide import Slide


@pytest.fixture(scope="module")
def image(picture: Callable[..., np.ndarray]) -> np.ndarray:
    return picture(40, 60)


def read(path: Path) -> np.ndarray:
    with Slide.open(path) as slide:
        assert slide.reader == "image"
        return slide.read_level(0, Box(0, 0, *slide.size))


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_the_pixels_are_the_files(tmp_path: Path, image: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(image).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(read(path), image)


def test_a_jpeg_equals_pillow(tmp_path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=90)
    assert np.array_equal(read(tmp_path / "a.jpg"), np.array(Image.open(tmp_path / "a.jpg")))


def test_transparency_is_glass_and_never_black(tmp_path: Path, image: np.ndarray) -> None:
    alpha = np.zeros((40, 60, 1), np.uint8)
    alpha[:, 30:] = 255
    Image.fromarray(np.concatenate([np.where(alpha > 0, image, 0), alpha], axis=2)).save(tmp_path / "a.png")
    pixels = read(tmp_path / "a.png")
    assert (pixels[:, :30] == 255).all() and np.array_equal(pixels[:, 30:], image[:, 30:])


def test_grey_and_palette_become_rgb(tmp_path: Path, image: np.ndarray) -> None:
    grey = Image.fromarray(image).convert("L")
    grey.save(tmp_path / "grey.png")
    assert np.array_equal(read(tmp_path / "grey.png"), np.repeat(np.array(grey)[..., None], 3, axis=2))
    palette = Image.fromarray(image).quantize(16)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read(tmp_path / "palette.png"), np.array(palette.convert("RGB")))


def test_dots_per_inch_are_no_scale(tmp_path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(tmp_path / "a.png", dpi=(300, 300))
    with Slide.open(tmp_path / "a.png") as slide:
        assert slide.mpp is None and "image.dpi" in slide.properties
        assert [f.code for f in slide.findings] == ["mpp_missing"]


def test_an_image_that_would_not_fit_in_memory_is_refused(
    tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(image).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(SlideError, match="pyramidal TIFF") as caught:
        Slide.open(tmp_path / "a.png")
    assert caught.value.code == "unreadable"


def test_a_film_is_no_slide(tmp_path: Path, image: np.ndarray) -> None:
    frames = [Image.fromarray(image), Image.fromarray(255 - image)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(SlideError, match="2 frames") as caught:
        Slide.open(tmp_path / "a.gif")
    assert caught.value.code == "extra_axes"


def test_16_bit_grey_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 60), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(SlideError, match="8-bit RGB"):
        Slide.open(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_an_image_that_is_cut_short_is_refused(tmp_path: Path, image: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(image).save(path)
    data = path.read_bytes()
    for part in (0.1, 0.5, 0.9):
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(SlideError) as caught:
            Slide.open(path)
        assert caught.value.code in {"truncated", "unreadable"}
