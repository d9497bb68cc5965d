"""Small slides whose every pixel is known, in the formats that readers read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

WHOLE_SLIDE = UID("1.2.840.10008.5.1.4.1.1.77.1.6")


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
    """Writes one level of a DICOM slide. `encode` makes the bytes of a frame; None leaves frames uncompressed."""

    def write(
        path: Path,
        image: np.ndarray,
        *,
        encode: Callable[[np.ndarray], bytes] | None = None,
        tag: str = "RGB",
        mpp: float = 0.5,
        tile: int = 64,
        series: str | None = None,
        missing: set[int] | None = None,
        flavour: str = "VOLUME",
        objective: float | None = 20,
        **extra: Any,
    ) -> Path:
        height, width = image.shape[:2]
        rows, columns = -(-height // tile), -(-width // tile)
        padded = np.pad(image, ((0, rows * tile - height), (0, columns * tile - width), (0, 0)), mode="edge")
        cells = [(r, c) for r in range(rows) for c in range(columns)]
        kept = [i for i in range(len(cells)) if i not in (missing or set())]
        frames = [padded[r * tile : (r + 1) * tile, c * tile : (c + 1) * tile] for r, c in (cells[i] for i in kept)]
        data = _slide_dataset(width, height, tile, len(frames), tag, mpp, flavour, objective)
        data.SeriesInstanceUID = series or generate_uid()
        if missing:
            data.DimensionOrganizationType = "TILED_SPARSE"
            data.PerFrameFunctionalGroupsSequence = DicomSequence(
                [_position(cells[i][1] * tile + 1, cells[i][0] * tile + 1) for i in kept]
            )
        data.update(extra)
        if encode is None:
            data.PixelData = b"".join(np.ascontiguousarray(f).tobytes() for f in frames)
            syntax = ExplicitVRLittleEndian
        else:
            data.PixelData = encapsulate([encode(np.ascontiguousarray(f)) for f in frames])
            data["PixelData"].VR = "OB"
            syntax = JPEGBaseline8Bit
        data.file_meta = FileMetaDataset()
        data.file_meta.MediaStorageSOPClassUID = WHOLE_SLIDE
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, data, enforce_file_format=True)
        return path

    return write


def _slide_dataset(
    width: int, height: int, tile: int, frames: int, tag: str, mpp: float, flavour: str, objective: float | None
) -> Dataset:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.StudyInstanceUID = WHOLE_SLIDE, generate_uid(), "1.2.3.4"
    data.FrameOfReferenceUID = "1.2.3.5"
    data.Modality, data.ImageType = "SM", ["ORIGINAL", "PRIMARY", flavour, "NONE"]
    data.Rows, data.Columns, data.NumberOfFrames = tile, tile, frames
    data.TotalPixelMatrixColumns, data.TotalPixelMatrixRows = width, height
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, tag, 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.DimensionOrganizationType = "TILED_FULL"
    data.TotalPixelMatrixFocalPlanes, data.NumberOfOpticalPaths = 1, 1
    data.ImagedVolumeWidth, data.ImagedVolumeHeight = width * mpp / 1000, height * mpp / 1000
    data.ImagedVolumeDepth = 1
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1000, mpp / 1000], 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = DicomSequence([measures])
    data.SharedFunctionalGroupsSequence = DicomSequence([shared])
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    if objective is not None:
        path.ObjectiveLensPower = objective
    data.OpticalPathSequence = DicomSequence([path])
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 0, 0
    data.TotalPixelMatrixOriginSequence = DicomSequence([origin])
    data.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]
    data.PatientName, data.PatientID = "Secret^Name", "12345"
    return data


def _position(column: int, row: int) -> Dataset:
    plane = Dataset()
    plane.ColumnPositionInTotalImagePixelMatrix, plane.RowPositionInTotalImagePixelMatrix = column, row
    plane.XOffsetInSlideCoordinateSystem = plane.YOffsetInSlideCoordinateSystem = 0
    plane.ZOffsetInSlideCoordinateSystem = 0
    frame = Dataset()
    frame.PlanePositionSlideSequence = DicomSequence([plane])
    return frame
