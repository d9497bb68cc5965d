"""Values of tiles as a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Num
from numpy import ndarray

from coverslip.base.geometry import Tiles


@dataclass(frozen=True)
class Raster:
    """Values on a grid: `values` (h, w), NaN where there is no tile. The grid's corner is at `x`, `y` and one of its
    cells is `cell` wide, all in level-0 px (`cell` is a float: rounding it would shift the far end)."""

    values: Float32[ndarray, "h w"]
    x: float
    y: float
    cell: float


def raster(tiles: Tiles, values: Num[ndarray, n]) -> Raster:
    """The tiles' values on the coarsest grid that shows them all: one cell a step of the plan.

    Where tiles overlap, a cell is the mean of the tiles over its centre.
    """
    values = np.asarray(values, np.float64)
    if values.shape != (len(tiles),):
        raise ValueError(f"values has one number a tile: ({len(tiles)},), not {values.shape}")
    assert tiles.spec.stride_px is not None
    cell = max(tiles.span * tiles.spec.stride_px / tiles.spec.size_px, 1.0)
    if not len(tiles):
        return Raster(np.zeros((0, 0), np.float32), 0.0, 0.0, cell)
    index = np.rint(tiles.xy / cell).astype(np.int64)
    first = index.min(0)
    # A tile covers the cells whose centre it holds; with gaps between tiles (stride over size) just its own.
    reach = max(1, round(tiles.span / cell))
    columns, rows = (index - first).T
    shape = (int(rows.max()) + reach, int(columns.max()) + reach)
    total, count = np.zeros(shape), np.zeros(shape)
    for dy in range(reach):
        for dx in range(reach):
            np.add.at(total, (rows + dy, columns + dx), values)
            np.add.at(count, (rows + dy, columns + dx), 1)
    with np.errstate(invalid="ignore"):
        grid = np.where(count > 0, total / np.where(count > 0, count, 1), np.nan)
    return Raster(grid.astype(np.float32), float(first[0] * cell), float(first[1] * cell), cell)
