"""Pictures as data URIs: small enough to mail, and without the metadata of their files."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MAP_PX = 900
OVERVIEW_PX = 360
TILE_PX = 168


@dataclass(frozen=True)
class Picture:
    """An image inside the page: its data URI and its size in pixels."""

    uri: str
    width: int
    height: int


def picture(path: Path | None, max_px: int) -> Picture | None:
    """The image, no side longer than `max_px`; None where there is none or it cannot be decoded.

    Pixels are always encoded anew, so EXIF, XMP and text chunks of the file stay behind.
    """
    if path is None:
        return None
    try:
        with Image.open(path) as image:
            image.draft("RGB", (max_px, max_px))
            pixels = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # one damaged picture is told in its place; it does not take the report with it
    pixels.thumbnail((max_px, max_px), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    pixels.save(buffer, "WEBP", quality=80, method=4)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:image/webp;base64,{encoded}", *pixels.size)
