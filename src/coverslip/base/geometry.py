"""Sizes, boxes and tiles. Positions are level-0 pixels, integers, top-left corner, x right, y down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32
from numpy import ndarray


class Size(NamedTuple):
    """Width and height, in that order, in pixels."""

    width: int
    height: int


class Box(NamedTuple):
    """A rectangle in level-0 pixels: top-left corner and size."""

    x: int
    y: int
    width: int
    height: int

    def inside(self, size: Size) -> bool:
        """True where no pixel of the box lies outside an image of this size."""
        return (
            self.x >= 0
            and self.y >= 0
            and self.width > 0
            and self.height > 0
            and self.x + self.width <= size.width
            and self.y + self.height <= size.height
        )


@dataclass(frozen=True)
class TileSpec:
    """How a slide is cut: tiles of `size_px` at `mpp` µm/px, a step of `stride_px` (same scale), and the least
    fraction of a tile that must be tissue. `stride_px=None` means no overlap."""

    size_px: int = 224
    mpp: float = 0.5
    stride_px: int | None = None
    min_tissue: float = 0.25

    def __post_init__(self) -> None:
        if self.stride_px is None:
            object.__setattr__(self, "stride_px", self.size_px)
        assert self.stride_px is not None
        if self.size_px < 1 or self.stride_px < 1:
            raise ValueError(f"size_px and stride_px are whole numbers over 0, not {self.size_px} and {self.stride_px}")
        if not (0 < self.mpp < float("inf")):
            raise ValueError(f"mpp is a number over 0 (µm per pixel), not {self.mpp}")
        if not 0 <= self.min_tissue <= 1:
            raise ValueError(f"min_tissue is a fraction from 0 to 1, not {self.min_tissue}")

    @property
    def span_um(self) -> float:
        """Side of a tile in µm."""
        return self.size_px * self.mpp


@dataclass(frozen=True)
class Tiles:
    """Where the tiles of one slide lie.

    `xy` (n, 2) is the top-left corner in level-0 pixels; `span` the side of a tile in level-0 pixels (a float, since
    mpp ratios are not whole: readers round the box, never the spacing); `tissue` (n,) the tissue fraction of each;
    `mpp` the slide's own µm per level-0 pixel.
    """

    slide: str
    spec: TileSpec
    mpp: float
    span: float
    xy: Int32[ndarray, "n 2"]
    tissue: Float32[ndarray, n]

    def __post_init__(self) -> None:
        assert self.xy.ndim == 2 and self.xy.shape[1] == 2 and self.xy.dtype == np.int32, (self.xy.shape, self.xy.dtype)
        assert self.tissue.shape == (len(self.xy),) and self.tissue.dtype == np.float32
        assert self.span > 0 and self.mpp > 0

    def __len__(self) -> int:
        return len(self.xy)

    def __repr__(self) -> str:
        return f"<Tiles of {self.slide}: {len(self)} of {self.spec.size_px} px at {self.spec.mpp:g} µm/px>"

    @property
    def span_px(self) -> int:
        """Side of the level-0 box that is read for a tile."""
        return max(1, round(self.span))

    def box(self, index: int) -> Box:
        x, y = self.xy[index]
        return Box(int(x), int(y), self.span_px, self.span_px)

    @property
    def centres_um(self) -> Float32[ndarray, "n 2"]:
        """Centre of each tile in µm from the slide's top-left corner: what networks get."""
        return centres_um(self.xy, self.span, self.mpp)


def centres_um(xy: Int32[ndarray, "n 2"], span: float, mpp: float) -> Float32[ndarray, "n 2"]:
    """Tile centres in µm from top-left corners and `span` in level-0 px and the slide's `mpp`."""
    return ((xy.astype(np.float64) + span / 2) * mpp).astype(np.float32)
