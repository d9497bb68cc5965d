"""Where the tiles of a slide lie."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int32
from numpy import ndarray

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Size, Tiles, TileSpec
from coverslip.base.units import downsample
from coverslip.slide import Slide
from coverslip.tissue import TissueMask

# A tile may be wanted this much finer than the slide is: scanners that say 0.5 are at 0.4986 or 0.5032.
UPSAMPLING_TOLERANCE = 0.02
# The part of a tile that may be ink, where pen is excluded: the rim that a mask of 8 µm cannot tell from tissue.
MOST_INK = 0.02


def plan(
    slide: Slide,
    mask: TissueMask | None,
    spec: TileSpec,
    *,
    exclude: Iterable[str] = ("pen", "blur"),
    max_tiles: int | None = None,
) -> Tiles:
    """The tiles of a slide in rows from the top left: those of a regular grid that hold enough usable tissue.

    The grid starts at the slide's corner. A tile's side and the step are `size_px` and `stride_px` times the tile's
    mpp over the slide's, not rounded, so that no error adds up; each position is rounded by itself. No tile leaves the
    slide. `mask` None takes every tile. `exclude` names layers of the mask that do not count as tissue; where it names
    pen, tiles with ink are left out altogether. `max_tiles` keeps that many, spread evenly over the list, always the
    same.

    Raises:
        SlideError: the slide has no mpp (`mpp_missing`), is coarser than the tiles (`too_coarse`), is smaller than one
            tile or has no place with enough tissue (`no_tiles`), or has no tissue (`no_tissue`).
    """
    mpp = slide.require_mpp()
    if spec.mpp < mpp * (1 - UPSAMPLING_TOLERANCE):
        raise SlideError(
            f"The slide has {mpp:.4g} µm per pixel, tiles of {spec.mpp:.4g} would be finer: detail cannot be invented.",
            slide=slide.id,
            fix=f"Set tiles.mpp to {mpp:.4g} or more, or leave this slide out.",
            code="too_coarse",
        )
    if max_tiles is not None and max_tiles < 1:
        raise ValueError(f"max_tiles is a whole number over 0 or None, not {max_tiles}")
    scale = downsample(spec.mpp, mpp)
    span = spec.size_px * scale
    assert spec.stride_px is not None
    xy = grid(slide.size, span, spec.stride_px * scale)
    if not len(xy):
        raise SlideError(
            f"The slide is {slide.size.width} × {slide.size.height} px, one tile of {spec.size_px} px at "
            f"{spec.mpp:.4g} µm/px takes {round(span)} × {round(span)} px of it.",
            slide=slide.id,
            fix="Choose smaller tiles, or leave this slide out.",
            code="no_tiles",
        )
    tissue = np.ones(len(xy), np.float32)
    if mask is not None:
        exclude = tuple(exclude)
        _must_hold_tissue(slide, mask, exclude)
        tissue = mask.fraction(xy, span, exclude)
        # With min_tissue 0 every tile would be kept; a tile without any tissue is never wanted where there is a mask.
        keep = (tissue >= spec.min_tissue) & (tissue > 0)
        if "pen" in exclude:
            # A little ink is the most striking thing in a tile, and a network learns it whatever tissue is beside it.
            keep &= mask.layer_fraction("pen", xy, span) <= MOST_INK
        if not keep.any():
            raise SlideError(
                f"No tile of {len(xy)} is {spec.min_tissue:.0%} tissue without ink; the best has {tissue.max():.1%}.",
                slide=slide.id,
                fix="Lower tiles.min_tissue, choose smaller tiles, or leave this slide out.",
                code="no_tiles",
            )
        xy, tissue = xy[keep], tissue[keep]
    chosen = _spread(len(xy), max_tiles)
    return Tiles(slide=slide.id, spec=spec, mpp=mpp, span=span, xy=xy[chosen], tissue=tissue[chosen])


def grid(size: Size, span: float, step: float) -> Int32[ndarray, "n 2"]:
    """Top-left corners, row by row, of all squares of `span` at multiples of `step` that lie inside, in px.

    `step` under one pixel counts as one, so that no position comes twice.
    """
    side = max(1, round(span))
    step = max(step, 1.0)
    x, y = (_positions(length, side, step) for length in size)
    corners = np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=1)
    return corners.astype(np.int32)


def _positions(length: int, side: int, step: float) -> ndarray:
    """Rounded multiples of `step` from which `side` pixels fit into `length`."""
    if length < side:
        return np.zeros(0, np.int64)
    positions = np.floor(np.arange(int((length - side) / step) + 2) * step + 0.5).astype(np.int64)
    return positions[positions + side <= length]


def _must_hold_tissue(slide: Slide, mask: TissueMask, exclude: tuple[str, ...]) -> None:
    if mask.is_empty:
        raise SlideError(
            f"No tissue was found by {mask.method}.",
            slide=slide.id,
            fix="Give a mask (tissue.masks), try another tissue.method, or leave this slide out.",
            code="no_tissue",
        )
    if not mask.usable(exclude).any():
        spoilt = ", ".join(name for name in exclude if name in mask.layers)
        raise SlideError(
            f"All tissue is excluded ({spoilt}).",
            slide=slide.id,
            fix="Give a mask (tissue.masks) or take layers out of tissue.exclude.",
            code="no_tissue",
        )


def _spread(count: int, most: int | None) -> ndarray:
    """Indices of `most` of `count` things, evenly spread and in order."""
    if most is None or most >= count:
        return np.arange(count)
    # The middle of each of `most` equal stretches.
    return ((np.arange(most) + 0.5) * count / most).astype(np.int64)
