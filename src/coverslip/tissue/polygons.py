"""Masks to polygons and back. Outlines pass between pixel centres, filling asks where pixel centres lie: a mask that
goes out and comes back is the same mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Float64
from numpy import ndarray
from shapely.geometry.base import BaseGeometry
from skimage.measure import find_contours

Colour = tuple[int, int, int]


def outline(mask: Bool[ndarray, "h w"], scale: float) -> shapely.MultiPolygon:
    """The mask's True regions as polygons with holes, in level-0 px; one mask pixel is `scale` level-0 px wide."""
    lines = find_contours(np.pad(mask, 1).astype(np.float32), 0.5, fully_connected="low")
    shells: list[shapely.Polygon] = []
    holes: list[shapely.Polygon] = []
    for line in lines:
        # One pixel of padding, and the centre of pixel i lies at i + 1/2.
        ring = shapely.Polygon((line[:, ::-1] - 0.5) * scale)
        # Shells and holes are traced in opposite directions, high values always on the same side.
        (shells if ring.exterior.is_ccw else holes).append(ring)
    tree = shapely.STRtree(shells)
    inside: list[list[Any]] = [[] for _ in shells]
    for hole in holes:
        around = tree.query(hole, predicate="within")
        # Tissue inside a hole of other tissue: the hole belongs to the smallest shell around it.
        owner = min(around, key=lambda i: shells[i].area)
        inside[owner].append(hole.exterior)
    polygons = [shapely.Polygon(shell.exterior, rings) for shell, rings in zip(shells, inside)]
    # Points on a straight line tell nothing.
    return shapely.MultiPolygon([p.simplify(0.01 * scale) for p in polygons])


def fill(shape: BaseGeometry, size: tuple[int, int], scale: float) -> Bool[ndarray, "h w"]:
    """A mask of `size` (h, w), True where a pixel's centre lies inside the shape (Polygon or MultiPolygon, level-0 px).

    Scan lines: each edge toggles the pixels to the right of where it crosses a row's centre line.
    """
    height, width = size
    toggles = np.zeros((height, width + 1), np.int32)
    for polygon in shapely.get_parts(shape):
        for ring in (polygon.exterior, *polygon.interiors):
            points = np.asarray(ring.coords)[:, :2] / scale - 0.5
            rows, columns = _crossings(points, height)
            np.add.at(toggles, (rows, np.clip(np.ceil(columns), 0, width).astype(np.intp)), 1)
    return (np.cumsum(toggles[:, :width], axis=1) & 1).astype(bool)


def _crossings(points: Float64[ndarray, "n 2"], height: int) -> tuple[ndarray, ndarray]:
    """Row index and x position of every crossing of a closed ring with the centre line of a row."""
    x0, y0 = points[:-1].T
    x1, y1 = points[1:].T
    low, high = np.minimum(y0, y1), np.maximum(y0, y1)
    # An edge owns the rows low <= row < high, so that a corner on a row counts once.
    first = np.clip(np.ceil(low), 0, height).astype(np.intp)
    last = np.clip(np.ceil(high), 0, height).astype(np.intp)
    count = last - first
    edge = np.repeat(np.arange(len(count)), count)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    t = (rows - y0[edge]) / (y1 - y0)[edge]
    return rows, x0[edge] + t * (x1 - x0)[edge]


def annotation(shape: BaseGeometry, name: str, colour: Colour) -> dict[str, Any]:
    """A GeoJSON feature as QuPath reads it: an annotation of a class. Coordinates are rounded to 1/100 px."""
    r, g, b = colour
    # QuPath before 0.4 reads the colour as a signed ARGB integer, later ones as a list.
    packed = ((0xFF << 24) | (r << 16) | (g << 8) | b) - (1 << 32)
    return {
        "type": "Feature",
        "geometry": shapely.geometry.mapping(_rounded(shape)),
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": [r, g, b], "colorRGB": packed},
        },
    }


def _rounded(shape: BaseGeometry) -> BaseGeometry:
    parts = shapely.get_parts(shape)
    single = parts[0] if len(parts) == 1 else shape
    return shapely.transform(single, lambda points: np.round(points, 2))
