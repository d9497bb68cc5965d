"""Strict decoding of JPEG tiles whose colour is decided by the stream itself.

A tag outside the stream (PhotometricInterpretation in DICOM and TIFF) says whether pixels are RGB or YCbCr, and in
files in the wild it is sometimes wrong. The stream knows better: chroma that is subsampled is never RGB, a JFIF
header means YCbCr, an Adobe marker and the component ids R, G, B say what they say (ITU-T T.81, T.871 and T.872). The
tag is asked only where the stream is silent.

Decoding is strict: a stream that ends early or has broken codes is an error, where most decoders fill in grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import simplejpeg
from jaxtyping import UInt8
from numpy import ndarray

from coverslip.base.geometry import Size

Colour = Literal["rgb", "ycbcr"]

_SOI = b"\xff\xd8"
_ADOBE = b"Adobe"
# Baseline, extended and progressive Huffman coding: what the decoder does. 0xC4, 0xC8 and 0xCC are no frame headers.
_DECODED_FRAMES = {0xC0, 0xC1, 0xC2}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class JpegHeader:
    """What stands before the first scan. `sampling` is (horizontal, vertical) of each component; `adobe` the
    transform of an Adobe marker, None without one; `app_spans` where JFIF and Adobe markers lie in the stream."""

    size: Size
    precision: int
    frame: int
    components: tuple[int, ...]
    sampling: tuple[tuple[int, int], ...]
    jfif: bool
    adobe: int | None
    app_spans: tuple[tuple[int, int], ...]

    @property
    def subsampled(self) -> bool:
        return len(set(self.sampling)) > 1


def read_header(stream: bytes) -> JpegHeader:
    """The header of a JPEG stream.

    Raises:
        ValueError: it is no JPEG, or ends before its first scan.
    """
    if stream[:2] != _SOI:
        raise ValueError(f"no JPEG stream: it begins with {stream[:4].hex(' ')}")
    at, jfif, adobe, spans = 2, False, None, []
    while at + 4 <= len(stream):
        if stream[at] != 0xFF:
            raise ValueError(f"the JPEG stream has no marker at byte {at}")
        marker = stream[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without content
            at += 2
            continue
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        body = stream[at + 4 : end]
        if marker == 0xE0 and body[:5] == b"JFIF\0":
            jfif = True
            spans.append((at, end))
        elif marker == 0xEE and body[:5] == _ADOBE and len(body) >= 12:
            adobe = body[11]
            spans.append((at, end))
        elif marker in _FRAMES:
            count = body[5] if len(body) >= 6 else 0
            if count == 0 or len(body) < 6 + 3 * count:
                raise ValueError("the JPEG frame header is cut short")
            parts = [body[6 + 3 * i : 9 + 3 * i] for i in range(count)]
            return JpegHeader(
                size=Size(int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")),
                precision=body[0],
                frame=marker,
                components=tuple(p[0] for p in parts),
                sampling=tuple((p[1] >> 4, p[1] & 15) for p in parts),
                jfif=jfif,
                adobe=adobe,
                app_spans=tuple(spans),
            )
        elif marker in {0xD9, 0xDA}:
            break
        at = end
    raise ValueError("the JPEG stream has no frame header")


def stream_colour(header: JpegHeader) -> Colour | None:
    """What the stream says its three components are; None where it is silent."""
    if header.subsampled or header.jfif:
        return "ycbcr"
    if header.adobe is not None:
        return "rgb" if header.adobe == 0 else "ycbcr"
    if bytes(header.components) == b"RGB":
        return "rgb"
    return None


def decode_jpeg(
    stream: bytes, *, size: Size, tables: bytes | None = None, tag: Colour | None = None
) -> UInt8[ndarray, "h w 3"]:
    """The RGB pixels of a JPEG stream of exactly `size`; greyscale is repeated.

    `tables` is a second stream with the quantisation and Huffman tables (TIFF stores them once). `tag` is what the
    file around the stream says of its colour.

    Raises:
        ValueError: damaged, cut short, of another size, or of a kind that is not 8-bit grey, RGB or YCbCr.
    """
    header = read_header(stream)
    if header.size != size:
        raise ValueError(f"the JPEG is {_sides(header.size)} px, {_sides(size)} were promised")
    if header.precision != 8 or header.frame not in _DECODED_FRAMES or len(header.components) not in {1, 3}:
        raise ValueError(
            f"a JPEG of {len(header.components)} components, {header.precision} bits and coding 0x{header.frame:x}"
        )
    prefix = b""
    if len(header.components) == 3:
        colour = stream_colour(header) or tag or "ycbcr"
        if colour != _libjpeg_guess(header):
            stream, prefix = _without(stream, header.app_spans), _adobe_marker(colour)
    if tables:
        prefix += tables[2 : tables.rfind(b"\xff\xd9")] if b"\xff\xd9" in tables else tables[2:]
    if prefix:
        stream = _SOI + prefix + stream[2:]
    return simplejpeg.decode_jpeg(stream, colorspace="RGB", strict=True)


def _libjpeg_guess(header: JpegHeader) -> Colour:
    """What libjpeg takes a three-component stream for when nobody tells it."""
    if header.jfif:
        return "ycbcr"
    if header.adobe is not None:
        return "rgb" if header.adobe == 0 else "ycbcr"
    return "rgb" if bytes(header.components) == b"RGB" else "ycbcr"


def _adobe_marker(colour: Colour) -> bytes:
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + (b"\x00" if colour == "rgb" else b"\x01")


def _without(stream: bytes, spans: tuple[tuple[int, int], ...]) -> bytes:
    for start, end in reversed(spans):
        stream = stream[:start] + stream[end:]
    return stream


def _sides(size: Size) -> str:
    return f"{size.width} x {size.height}"
