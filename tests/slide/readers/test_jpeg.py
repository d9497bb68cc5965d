from __future__ import annotations

import io
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from coverslip.base.geometry import Size
from coverslip.slide.readers._jpeg import decode_jpeg, read_header, stream_colour

SIZE = Size(64, 48)


@pytest.fixture(scope="module")
def image(picture: Callable[..., np.ndarray]) -> np.ndarray:
    return picture(48, 64)


def without_markers(stream: bytes) -> bytes:
    """The stream without JFIF and Adobe markers."""
    for start, end in reversed(read_header(stream).app_spans):
        stream = stream[:start] + stream[end:]
    return stream


def with_ids(stream: bytes, ids: bytes) -> bytes:
    """The stream with other component ids in frame and scan header."""
    old = bytes(read_header(stream).components)
    out = bytearray(stream)
    for marker, first in ((b"\xff\xc0", 10), (b"\xff\xda", 5)):
        at = out.index(marker)
        step = 3 if marker == b"\xff\xc0" else 2
        for k in range(3):
            assert out[at + first + step * k] == old[k]
            out[at + first + step * k] = ids[k]
    return bytes(out)


def ycbcr(image: np.ndarray, subsampling: str = "444") -> bytes:
    return simplejpeg.encode_jpeg(image, quality=95, colorsubsampling=subsampling)


def rgb(image: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(image, level=95, colorspace="RGB", outcolorspace="RGB")


def near(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a.astype(int) - b).mean() < 3)


def test_it_equals_pillow_to_the_last_bit(image: np.ndarray) -> None:
    for stream in (ycbcr(image), ycbcr(image, "420"), ycbcr(image, "422"), rgb(image)):
        expected = np.array(Image.open(io.BytesIO(stream)).convert("RGB"))
        assert np.array_equal(decode_jpeg(stream, size=SIZE), expected)


@pytest.mark.parametrize("tag", ["rgb", "ycbcr", None])
def test_a_stream_that_says_its_colour_is_believed_whatever_the_tag(image: np.ndarray, tag: str | None) -> None:
    bare = without_markers(rgb(image))
    streams = {
        "JFIF": ycbcr(image),
        "subsampled, no marker": without_markers(ycbcr(image, "420")),
        "Adobe, no transform": with_ids(rgb(image), b"\1\2\3"),
        "components named RGB": bare,
    }
    for name, stream in streams.items():
        assert near(decode_jpeg(stream, size=SIZE, tag=tag), image), name  # type: ignore[arg-type]


def test_subsampled_chroma_is_never_rgb_even_where_an_adobe_marker_says_so(image: np.ndarray) -> None:
    stream = without_markers(ycbcr(image, "422"))
    lying = stream[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00" + stream[2:]
    assert near(decode_jpeg(lying, size=SIZE, tag="rgb"), image)


def test_a_silent_stream_is_what_the_tag_says(image: np.ndarray) -> None:
    for ids in (b"\0\1\2", b"\1\2\3"):
        silent_rgb = with_ids(without_markers(rgb(image)), ids)
        silent_ycbcr = with_ids(without_markers(ycbcr(image)), ids)
        assert stream_colour(read_header(silent_rgb)) is None
        assert near(decode_jpeg(silent_rgb, size=SIZE, tag="rgb"), image)
        assert near(decode_jpeg(silent_ycbcr, size=SIZE, tag="ycbcr"), image)
        assert near(decode_jpeg(silent_ycbcr, size=SIZE), image)
        assert not near(decode_jpeg(silent_rgb, size=SIZE, tag="ycbcr"), image)


def test_grey_is_repeated(image: np.ndarray) -> None:
    stream = simplejpeg.encode_jpeg(np.ascontiguousarray(image[..., :1]), colorspace="GRAY")
    decoded = decode_jpeg(stream, size=SIZE, tag="rgb")
    assert decoded.shape == (48, 64, 3) and (decoded[..., 0] == decoded[..., 2]).all()


def test_tables_that_are_stored_apart_are_put_back(image: np.ndarray) -> None:
    stream = without_markers(ycbcr(image))
    at, tables, rest = 2, b"", b""
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at + 1] in {0xDB, 0xC4}:
            tables += stream[at:end]
        else:
            rest += stream[at:end]
        at = end
    abbreviated = b"\xff\xd8" + rest + stream[at:]
    stored = b"\xff\xd8" + tables + b"\xff\xd9"
    assert np.array_equal(decode_jpeg(abbreviated, size=SIZE, tables=stored), decode_jpeg(stream, size=SIZE))
    with pytest.raises(ValueError):
        decode_jpeg(abbreviated, size=SIZE)


@pytest.mark.parametrize("keep", [0, 1, 2, 20, 100, 0.5, 0.9, -3, -2])
def test_a_stream_that_ends_early_is_an_error(image: np.ndarray, keep: float) -> None:
    stream = ycbcr(image)
    cut = stream[: int(len(stream) * keep)] if isinstance(keep, float) else stream[:keep]
    with pytest.raises(ValueError):
        decode_jpeg(cut, size=SIZE)


@pytest.mark.parametrize("size", [Size(32, 48), Size(64, 96), Size(48, 64)])
def test_a_stream_of_another_size_is_an_error(image: np.ndarray, size: Size) -> None:
    with pytest.raises(ValueError, match="64 x 48 px"):
        decode_jpeg(ycbcr(image), size=size)


def test_four_colours_are_an_error(image: np.ndarray) -> None:
    out = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(out, "JPEG")
    with pytest.raises(ValueError, match="4 components"):
        decode_jpeg(out.getvalue(), size=SIZE)


def test_flipped_bytes_never_crash(image: np.ndarray) -> None:
    stream = ycbcr(image, "420")
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(stream)
        broken[rng.integers(2, len(stream))] ^= 1 << rng.integers(8)
        try:
            decoded = decode_jpeg(bytes(broken), size=SIZE)
        except ValueError:
            continue
        assert decoded.shape == (48, 64, 3)
