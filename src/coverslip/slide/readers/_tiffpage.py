"""One image of a TIFF file: where its tiles or strips lie, and how one becomes RGB.

tifffile reads the directory once; from then on pixels are read by position. tifffile and imagecodecs fill a JPEG that
was cut in half with grey and say nothing, so every piece is checked before and after decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Int64, UInt8
from numpy import ndarray

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Size
from coverslip.slide.readers._files import FileBytes
from coverslip.slide.readers._jpeg import Colour, JpegDecoder

_UNCOMPRESSED = 1
_JPEG = 7
_JPEG2000 = frozenset({33003, 33004, 33005, 34712})
_JPEG2000_YCBCR = 33003
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6

# A strip that decodes to more than this is not held in memory.
_MAX_PIECE_BYTES = 512 << 20
# Uncompressed strips are read in shares of about this size.
_SHARE_BYTES = 1 << 20

_CONVERT = "Convert it to a tiled, pyramidal, 8-bit RGB TIFF."


class TiffPage:
    """The pieces of one TIFF image. `size` is the image, `piece` a tile or strip, `columns` and `rows` the grid of
    pieces; `offsets` and `counts` are where they lie, one row of the array a plane (one, or one a sample)."""

    def __init__(self, page: Any) -> None:
        _refuse_what_no_slide_is(page)
        self.size = Size(page.imagewidth, page.imagelength)
        self._photometric = int(page.photometric)
        self._compression = int(page.compression)
        self._samples = int(page.samplesperpixel)
        self._extra = tuple(int(e) for e in page.extrasamples)
        self._jpeg_decoder = JpegDecoder(tables=page.jpegtables, tag=self.tag_colour)
        self._colormap = None if page.colormap is None else np.asarray(page.colormap)
        self._decode: Callable[..., Any] = page.decode
        self._dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        planes = self._samples if int(page.planarconfig) == 2 else 1
        self._plane_samples = self._samples // planes
        if page.is_tiled:
            self.piece = Size(page.tilewidth, page.tilelength)
        else:
            self.piece = Size(self.size.width, min(page.rowsperstrip, self.size.height))
        self.tiled = bool(page.is_tiled)
        self.offsets = _places(page.dataoffsets)
        self.counts = _places(page.databytecounts)
        self._raw = self._compression == _UNCOMPRESSED and int(page.predictor) == 1 and int(page.fillorder) == 1
        if self._raw and not self.tiled and planes == 1:
            self._share_out_strips()
        # What nearly every slide is: the pixels are as they come out of the decoder.
        self._is_rgb_jpeg = self.is_jpeg and planes == 1 and self._samples == 3 and self._photometric != _PALETTE
        self._grid(planes)

    def _share_out_strips(self) -> None:
        """Cuts long uncompressed strips into shorter ones: some programs write a whole image as one strip."""
        row_bytes = self.size.width * self._samples * self._dtype.itemsize
        rows = max(1, _SHARE_BYTES // row_bytes)
        if rows >= self.piece.height:
            return
        starts = np.arange(0, self.piece.height, rows)
        heights = np.minimum(self.piece.height - starts, rows)
        if self.piece.height % rows and len(self.offsets) > 1:
            return  # shares of unequal height would not be a grid
        first = self.offsets[:, None] + starts * row_bytes
        # A count that is too small stays visible as a share that is too small.
        left = self.counts[:, None] - starts * row_bytes
        last = np.minimum(np.maximum(left, 0), heights * row_bytes)
        self.piece = Size(self.size.width, rows)
        needed = -(-self.size.height // rows)
        self.offsets, self.counts = first.ravel()[:needed], last.ravel()[:needed]

    def _grid(self, planes: int) -> None:
        self.columns = -(-self.size.width // self.piece.width)
        self.rows = -(-self.size.height // self.piece.height)
        expected = planes * self.columns * self.rows
        if len(self.offsets) < expected or len(self.counts) < expected:
            raise SlideError(
                f"The file lists {min(len(self.offsets), len(self.counts))} of {expected} pieces of an image.",
                fix="It is damaged: copy it again.",
                code="truncated",
            )
        self.offsets = self.offsets[:expected].reshape(planes, -1)
        self.counts = self.counts[:expected].reshape(planes, -1)
        if self.piece.width * self.piece.height * max(3, self._samples) > _MAX_PIECE_BYTES:
            raise SlideError(
                f"One piece of the image has {self.piece.width} x {self.piece.height} px, too much to hold in memory.",
                fix=_CONVERT,
                code="unreadable",
            )

    @property
    def tag_colour(self) -> Colour | None:
        return {_RGB: "rgb", _YCBCR: "ycbcr"}.get(self._photometric)  # type: ignore[return-value]

    @property
    def is_jpeg(self) -> bool:
        return self._compression == _JPEG

    def stored(self, file: FileBytes) -> Int64[ndarray, n]:
        """The bytes that each piece takes in its first plane; 0 where it was never written or lies outside the file."""
        there = (self.offsets > 0) & (self.counts > 0) & (self.offsets + self.counts <= file.size)
        return np.where(there, self.counts, 0)[0]

    def data(self, file: FileBytes, index: int, plane: int = 0) -> bytes:
        """The stored bytes of one piece.

        Raises:
            SlideError: it was never written, or lies outside the file.
        """
        offset, count = int(self.offsets[plane, index]), int(self.counts[plane, index])
        if offset == 0 or count == 0:
            raise self._lost(index, "was never written")
        if offset + count > file.size:
            raise self._lost(index, f"lies outside the file (byte {offset + count} of {file.size})")
        return file.read(offset, count)

    @property
    def halvings(self) -> int:
        """How often the decoder can halve a piece, so that the halved pieces are a grid again."""
        if not (self.is_jpeg and self.tiled):
            return 0
        return next(k for k in (3, 2, 1, 0) if self.piece.width % 2**k == 0 and self.piece.height % 2**k == 0)

    def pixels(
        self, file: FileBytes, index: int, *, halvings: int = 0, out: UInt8[ndarray, n] | None = None
    ) -> UInt8[ndarray, "h w 3"]:
        """One piece as RGB; a piece at the edge may be smaller than `piece`. `halvings` is up to what the property
        says; the pixels may lie in `out`.

        Raises:
            SlideError: it is missing or damaged.
        """
        if self._is_rgb_jpeg:
            return self._jpeg(self.data(file, index), index, halvings, out)
        planes = [self._plane(self.data(file, index, p), index, halvings, out) for p in range(len(self.offsets))]
        return self._rgb(planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2))

    def _plane(self, data: bytes, index: int, halvings: int, out: ndarray | None) -> ndarray:
        if self._raw:
            return self._unpack(data, index)
        if self.is_jpeg:
            # Planes that are stored apart would lie over each other in one buffer.
            return self._jpeg(data, index, halvings, out if self._plane_samples == self._samples else None)
        if self._compression in _JPEG2000 and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise self._lost(index, "is cut short")
        decoded = self._decode(data, index)[0][0]
        found = Size(decoded.shape[1], decoded.shape[0])
        # Some decoders leave out what lies outside the image.
        if found not in {self._stored_size(index), self._inside(index)}:
            raise self._lost(index, f"has {found.width} x {found.height} px")
        return decoded

    def _jpeg(self, data: bytes, index: int, halvings: int, out: ndarray | None) -> ndarray:
        size = self._stored_size(index)
        try:
            rgb = self._jpeg_decoder.decode(data, size, halvings=halvings, out=out)
        except ValueError as error:
            inside = self._inside(index)
            if inside == size:
                raise self._lost(index, f"is damaged ({error})") from error
            # Some writers store only what lies inside the image of the tiles at its edge.
            try:
                rgb = self._jpeg_decoder.decode(data, inside, halvings=halvings, out=out)
            except ValueError:
                raise self._lost(index, f"is damaged ({error})") from error
        return rgb[..., :1] if self._plane_samples == 1 else rgb

    def _unpack(self, data: bytes, index: int) -> ndarray:
        width, height = self._stored_size(index)
        pixels = np.frombuffer(data[: len(data) // self._dtype.itemsize * self._dtype.itemsize], dtype=self._dtype)
        needed = width * height * self._plane_samples
        if pixels.size < needed:
            raise self._lost(index, f"has {pixels.size} of {needed} values")
        return pixels[:needed].reshape(height, width, self._plane_samples)

    def _stored_size(self, index: int) -> Size:
        return self.piece if self.tiled else self._inside(index)

    def _inside(self, index: int) -> Size:
        row, column = divmod(index, self.columns)
        return Size(
            min(self.piece.width, self.size.width - column * self.piece.width),
            min(self.piece.height, self.size.height - row * self.piece.height),
        )

    def _rgb(self, pixels: ndarray) -> UInt8[ndarray, "h w 3"]:
        """RGB of decoded samples: 16 bits lose the lower 8, grey is repeated, alpha is put on white."""
        if self._photometric == _PALETTE and self._colormap is not None:
            return (self._colormap[:, pixels[..., 0]] >> 8).astype(np.uint8).transpose(1, 2, 0)
        if pixels.dtype.itemsize == 2:
            pixels = (pixels >> 8).astype(np.uint8)
        if self.is_jpeg and pixels.shape[2] == 3:
            return pixels
        if self._photometric == _WHITE_IS_ZERO:
            pixels = 255 - pixels
        if pixels.shape[2] == 1:
            return np.repeat(pixels, 3, axis=2)
        if pixels.shape[2] == 4:
            return _on_white(pixels, self._extra)
        return np.ascontiguousarray(pixels)

    def _lost(self, index: int, what: str) -> SlideError:
        row, column = divmod(index, self.columns)
        kind = f"Tile (column {column}, row {row})" if self.tiled else f"Strip {index}"
        return SlideError(f"{kind} of a {self.size.width} x {self.size.height} px image {what}.", code="decode_failed")


def _places(numbers: Sequence[int]) -> ndarray:
    """Offsets or counts as int64; a number of BigTIFF that is larger lies outside any file, and still does then."""
    try:
        return np.asarray(numbers, dtype=np.int64)
    except OverflowError:
        return np.array([min(number, 1 << 61) for number in numbers], dtype=np.int64)


def _on_white(pixels: UInt8[ndarray, "h w 4"], extra: tuple[int, ...]) -> UInt8[ndarray, "h w 3"]:
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    if extra not in {(1,), (2,)} or alpha.min() == 255:  # 1 is premultiplied alpha, 2 is plain; 0 says nothing
        return np.ascontiguousarray(colour)
    share = alpha.astype(np.float32) / 255
    held = colour.astype(np.float32) if extra == (1,) else colour * share
    return np.clip(np.rint(held + 255 * (1 - share)), 0, 255).astype(np.uint8)


def _refuse_what_no_slide_is(page: Any) -> None:
    if page.imagewidth < 1 or page.imagelength < 1 or 0 in page.shaped:
        raise SlideError("The image in the file is empty.", code="unreadable", fix="It is damaged: copy it again.")
    if int(page.imagedepth) > 1:
        raise SlideError(f"The image is {page.imagedepth} planes deep.", code="extra_axes", fix="Export one plane.")
    samples, photometric, compression = int(page.samplesperpixel), int(page.photometric), int(page.compression)
    if samples not in {1, 3, 4}:
        raise SlideError(
            f"Each pixel has {samples} samples; a slide has 1 (grey), 3 (RGB) or 4 (RGB and alpha).",
            code="extra_axes",
            fix="Export the colour image, or choose three channels.",
        )
    kind = np.dtype(page.dtype) if page.dtype is not None else None
    deep = kind == np.uint16 and photometric in {_RGB, _PALETTE} and samples >= 3
    if page.bitspersample not in {8, 16} or not (kind == np.uint8 or deep):
        raise SlideError(
            f"Pixels are stored as {samples} x {page.bitspersample}-bit {kind}; a slide has 8-bit colour.",
            code="unreadable",
            fix=_CONVERT,
        )
    ycbcr_needs_jpeg = photometric == _YCBCR and compression != _JPEG
    if photometric not in {_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR} or ycbcr_needs_jpeg:
        name = tifffile.PHOTOMETRIC(photometric).name
        raise SlideError(f"Colours are stored as {name}.", code="unsupported", fix=_CONVERT)
    if compression == _JPEG2000_YCBCR or (compression == _JPEG and page.bitspersample != 8):
        raise SlideError("This kind of compression needs OpenSlide.", code="unsupported", fix=_CONVERT)
