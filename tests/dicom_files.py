"""Writing a DICOM slide whose every pixel is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import JPEG2000, UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

WHOLE_SLIDE = UID("1.2.840.10008.5.1.4.1.1.77.1.6")


def write_dicom(
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
    jpeg2000: bool = False,
    **extra: Any,
) -> Path:
    """Writes one level of a DICOM slide. `encode` makes the bytes of a frame; None leaves frames uncompressed."""
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
        syntax = JPEG2000 if jpeg2000 else JPEGBaseline8Bit
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = WHOLE_SLIDE
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


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
