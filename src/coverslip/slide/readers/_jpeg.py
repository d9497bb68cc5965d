"""Strict decoding of JPEG tiles whose colour is decided by the stream itself.

A tag outside the stream (PhotometricInterpretation in DICOM and TIFF) says whether pixels are RGB or YCbCr, and in
files in the wild it is sometimes wrong. The stream knows better: chroma that is subsampled is never RGB, a JFIF
header means YCbCr, an Adobe marker and the component ids R, G, B say what they say (ITU-T T.81, T.871 and T.872). The
tag is asked only where the stream is silent.

Decoding is strict: a stream that ends early or has broken codes is an error, where most decoders fill in grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

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
    transform of an Adobe marker, None without one; `app_spans` where JFIF and Adobe markers lie in the stream; `end` is
    the byte behind the frame header."""

    size: Size
    precision: int
    frame: int
    components: tuple[int, ...]
    sampling: tuple[tuple[int, int], ...]
    jfif: bool
    adobe: int | None
    app_spans: tuple[tuple[int, int], ...]
    end: int

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
                end=end,
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


@dataclass(frozen=True)
class _Start:
    """How streams that begin with the bytes `before` are decoded: `after` in place of those bytes."""

    before: bytes
    after: bytes
    size: Size


@final
class JpegDecoder:
    """Decodes the JPEG streams of one image, strictly.

    `tables` is a stream with the quantisation and Huffman tables (TIFF stores them once). `tag` is what the file around
    the streams says of their colour. The tiles of an image begin with the same bytes, up to the end of the frame
    header; those are looked through once, not for every tile.
    """

    def __init__(self, *, tables: bytes | None = None, tag: Colour | None = None) -> None:
        self._tables, self._tag = b"", tag
        if tables:
            end = tables.rfind(b"\xff\xd9")
            self._tables = tables[2:end] if end >= 0 else tables[2:]
        self._start: _Start | None = None

    def decode(
        self, stream: bytes, size: Size, *, halvings: int = 0, out: UInt8[ndarray, n] | None = None
    ) -> UInt8[ndarray, "h w 3"]:
        """The RGB pixels of a stream of exactly `size`; greyscale is repeated.

        `halvings` has the decoder halve the picture so many times (1 to 3), by leaving out frequencies; odd sides are
        rounded up. The pixels lie in `out` where that is given.

        Raises:
            ValueError: damaged, cut short, of another size, or of a kind that is not 8-bit grey, RGB or YCbCr.
        """
        start = self._start
        if start is None or not stream.startswith(start.before):
            start = self._start = self._begun(stream)
        if start.size != size:
            raise ValueError(f"the JPEG is {_sides(start.size)} px, {_sides(size)} were promised")
        if start.after != start.before:
            stream = b"".join((start.after, memoryview(stream)[len(start.before) :]))
        # simplejpeg takes the smallest picture that is no smaller than this.
        width, height = (-(-size.width >> halvings), -(-size.height >> halvings)) if halvings else (0, 0)
        return simplejpeg.decode_jpeg(
            stream, colorspace="RGB", min_width=width, min_height=height, buffer=out, strict=True
        )

    def _begun(self, stream: bytes) -> _Start:
        header = read_header(stream)
        if header.precision != 8 or header.frame not in _DECODED_FRAMES or len(header.components) not in {1, 3}:
            raise ValueError(
                f"a JPEG of {len(header.components)} components, {header.precision} bits and coding 0x{header.frame:x}"
            )
        before, kept, marker = stream[: header.end], stream[: header.end], b""
        if len(header.components) == 3:
            colour = stream_colour(header) or self._tag or "ycbcr"
            if colour != _libjpeg_guess(header):
                kept, marker = _without(before, header.app_spans), _adobe_marker(colour)
        return _Start(before, _SOI + marker + self._tables + kept[2:], header.size)


def decode_jpeg(
    stream: bytes, *, size: Size, tables: bytes | None = None, tag: Colour | None = None
) -> UInt8[ndarray, "h w 3"]:
    """The RGB pixels of one JPEG stream of exactly `size`: `JpegDecoder` for a picture that stands alone.

    Raises:
        ValueError: as `JpegDecoder.decode`.
    """
    return JpegDecoder(tables=tables, tag=tag).decode(stream, size)


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
