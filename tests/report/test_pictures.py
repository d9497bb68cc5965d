"""Pictures in the page: small, and without what their files say beside the pixels."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from coverslip.report.pictures import picture


def decoded(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_large_picture_becomes_small_and_keeps_its_shape(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 1500), (200, 120, 180)).save(tmp_path / "a.png")
    found = picture(tmp_path / "a.png", 900)
    assert found is not None and (found.width, found.height) == (900, 450)
    assert decoded(found.uri).size == (900, 450)
    assert np.abs(np.asarray(decoded(found.uri).convert("RGB"), int) - (200, 120, 180)).max() < 6


def test_a_small_picture_is_not_blown_up(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    found = picture(tmp_path / "a.jpg", 900)
    assert found is not None and (found.width, found.height) == (40, 30)


def test_no_metadata_of_the_file_travels(tmp_path: Path) -> None:
    image = Image.effect_noise((64, 64), 50).convert("RGB")
    exif = Image.Exif()
    exif[0x010E] = "Doe Jane 1961"
    image.save(tmp_path / "a.jpg", exif=exif)
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "Doe Jane 1961")
    image.save(tmp_path / "a.png", pnginfo=text)
    for name in ("a.jpg", "a.png"):
        found = picture(tmp_path / name, 64)
        assert found is not None
        assert b"Doe" not in base64.b64decode(found.uri.partition(",")[2])


def test_a_damaged_or_missing_picture_is_none(tmp_path: Path) -> None:
    (tmp_path / "noise.jpg").write_bytes(b"\xff\xd8 not a picture")
    buffer = io.BytesIO()
    Image.effect_noise((400, 400), 80).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[:500])
    assert picture(tmp_path / "noise.jpg", 90) is None
    assert picture(tmp_path / "cut.jpg", 90) is None
    assert picture(tmp_path / "absent.jpg", 90) is None
    assert picture(None, 90) is None
