"""Finding slides: files and DICOM folders below the paths a user gives."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from coverslip.base.errors import SlideError
from coverslip.slide.readers._dicomfiles import is_dicom, slide_series

# Named like slides. Whether one opens is the reader's business: a text file named .svs is found, and then refused.
_VENDOR_SUFFIXES = (".svs", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi")
_OPEN_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".dcm", ".png", ".jpg", ".jpeg", ".bmp", ".webp")
SUFFIXES = frozenset(_VENDOR_SUFFIXES + _OPEN_SUFFIXES)
_DICOM = ".dcm"


def discover(paths: Iterable[Path | str]) -> list[Path]:
    """Every slide below the paths, sorted and once each: files with a slide's suffix, and folders of one DICOM series.

    A file that is named directly is taken whatever its suffix. Hidden files and the data folders of MRXS and VMS
    slides, which are parts of a slide, are left out.

    Raises:
        SlideError: a path does not exist, or a folder cannot be read.
    """
    found: set[Path] = set()
    for path in map(Path, paths):
        if not path.exists():
            raise SlideError(f"There is no file or folder {path}.", fix="Check the path.", code="unreadable")
        found.update(_below(path) if path.is_dir() else [path])
    return sorted(found)


def slide_id(path: Path) -> str:
    """The file's name without its last suffix, or the folder's name."""
    return path.name if path.is_dir() else path.stem


def _below(folder: Path) -> list[Path]:
    try:
        entries = [e for e in sorted(folder.iterdir()) if not e.name.startswith(".")]
    except PermissionError as error:
        raise SlideError(
            f"The folder {folder} cannot be read.", fix="Check its permissions.", code="unreadable"
        ) from error
    files = [e for e in entries if e.is_file()]
    found = [f for f in files if f.suffix.lower() in SUFFIXES]
    dicom = {f for f in files if f.suffix.lower() in {"", _DICOM} and is_dicom(f)}
    # One series is one slide. Of several, nobody knows which file belongs where: each is told on its own.
    if dicom and len(slide_series(folder)) == 1:
        found = [f for f in found if f not in dicom] + [folder]
    slide_stems = {f.stem for f in files if f.suffix.lower() in {".mrxs", ".vms", ".vmu"}}
    for entry in entries:
        if entry.is_dir() and entry.name not in slide_stems:
            found += _below(entry)
    return found
