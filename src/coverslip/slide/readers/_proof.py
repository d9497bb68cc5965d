"""A direct reader proves itself on opening: two tissue tiles, decoded by it and by OpenSlide, are the same.

Files in the wild hold what no specification foresees, and a reader that has misunderstood one gives pixels that look
right. OpenSlide reads the same file in another way, by other people; where both agree to the last bit on tissue, the
colours, the order and the decoding are right. It costs a few milliseconds a slide.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
from jaxtyping import Int64
from numpy import ndarray

from coverslip.base.errors import Finding, SlideError
from coverslip.base.geometry import Box
from coverslip.slide.reader import Reader
from coverslip.slide.readers._guard import guarded

# The code of a finding that says that two readers disagree about a file.
READERS_DIFFER = "readers_differ"
# Of larger pieces (whole images in one strip) the proof would cost more than it is worth.
_MOST_PX = 1 << 21


def disagreement(reader: Reader, path: Path, counts: Int64[ndarray, n]) -> Finding | None:
    """What to tell where `reader` and OpenSlide differ on a tile of level 0; None where they agree, or where OpenSlide
    does not read the file. `counts` are the stored bytes of the pieces of level 0, 0 where one is missing.

    A damaged tile is no difference: it is told when it is read.
    """
    grid, size = reader.grid(0), reader.info.levels[0]
    if grid is None or grid.piece.width * grid.piece.height > _MOST_PX or not counts.any():
        return None
    try:
        with openslide.OpenSlide(str(path)) as other:
            if other.dimensions != size:
                return None
            for index in _tissue(counts):
                row, column = divmod(index, grid.columns)
                x, y = column * grid.piece.width, row * grid.piece.height
                box = Box(x, y, min(grid.piece.width, size.width - x), min(grid.piece.height, size.height - y))
                apart = _apart(reader, other, box)
                if apart:
                    return Finding(
                        READERS_DIFFER,
                        f"The tile at column {column}, row {row}, decoded directly, differs from what OpenSlide reads "
                        f"there by up to {apart} grey levels.",
                        "Unless a reader is forced, OpenSlide reads it: slower, and as every other program shows it.",
                    )
    except openslide.OpenSlideError:
        return None
    return None


def _tissue(counts: Int64[ndarray, n]) -> list[int]:
    """Two pieces of tissue, which needs more bytes than glass: the largest, and one larger than nine of ten."""
    stored = np.flatnonzero(counts)
    rising = stored[np.argsort(counts[stored], kind="stable")]
    return list(dict.fromkeys([int(rising[-1]), int(rising[len(rising) * 9 // 10])]))


def _apart(reader: Reader, other: openslide.OpenSlide, box: Box) -> int:
    """The largest difference of two readers on a box; 0 where one of them cannot read it."""
    try:
        with guarded("", "Decoding a tile", code="decode_failed"):
            ours = reader.read_level(0, box)
    except SlideError:
        return 0
    theirs = np.asarray(other.read_region((box.x, box.y), 0, (box.width, box.height)))
    if theirs[..., 3].min() < 255:
        return 0
    return int(np.abs(ours.astype(np.int16) - theirs[..., :3]).max())
