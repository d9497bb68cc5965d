"""Small slides whose every pixel is known, in the formats that readers read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import dicom_files


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Pink and violet blobs: smooth enough for JPEG, different everywhere."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    image = np.empty((height, width, 3))
    for channel, base in enumerate((200, 140, 190)):
        waves = np.zeros((height, width))
        for _ in range(3):
            waves += np.sin(x * rng.uniform(0.02, 0.2) + rng.uniform(0, 6)) * np.cos(y * rng.uniform(0.02, 0.2))
        image[..., channel] = base + 15 * waves
    return np.clip(image, 0, 255).astype(np.uint8)


def halved(image: np.ndarray) -> np.ndarray:
    """The image at half the size, odd rows and columns dropped."""
    h, w = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    blocks = image[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).astype(np.uint32)
    return ((blocks.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8)


def pyramid(image: np.ndarray, levels: int) -> list[np.ndarray]:
    found = [image]
    while len(found) < levels:
        found.append(halved(found[-1]))
    return found


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    return texture


@pytest.fixture(scope="session")
def make_pyramid() -> Callable[[np.ndarray, int], list[np.ndarray]]:
    return pyramid


@pytest.fixture(scope="session")
def write_tiff() -> Callable[..., Path]:
    """Writes levels as pages of falling size (or SubIFDs) and returns the path."""

    def write(
        path: Path, levels: Sequence[np.ndarray], *, mpp: float | None = 0.5, subifds: bool = False, **options: Any
    ) -> Path:
        settings: dict[str, Any] = {"photometric": "rgb", "metadata": None, **options}
        if "rowsperstrip" not in settings:
            settings.setdefault("tile", (64, 64))
        with tifffile.TiffWriter(path, bigtiff=settings.pop("bigtiff", False), ome=settings.pop("ome", False)) as tif:
            for number, level in enumerate(levels):
                scale = {} if mpp is None else {"resolution": (1e4 / mpp / 2**number,) * 2, "resolutionunit": 3}
                where = {"subifds": len(levels) - 1 if number == 0 else None} if subifds else {}
                tif.write(level, subfiletype=1 if number else 0, **scale, **where, **settings)
                if number == 0:
                    settings.pop("description", None)
        return path

    return write


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., Path]:
    return dicom_files.write_dicom
