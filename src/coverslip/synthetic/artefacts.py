"""What goes wrong on real slides: ink of a felt pen on the glass, and a region that the scanner did not focus."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from scipy.ndimage import gaussian_filter

from coverslip.base.random import stream
from coverslip.synthetic.fields import STEP_PX, distance, smooth_noise, upsample
from coverslip.synthetic.layout import STEP_UM, Layout
from coverslip.synthetic.recipe import TILE_PX, PenColour, SlideRecipe

# What one layer of ink lets through in R, G, B.
_INKS: dict[PenColour, tuple[float, float, float]] = {
    "red": (0.86, 0.16, 0.20),
    "green": (0.13, 0.52, 0.33),
    "blue": (0.12, 0.32, 0.72),
    "black": (0.13, 0.12, 0.14),
}
_BLUR_SIGMA_PX = 5.0


def pen_field(recipe: SlideRecipe, layout: Layout) -> Float32[ndarray, "h w"]:
    """Layers of ink, 0 to about 1.3: one stroke along a part of the tissue's outline, half over it here and there."""
    rng = stream(recipe.seed, "pen")
    nodes = len(layout.tissue)
    inside = (layout.tissue > 0).astype(np.float32)
    # Filtering every fourth node is enough for an outline this smooth.
    soft = gaussian_filter(inside[::4, ::4], max(2.0, nodes / 64), mode="constant")
    soft = upsample_nodes(soft, nodes)
    around = distance(soft - 0.10, STEP_UM) + 25 * smooth_noise(rng, nodes, max(8.0, nodes / 8))
    y, x = np.mgrid[:nodes, :nodes].astype(np.float32)
    cy, cx = np.argwhere(inside > 0).mean(0)
    turned = np.angle(np.exp(1j * (np.arctan2(y - cy, x - cx) - rng.uniform(-np.pi, np.pi))))
    half = np.float32(rng.uniform(0.022, 0.034) * layout.side_um)
    # The ends are round, as the felt is.
    ends = (rng.uniform(0.5, 1.1) - np.abs(turned)) * 0.3 * layout.side_um
    ends = np.where(ends > half, half, half - np.hypot(half - ends, around))
    inked = np.clip(np.minimum(half - np.abs(around), ends) / 7, 0, 1)
    # Ink runs to the rim of a stroke as it dries, and the felt leaves streaks.
    rim = 0.25 * np.exp(-(((half - np.abs(around)) / 12) ** 2))
    felt = np.interp(around, np.linspace(-half, half, 24), rng.normal(0, 0.06, 24))
    streaks = felt + 0.06 * smooth_noise(rng, nodes, 12)
    return (inked * np.clip(0.85 + rim + streaks, 0, None)).astype(np.float32)


def upsample_nodes(small: Float32[ndarray, "a a"], nodes: int) -> Float32[ndarray, "nodes nodes"]:
    """A coarse field on `nodes` nodes, linear in between."""
    at = np.linspace(0, len(small) - 1, nodes)
    first = np.minimum(at.astype(int), len(small) - 2)
    t = (at - first).astype(np.float32)
    tall = small[first] * (1 - t)[:, None] + small[first + 1] * t[:, None]
    return tall[:, first] * (1 - t) + tall[:, first + 1] * t


def draw_pen(image: UInt8[ndarray, "h w 3"], ink: Float32[ndarray, "h w"], colour: PenColour) -> None:
    """Lays the ink over the image in place."""
    density = -np.log(np.array(_INKS[colour], np.float32))
    for row, column in _touched(ink > 0):
        block = np.s_[row : row + TILE_PX, column : column + TILE_PX]
        layers = upsample(ink[None], row, column, TILE_PX)[0]
        image[block] = image[block] * np.exp(-layers[..., None] * density) + 0.5


def blur_field(recipe: SlideRecipe, layout: Layout) -> Float32[ndarray, "h w"]:
    """How far out of focus, 0 to 1: one roundish region over tissue, a few per cent of the slide."""
    rng = stream(recipe.seed, "blur")
    nodes = len(layout.tissue)
    # Away from the lesion, so that a lesion is never hidden.
    inside = np.argwhere((layout.tissue > 0.5 * layout.tissue.max()) & (layout.lesion < -0.1 * layout.side_um))
    if not len(inside):
        return np.zeros_like(layout.tissue)
    cy, cx = inside[rng.integers(len(inside))]
    y, x = np.mgrid[:nodes, :nodes].astype(np.float32)
    radius = rng.uniform(0.11, 0.15) * nodes
    away = np.hypot(x - cx, y - cy) + 0.15 * radius * smooth_noise(rng, nodes, max(4.0, radius / 2))
    return np.clip((radius - away) / (0.12 * radius), 0, 1).astype(np.float32)


def draw_blur(image: UInt8[ndarray, "h w 3"], strength: Float32[ndarray, "h w"]) -> None:
    """Takes the image out of focus in place where `strength` says so."""
    blocks = list(_touched(strength > 0))
    margin = int(3 * _BLUR_SIGMA_PX)
    softened = []
    for row, column in blocks:
        r0, c0 = max(0, row - margin), max(0, column - margin)
        around = image[r0 : row + TILE_PX + margin, c0 : column + TILE_PX + margin].astype(np.float32)
        soft = gaussian_filter(around, (_BLUR_SIGMA_PX, _BLUR_SIGMA_PX, 0), truncate=2.5)
        softened.append(soft[row - r0 : row - r0 + TILE_PX, column - c0 : column - c0 + TILE_PX])
    for (row, column), soft in zip(blocks, softened):
        block = np.s_[row : row + TILE_PX, column : column + TILE_PX]
        weight = upsample(strength[None], row, column, TILE_PX)[0][..., None]
        image[block] = image[block] * (1 - weight) + soft * weight + 0.5


def _touched(where: ndarray) -> list[tuple[int, int]]:
    """Top-left pixels (row, column) of the blocks that hold any node of `where`."""
    n = TILE_PX // STEP_PX
    count = (len(where) - 1) // n
    return [
        (r * TILE_PX, c * TILE_PX)
        for r in range(count)
        for c in range(count)
        if where[r * n : (r + 1) * n + 1, c * n : (c + 1) * n + 1].any()
    ]
