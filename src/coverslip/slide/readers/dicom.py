"""DICOM whole-slide images: one file, or a folder that holds one series.

wsidicom finds the levels, the frames and the scale; the frames are decoded here. In JPEG frames the stream's own
markers and subsampling say what the colours are: PhotometricInterpretation is wrong in files in the wild, and readers
that believe it show wrong colours. Frames that a sparse file leaves out are empty glass, and white.

wsidicom and pydicom take half a second to import and most slides are no DICOM, so they are imported where they are
used. DICOM PS3.3 C.8.12 (VL Whole Slide Microscopy), PS3.5 8.2.1 (JPEG). Nothing that names a patient is read.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from coverslip.base.errors import Finding, SlideError
from coverslip.base.geometry import Box, Size
from coverslip.slide.reader import Grid, Reader, SlideInfo
from coverslip.slide.readers._dicomfiles import holds_dicom, is_dicom, read_header, slide_series
from coverslip.slide.readers._files import Cache
from coverslip.slide.readers._jpeg import Colour, JpegDecoder, stream_colour
from coverslip.slide.readers._jpeg import read_header as read_jpeg_header

ENTRIES = {
    "dicom": {
        "build": "DicomReader",
        "summary": "DICOM whole-slide images: a file or the folder of one series",
        "origin": "https://github.com/imi-bigpicture/wsidicom",
        "licence": "Apache-2.0",
        "needs": "",
    }
}

# Transfer syntaxes: none, JPEG baseline and extended; JPEG 2000 lossless and not, high-throughput JPEG 2000.
_UNCOMPRESSED = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"})
_JPEG = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51))
_JPEG2000 = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203))
_CACHE_BYTES = 96 << 20
_ONE_SERIES = "Put each series into a folder of its own, or give one file."


class DicomReader(Reader):
    def __init__(self, path: Path) -> None:
        files = _files(path)
        for file in files:
            header = read_header(file) or {}
            _refuse_stack(header.get("TotalPixelMatrixFocalPlanes") or 1, header.get("NumberOfOpticalPaths") or 1)
        self._wsi = _open(files)
        with ExitStack() as on_failure:
            on_failure.callback(self._wsi.close)
            self._levels = [_Frames(level.default_instance) for level in self._wsi.levels]
            self.info = self._read_info()
            for frames in self._levels:
                frames.check_last()
            on_failure.pop_all()
        self._cache = Cache(_CACHE_BYTES)

    @classmethod
    def sees(cls, path: Path) -> bool:
        return holds_dicom(path) if path.is_dir() else is_dicom(path)

    def _read_info(self) -> SlideInfo:
        first = self._levels[0]
        findings = [f for f in (frames.colour_conflict() for frames in self._levels) if f is not None]
        level_mpp = tuple(frames.mpp for frames in self._levels)
        return SlideInfo(
            levels=tuple(frames.size for frames in self._levels),
            vendor="dicom",
            mpp=level_mpp[0],
            mpp_source="PixelSpacing",
            level_mpp=tuple(None if mpp is None else mpp[0] for mpp in level_mpp),
            objective=_objective(first.dataset),
            properties=_properties(first),
            associated=tuple(
                name for name, images in (("label", self._wsi.labels), ("macro", self._wsi.overviews)) if images
            ),
            icc=_icc(first.dataset),
            findings=tuple(findings[:1]),
        )

    def read_level(self, level: int, box: Box) -> UInt8[ndarray, "h w 3"]:
        frames = self._levels[level]
        width, height = frames.tile
        out = np.empty((box.height, box.width, 3), dtype=np.uint8)
        for row in range(box.y // height, -(-(box.y + box.height) // height)):
            for column in range(box.x // width, -(-(box.x + box.width) // width)):
                tile = self._cache.get((level, column, row), lambda c=column, r=row: frames.pixels(c, r))  # type: ignore[misc]
                left, top = max(column * width, box.x), max(row * height, box.y)
                right = min((column + 1) * width, box.x + box.width)
                bottom = min((row + 1) * height, box.y + box.height)
                out[top - box.y : bottom - box.y, left - box.x : right - box.x] = tile[
                    top - row * height : bottom - row * height, left - column * width : right - column * width
                ]
        return out

    def grid(self, level: int) -> Grid:
        frames = self._levels[level]
        # wsidicom does not say where a frame lies; writers store them row by row.
        return Grid(frames.tile, frames.columns, frames.rows, np.arange(frames.columns * frames.rows))

    def piece(self, level: int, index: int, *, out: UInt8[ndarray, s], halvings: int = 0) -> UInt8[ndarray, "h w 3"]:
        row, column = divmod(index, self._levels[level].columns)
        return self._levels[level].pixels(column, row, out=out)

    def associated_image(self, name: str) -> UInt8[ndarray, "h w 3"]:
        image = self._wsi.read_label() if name == "label" else self._wsi.read_overview()
        return np.array(image.convert("RGB"))

    def close(self) -> None:
        self._wsi.close()


class _Frames:
    """The frames of one level: where each lies and how it becomes RGB."""

    def __init__(self, instance: Any) -> None:
        from wsidicom.geometry import Point  # slow to import, see above

        self._at = Point
        self.dataset = instance.dataset.as_dataset()
        self._data = instance.image_data
        self.size = Size(*_pair(instance.size))
        self.tile = Size(*_pair(instance.tile_size))
        self.columns, self.rows = -(-self.size.width // self.tile.width), -(-self.size.height // self.tile.height)
        spacing = instance.pixel_spacing
        self.mpp = None if spacing is None else (float(spacing.width) * 1000, float(spacing.height) * 1000)
        self.tag = str(instance.dataset.photometric_interpretation)
        self.syntax = self._data.transfer_syntax
        # Planes and paths may also lie in instances of their own, each of which has one.
        _refuse_stack(len(instance.focal_planes), len(instance.optical_paths))
        if self._data.bits != 8:
            raise SlideError(
                f"Pixels are stored as {self._data.samples_per_pixel} x {self._data.bits} bits ({self.tag}); "
                "a slide has 8-bit colour.",
                code="unreadable",
                fix="Convert it to 8-bit RGB.",
            )
        self._jpeg_decoder = JpegDecoder(tag=self.tag_colour)
        self._z, self._path = instance.default_z, instance.default_path

    @property
    def tag_colour(self) -> Colour | None:
        return "rgb" if self.tag == "RGB" else "ycbcr" if self.tag.startswith("YBR") else None

    def check_last(self) -> None:
        """Raises where the last frame of the level is not in the file."""
        try:
            stream = self._encoded(self.columns - 1, self.rows - 1)
            if stream is not None and not self._ends(stream):
                raise EOFError("it has no end")
        except (EOFError, OSError, ValueError, IndexError, KeyError) as error:
            raise SlideError(
                f"The last frame of the {self.size.width} x {self.size.height} px level is not in the file ({error}).",
                code="truncated",
                fix="Copy it again from where it came.",
            ) from error

    def colour_conflict(self) -> Finding | None:
        """What to tell where the frames and the tag disagree about the colours."""
        if self.syntax not in _JPEG or self.tag_colour is None:
            return None
        stream = self._first_stored()
        colour = stream_colour(read_jpeg_header(stream)) if stream else None
        if colour is None or colour == self.tag_colour:
            return None
        return Finding(
            "colour_tag_conflict",
            f"PhotometricInterpretation says {self.tag}, the JPEG frames themselves are {colour}; the frames are "
            "followed.",
            "Other programs may show wrong colours; correct PhotometricInterpretation in the file.",
        )

    def pixels(self, column: int, row: int, *, out: UInt8[ndarray, s] | None = None) -> UInt8[ndarray, "h w 3"]:
        """One frame as RGB; white where a sparse file leaves it out. The pixels may lie in `out`."""
        stream = self._encoded(column, row)
        if stream is None:
            return np.full((self.tile.height, self.tile.width, 3), 255, dtype=np.uint8)
        if self.syntax in _JPEG:
            return self._jpeg_decoder.decode(stream, self.tile, out=out)
        if not self._ends(stream):
            raise SlideError(f"The frame at column {column}, row {row} is cut short.", code="decode_failed")
        decoded = np.asarray(self._data.get_decoded_tile(self._at(column, row), self._z, self._path))
        if decoded.shape[:2] != (self.tile.height, self.tile.width):
            raise ValueError(f"the frame at column {column}, row {row} has the shape {decoded.shape}")
        if decoded.ndim == 2 or decoded.shape[2] == 1:
            return np.repeat(decoded.reshape(*decoded.shape[:2], 1), 3, axis=2)
        if self.tag == "YBR_FULL" and self.syntax not in _JPEG2000:
            return _rgb_of_ycbcr(decoded)
        return decoded

    def _ends(self, stream: bytes) -> bool:
        """True where a frame is not cut short; decoders fill up what is missing."""
        if self.syntax in _UNCOMPRESSED:
            return len(stream) >= self.tile.width * self.tile.height * int(self._data.samples_per_pixel)
        if self.syntax in _JPEG or self.syntax in _JPEG2000:
            return stream.rstrip(b"\0").endswith(b"\xff\xd9")
        return True

    def _encoded(self, column: int, row: int) -> bytes | None:
        """The stored bytes of a frame; None where a sparse file has none."""
        point = self._at(column, row)
        if self._data.is_sparse(point, self._z, self._path):
            return None
        stream: bytes = self._data.get_encoded_tile(point, self._z, self._path)
        return stream

    def _first_stored(self) -> bytes | None:
        frames = (self._encoded(i % self.columns, i // self.columns) for i in range(self.columns * self.rows))
        return next((stream for stream in frames if stream is not None), None)


def _files(path: Path) -> list[Path]:
    """The slide microscopy files to open.

    Raises:
        SlideError: there is none, or they are of several series.
    """
    if path.is_file():
        header = read_header(path)
        if header is None:
            raise SlideError("The DICOM header is damaged.", code="unreadable", fix="Copy the file again.")
        kind = str(getattr(header.get("SOPClassUID"), "name", "unknown"))
        if "Whole Slide" not in kind:
            raise SlideError(
                f"The file holds {header.get('Modality', 'an object')} ({kind}), not a whole-slide image.",
                code="unreadable",
                fix="Give a file of slide microscopy (SM), or the folder of one series.",
            )
        kinds = [str(v) for v in header.get("ImageType") or []]
        flavour = kinds[2] if len(kinds) > 2 else ""
        if flavour in {"LABEL", "OVERVIEW"}:
            raise SlideError(
                f"The file is the {flavour.lower()} image of a slide, not the slide.",
                code="unreadable",
                fix="Give the folder of the series.",
            )
        return [path]
    series = slide_series(path)
    if len(series) != 1:
        found = f"{len(series)} series" if series else "no series"
        raise SlideError(f"The folder holds {found} of whole-slide images.", code="unreadable", fix=_ONE_SERIES)
    return next(iter(series.values()))


def _refuse_stack(planes: int, paths: int) -> None:
    if planes > 1 or paths > 1:
        raise SlideError(
            f"The slide has {planes} focal planes and {paths} optical paths.",
            code="extra_axes",
            fix="A slide is one colour image: export one plane and one optical path.",
        )


def _open(files: list[Path]) -> Any:
    from wsidicom import WsiDicom  # slow to import, see above
    from wsidicom.errors import WsiDicomNotFoundError

    try:
        return WsiDicom.open([str(f) for f in files])
    except WsiDicomNotFoundError as error:
        header = read_header(files[0]) or {}
        parts = ("ImageType", "PhotometricInterpretation", "BitsStored")
        raise SlideError(
            f"No level of it can be read ({', '.join(f'{p} {header.get(p)}' for p in parts)}).",
            code="unreadable",
            fix="Convert it to 8-bit RGB or JPEG frames, or copy it again.",
        ) from error


def _pair(size: Any) -> tuple[int, int]:
    return int(size.width), int(size.height)


def _objective(dataset: Any) -> float | None:
    for path in dataset.get("OpticalPathSequence") or []:
        power = path.get("ObjectiveLensPower")
        if power is not None:
            return float(power)
    return None


def _icc(dataset: Any) -> bytes | None:
    for path in dataset.get("OpticalPathSequence") or []:
        if path.get("ICCProfile"):
            return bytes(path.ICCProfile)
    return None


def _properties(frames: _Frames) -> dict[str, str]:
    names = ("Modality", "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ImageType", "SeriesInstanceUID")
    found = {f"dicom.{n}": str(frames.dataset.get(n)) for n in names if frames.dataset.get(n) is not None}
    return found | {"dicom.PhotometricInterpretation": frames.tag, "dicom.TransferSyntax": frames.syntax.name}


def _rgb_of_ycbcr(pixels: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, "h w 3"]:
    """Full-range YCbCr to RGB (ITU-R BT.601, as in JPEG)."""
    y, blue, red = (pixels[..., i].astype(np.float32) for i in range(3))
    blue -= 128
    red -= 128
    rgb = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], axis=-1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
