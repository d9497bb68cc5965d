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

from jaxtyping import UInt8
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

    @abstractmethod
    def associated_image(self, name: str) -> UInt8[ndarray, "h w 3"]:
        """The extra image of that name, one of `info.associated`."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of the file; called once."""
