"""Plain images through Pillow: PNG, JPEG, BMP, WebP, GIF. One level, no scale of their own, held in memory."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Box, Size
from coverslip.slide.reader import Reader, SlideInfo
from coverslip.slide.readers._jpeg import decode_jpeg

ENTRIES = {
    "image": {
        "build": "ImageReader",
        "summary": "PNG, JPEG, BMP, WebP, GIF",
        "origin": "https://python-pillow.github.io",
        "licence": "MIT-CMU",
        "needs": "",
    }
}

_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF8", b"RIFF")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "MPO")
_MODES = {"RGB", "RGBA", "L", "LA", "P", "PA", "RGBX"}


class ImageReader(Reader):
    def __init__(self, path: Path) -> None:
        with warnings.catch_warnings():
            # Pillow warns at half of the size at which it refuses; only the refusal matters here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            try:
                with Image.open(path, formats=_FORMATS) as image:
                    self._pixels = _decode(image, path)
                    form, icc, dpi = image.format or "image", image.info.get("icc_profile"), image.info.get("dpi")
            except Image.DecompressionBombError as error:
                raise SlideError(
                    f"A plain image of this size would not fit in memory ({error}).",
                    fix="Convert it to a tiled, pyramidal TIFF.",
                    code="unreadable",
                ) from error
        height, width = self._pixels.shape[:2]
        self.info = SlideInfo(
            levels=(Size(width, height),),
            vendor=form.lower(),
            # Dots per inch of a plain image are a print setting, never the scale of the tissue.
            properties={"image.format": form} | ({"image.dpi": str(dpi)} if dpi else {}),
            icc=icc,
        )

    @classmethod
    def sees(cls, path: Path) -> bool:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(16).startswith(_MAGIC)

    def read_level(self, level: int, box: Box) -> UInt8[ndarray, "h w 3"]:
        return self._pixels[box.y : box.y + box.height, box.x : box.x + box.width]

    def associated_image(self, name: str) -> UInt8[ndarray, "h w 3"]:
        raise KeyError(name)

    def close(self) -> None:
        del self._pixels


def _decode(image: Image.Image, path: Path) -> UInt8[ndarray, "h w 3"]:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise SlideError(
            f"The image has {frames} frames.", fix="Give one image, not a film or a stack.", code="extra_axes"
        )
    if image.mode not in _MODES:
        raise SlideError(
            f"Pixels are stored as {image.mode!r}.", fix="Convert the image to 8-bit RGB.", code="unreadable"
        )
    if image.format == "JPEG":
        # Pillow fills what is missing of a damaged JPEG with grey; the strict decoder says so.
        return decode_jpeg(path.read_bytes(), size=Size(*image.size))
    try:
        image.load()
    except OSError as error:
        if "truncated" not in str(error) and "broken" not in str(error):
            raise
        raise SlideError(f"The image is cut short ({error}).", fix="Copy it again.", code="truncated") from error
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))
