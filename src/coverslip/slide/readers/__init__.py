"""Which reader opens a file: each is asked in a fixed order, the first that can wins.

1. `dicom`: DICOM files and folders. Always first, and no other reader takes DICOM, because the colour of JPEG frames
   is decided by the frames themselves only here.
2. `tiff`: plain, OME and Aperio TIFF, decoded directly: about four times as fast as OpenSlide, equal to it to the last
   pixel, and strict about damage. On opening it compares two tissue tiles with OpenSlide, and hands the file on where
   they differ. TIFF of other vendors it hands on.
3. `openslide`: every other vendor format.
4. `image`: PNG, JPEG, BMP, WebP and their like.
5. Readers of other packages, by name.

A reader that sees the file but fails hands it to the next one that sees it too; the first real complaint is the one
the user reads. A file that was cut short, or has more axes than a slide, is settled by the first reader that says so.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from coverslip.base.errors import Finding, SlideError
from coverslip.base.registry import READERS
from coverslip.slide.reader import Reader
from coverslip.slide.readers._guard import guarded
from coverslip.slide.readers._proof import READERS_DIFFER

ORDER = ("dicom", "tiff", "openslide", "image")

# Settled by whoever finds it first: another reader that does not look as closely would open the file after all.
_SETTLED = frozenset({"truncated", "extra_axes"})

_FIX = "Copy the file again from where it came, or leave the slide out."


def open_reader(path: Path, slide: str, *, name: str | None = None) -> tuple[str, Reader]:
    """The name of the reader that opens `path`, and the open reader; `name` forces one.

    Raises:
        SlideError: no reader can open the file (unreadable, truncated, extra_axes).
        SettingsError: there is no reader of that name.
    """
    with guarded(slide, "Looking for the file", code="unreadable", fix="Check the path and its permissions."):
        there = path.exists()
    if not there:
        raise SlideError(f"There is no file {path}.", slide=slide, fix="Check the path.", code="unreadable")
    if name is not None:
        reader = _open(name, path, slide)
        return name, reader
    complaints: list[SlideError] = []
    doubt: Finding | None = None
    for candidate in asked():
        kind = READERS.load(candidate)
        with guarded(slide, f"Looking at the file with {candidate}", code="unreadable", fix=_FIX):
            seen = kind.sees(path)
        if not seen:
            continue
        try:
            reader = _open(candidate, path, slide)
        except SlideError as error:
            if error.code in _SETTLED:
                raise
            complaints.append(error)
            continue
        if doubt is None and (doubt := _doubt(reader)) is not None:
            reader.close()
            continue
        if doubt is not None:
            reader.info = replace(reader.info, findings=(*reader.info.findings, doubt))
        return candidate, reader
    raise _verdict(path, slide, complaints)


def asked() -> list[str]:
    """Every registered reader, in the order they are asked."""
    names = READERS.names()
    return [n for n in ORDER if n in names] + [n for n in names if n not in ORDER]


def _open(name: str, path: Path, slide: str) -> Reader:
    kind = READERS.load(name)
    with guarded(slide, f"Opening the file with {name}", code="unreadable", fix=_FIX), warnings.catch_warnings():
        # What libraries warn about is told as findings and errors; a damaged DICOM header alone gives dozens.
        warnings.simplefilter("ignore")
        reader: Reader = kind(path)
    return reader


def _doubt(reader: Reader) -> Finding | None:
    """What a reader says against its own pixels."""
    return next((f for f in reader.info.findings if f.code == READERS_DIFFER), None)


def _verdict(path: Path, slide: str, complaints: list[SlideError]) -> SlideError:
    if complaints:
        told = [e for e in complaints if e.code != "unsupported"] or complaints
        first = told[0]
        return SlideError(first.message, slide=slide, fix=first.fix or _FIX, code="unreadable")
    if path.is_dir():
        return SlideError(
            f"{path} is a folder without a DICOM slide in it.",
            slide=slide,
            fix="Give the slide's file, or the folder of one DICOM series.",
            code="unreadable",
        )
    with guarded(slide, "Reading the file", code="unreadable"), path.open("rb") as file:
        head = file.read(512)
    return SlideError(
        f"No reader knows this file: {_describe(head)}.",
        slide=slide,
        fix=f"Readers: {', '.join(asked())}. If it is a slide, it is damaged: copy it again.",
        code="unreadable",
    )


def _describe(head: bytes) -> str:
    if not head:
        return "it is empty"
    if not head.strip(b"\0"):
        return "it begins with zeros"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"it is text that begins {head[:40].decode('ascii')!r}"
    return f"its first bytes are {head[:8].hex(' ')}"
