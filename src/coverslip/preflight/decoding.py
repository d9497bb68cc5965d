"""Whether the pixels are there: a sample of every level is decoded."""

from __future__ import annotations

from pathlib import Path

import tifffile

from coverslip.base.errors import Finding, SlideError
from coverslip.base.geometry import Box, Size
from coverslip.base.random import stream
from coverslip.slide import Slide
from coverslip.slide.readers._guard import guarded

SIDE_PX = 256
# Pieces decoded of each level; a level of no more than this is decoded whole.
SAMPLE = 32
_COPY_AGAIN = "Copy the slide again from where it came, and compare sizes or checksums."


def undecodable(slide: Slide) -> list[Finding]:
    """One finding for each level with pieces that do not decode; empty for a sound slide."""
    findings = []
    for level in slide.levels:
        boxes = sample(level.size, slide.id, level.index)
        failures = [(box, error) for box in boxes if (error := _failure(slide, level.index, box)) is not None]
        if failures:
            box, error = failures[0]
            findings.append(
                Finding(
                    "decode_failed",
                    f"Level {level.index}: {len(failures)} of {len(boxes)} pieces looked at do not decode, the first "
                    f"at ({box.x}, {box.y}): {error.message}",
                    _COPY_AGAIN,
                )
            )
    return findings


def sample(level: Size, *names: str | int) -> list[Box]:
    """Pieces of `SIDE_PX` of a level: the corners, the centre and random others, the same for the same names."""
    columns, rows = (-(-side // SIDE_PX) for side in level)
    if columns * rows <= SAMPLE:
        chosen = set(range(columns * rows))
    else:
        last = rows * columns - 1
        chosen = {0, columns - 1, last - (columns - 1), last, rows // 2 * columns + columns // 2}
        rng = stream(0, "preflight", *names)
        while len(chosen) < SAMPLE:
            chosen.add(int(rng.integers(rows * columns)))
    boxes = []
    for index in sorted(chosen):
        x, y = index % columns * SIDE_PX, index // columns * SIDE_PX
        boxes.append(Box(x, y, min(SIDE_PX, level.width - x), min(SIDE_PX, level.height - y)))
    return boxes


def cut_short(path: Path) -> list[Finding]:
    """A finding where a TIFF of a vendor lists pixels behind the end of its file.

    Plain TIFF is judged when it is opened; this is for the TIFF that OpenSlide opens (NDPI, SCN, BIF, Philips), which
    it does without looking where the pixels lie.
    """
    with path.open("rb") as file:
        if file.read(4) not in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
            return []
    size = path.stat().st_size
    try:
        with guarded("", "Reading the TIFF directories", code="unreadable"), tifffile.TiffFile(path) as tiff:
            ends = [
                offset + count
                for i in range(len(tiff.pages))
                for offset, count in zip(tiff.pages[i].dataoffsets, tiff.pages[i].databytecounts)
            ]
    except SlideError:
        return []  # a dialect that tifffile does not know: OpenSlide knows better, and the sample was decoded
    lost = sum(end > size for end in ends)
    if not lost:
        return []
    return [
        Finding(
            "truncated",
            f"The file is cut short: {lost} of {len(ends)} tiles lie behind its end (byte {max(ends)} of {size}).",
            _COPY_AGAIN,
        )
    ]


def _failure(slide: Slide, level: int, box: Box) -> SlideError | None:
    try:
        slide.read_level(level, box)
    except SlideError as error:
        return error
    return None
