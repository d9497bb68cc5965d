"""Which files of a folder are slide microscopy, and of which series: headers only, no pixels.

pydicom takes a quarter of a second to import, so it is imported where a DICOM header is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_PREAMBLE = 128
_WHOLE_SLIDE_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage


def is_dicom(path: Path) -> bool:
    """True for a file with the DICOM mark behind its preamble; names say nothing, many have no suffix."""
    with path.open("rb") as file:
        return file.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"


def holds_dicom(folder: Path) -> bool:
    """True where a file directly in the folder is DICOM."""
    return any(is_dicom(f) for f in sorted(folder.iterdir()) if f.is_file() and not f.name.startswith("."))


def slide_series(folder: Path) -> dict[str, list[Path]]:
    """The slide microscopy files directly in `folder`, sorted, by their series; every other file is left out."""
    series: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and not file.name.startswith(".") and is_dicom(file):
            header = read_header(file)
            if header is not None and header.get("SOPClassUID") == _WHOLE_SLIDE_IMAGE:
                series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(file)
    return series


def read_header(file: Path) -> Any | None:
    """What kind of object the file holds and which series it is of; None where that cannot be read."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    tags = ["SOPClassUID", "SeriesInstanceUID", "Modality", "ImageType"]
    tags += ["TotalPixelMatrixFocalPlanes", "NumberOfOpticalPaths", "PhotometricInterpretation", "BitsStored"]
    try:
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
    except (InvalidDicomError, EOFError, ValueError, KeyError, NotImplementedError):
        return None
