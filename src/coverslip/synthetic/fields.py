"""Smooth random fields on a coarse grid, and the way from that grid to pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

# Level-0 pixels between two nodes of the coarse grid: 4 µm, finer than any gland's wall.
STEP_PX = 8


def smooth_noise(rng: np.random.Generator, nodes: int, wavelength: float) -> Float32[ndarray, "nodes nodes"]:
    """Noise of mean 0 and variance about 1 whose features are `wavelength` nodes wide: a cubic B-spline over
    random knots, which costs two small matrix products instead of a wide filter."""
    knots = max(4, int(np.ceil(nodes / wavelength)) + 4)
    spline = _bspline(nodes, knots, wavelength)
    values = rng.standard_normal((knots, knots)).astype(np.float32)
    # A B-spline of unit-variance knots has variance (151/315)^2; 1/0.479 brings it back.
    return (spline @ values @ spline.T) * np.float32(315 / 151)


def _bspline(nodes: int, knots: int, wavelength: float) -> Float32[ndarray, "nodes knots"]:
    at = np.arange(nodes) / wavelength
    first = np.floor(at).astype(int)
    t = at - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    matrix = np.zeros((nodes, knots), np.float32)
    for k in range(4):
        matrix[np.arange(nodes), np.minimum(first + k, knots - 1)] += weights[:, k]
    return matrix


def distance(field: Float32[ndarray, "h w"], step: float) -> Float32[ndarray, "h w"]:
    """Signed distance to the zero line of a smooth field, to first order: the field over its slope. `step` is the
    distance between nodes; the result has its unit."""
    dy, dx = np.gradient(field, step)
    slope = np.hypot(dx, dy)
    return (field / np.maximum(slope, 0.25 * float(slope.mean()) + 1e-9)).astype(np.float32)


def upsample(nodes: Float32[ndarray, "f h w"], row: int, column: int, side: int) -> Float32[ndarray, "f side side"]:
    """The fields at every pixel of the block whose top-left pixel is (`column`, `row`): linear between nodes.

    As two matrix products, since those are the fastest way that numpy has.
    """
    count = side // STEP_PX + 1
    r, c = row // STEP_PX, column // STEP_PX
    weights = _linear(side)
    block = nodes[:, r : r + count, c : c + count]
    tall = np.matmul(weights, block)  # (f, side, count)
    return np.matmul(tall, weights.T)


@lru_cache(maxsize=4)
def _linear(side: int) -> Float32[ndarray, "side count"]:
    count = side // STEP_PX + 1
    at = (np.arange(side) + 0.5) / STEP_PX
    first = at.astype(int)
    matrix = np.zeros((side, count), np.float32)
    matrix[np.arange(side), first] = 1 - (at - first)
    matrix[np.arange(side), first + 1] = at - first
    return matrix


def at_nodes(field: Float32[ndarray, "h w"], xy_um: Float32[ndarray, "n 2"], step_um: float) -> Float32[ndarray, n]:
    """The field at positions in µm, from the nearest node."""
    index = np.rint(xy_um / step_um).astype(np.intp)
    x = np.clip(index[:, 0], 0, field.shape[1] - 1)
    y = np.clip(index[:, 1], 0, field.shape[0] - 1)
    return field[y, x]
