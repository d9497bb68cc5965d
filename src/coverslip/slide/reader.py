"""The contract of a reader: what a file format gives, in one shape for all of them.

A reader knows one family of files and nothing of tiles, tissue or resampling. It may raise anything a third-party
library raises: `readers/_guard.py` turns it into a `SlideError`. To add one, add a file to `readers/` with an
`ENTRIES` table (see `coverslip.base.registry`), or an entry point `coverslip.readers` in another package, and run
`coverslip.testing.check_reader` over its files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Int64, UInt8
from numpy import ndarray

from coverslip.base.errors import Finding
from coverslip.base.geometry import Box, Size

# Where TIFF states dots per inch: for many programs a print setting and no scale of the tissue.
RESOLUTION_TAG = "the resolution tag"


@dataclass(frozen=True)
class SlideInfo:
    """What a file says of itself.

    `levels` are the sizes of the pyramid, finest first. `mpp` is µm per level-0 pixel in x and y as the file states
    it, right or wrong, and `mpp_source` says where it stands in the file; `level_mpp` is the same for each level,
    where a format states it. `objective` is the power written in the file (20 for 20x). `associated` names the extra
    images (label, macro, thumbnail). `findings` are what the reader itself saw wrong.
    """

    levels: tuple[Size, ...]
    vendor: str
    mpp: tuple[float, float] | None = None
    mpp_source: str = ""
    level_mpp: tuple[float | None, ...] = ()
    objective: float | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    associated: tuple[str, ...] = ()
    icc: bytes | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Grid:
    """How a level is stored: `columns` x `rows` pieces of one size (the tiles of a TIFF, the frames of a DICOM file),
    numbered row by row, each of which can be decoded alone.

    `offsets` (columns * rows,) says where in the file each lies: pieces are read in that order. `halvings` is how
    often the decoder can halve a piece while it decodes, for less work than decoding it whole.
    """

    piece: Size
    columns: int
    rows: int
    offsets: Int64[ndarray, n]
    halvings: int = 0


class Reader(ABC):
    """An open file. `Reader(path)` opens it and raises where it cannot; `info` is then complete.

    A reader raises `SlideError` with code `unsupported` for a file that another reader does better: the next one that
    sees the file is asked.
    """

    info: SlideInfo

    @abstractmethod
    def __init__(self, path: Path) -> None: ...

    @classmethod
    @abstractmethod
    def sees(cls, path: Path) -> bool:
        """True where this may be a file of the family: a look at its first bytes, not at its health."""

    @abstractmethod
    def read_level(self, level: int, box: Box) -> UInt8[ndarray, "h w 3"]:
        """The pixels of `box`, which is in pixels of `level` and lies inside it. Called by several threads at once.

        Raises where a pixel of the box cannot be had: a reader never makes one up. Where the format leaves out empty
        glass, that is the background colour.
        """

    def grid(self, level: int) -> Grid | None:
        """The pieces of a level, where `piece` reads them. None: the level is read by `read_level` alone."""
        return None

    def piece(self, level: int, index: int, *, out: UInt8[ndarray, s], halvings: int = 0) -> UInt8[ndarray, "h w 3"]:
        """The pixels of one piece of `grid(level)`, halved so many times. Called by several threads at once.

        They may lie in `out`, flat and as long as a piece, which the caller keeps until it is done with them, or in an
        array of their own. A piece at the edge may hold less than `Grid.piece`, but all that is inside the level.

        Raises where a pixel of the piece cannot be had, as `read_level` does.
        """
        raise NotImplementedError

    @abstractmethod
    def associated_image(self, name: str) -> UInt8[ndarray, "h w 3"]:
        """The extra image of that name, one of `info.associated`."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of the file; called once."""
