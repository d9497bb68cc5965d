"""From layout and nuclei to pixels: concentrations of both dyes, then Beer-Lambert through the site's stain."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from scipy.ndimage import gaussian_filter

from coverslip.base.random import stream
from coverslip.synthetic.fields import upsample
from coverslip.synthetic.layout import Layout
from coverslip.synthetic.recipe import DRAWN_MPP, SITES, TILE_PX, SlideRecipe

# Concentrations are drawn in 1/100 and kept in a byte.
UNIT = 0.01
_FIBRE_ACROSS, _FIBRE_ALONG = 256, 1024


def render(recipe: SlideRecipe, layout: Layout, nuclei: UInt8[ndarray, "side side"]) -> UInt8[ndarray, "side side 3"]:
    """The slide as sRGB, without pen and blur. Blocks without tissue cost next to nothing."""
    side = recipe.side_px
    image = np.empty((side, side, 3), np.uint8)
    table = _stain_table(recipe)
    grain, speckle, fibre = _textures()
    fields = np.stack(
        [layout.tissue, layout.epithelium, layout.lumen, layout.density, layout.atypia, layout.secretion]
        + [layout.across, layout.along]
        + ([layout.thickness] if recipe.fold else [])
    )
    for row in range(0, side, TILE_PX):
        for column in range(0, side, TILE_PX):
            block = np.s_[row : row + TILE_PX, column : column + TILE_PX]
            noise = np.roll(speckle, (row * 7 + column * 3) % 251, axis=1)
            coarse = _window(layout.tissue, row, column)
            if coarse.max() < -4:
                image[block] = (
                    table[_index(1.2 + noise, 1.5 + np.roll(noise, 101, axis=0))]
                    .view(np.uint8)
                    .reshape(TILE_PX, TILE_PX, 4)[..., :3]
                )
                continue
            values = upsample(fields, row, column, TILE_PX)
            h, e = _concentrations(values, nuclei[block], grain, fibre)
            image[block] = (
                table[_index(h + noise + 1.2, e + noise * 1.3 + 1.5)]
                .view(np.uint8)
                .reshape(TILE_PX, TILE_PX, 4)[..., :3]
            )
    return image


def _window(field: Float32[ndarray, "h w"], row: int, column: int) -> Float32[ndarray, "r c"]:
    r, c, n = row // 8, column // 8, TILE_PX // 8 + 1
    return field[r : r + n, c : c + n]


def _concentrations(
    values: Float32[ndarray, "f h w"],
    nuclei: UInt8[ndarray, "h w"],
    grain: Float32[ndarray, "h w"],
    fibre: Float32[ndarray, "across along"],
) -> tuple[Float32[ndarray, "h w"], Float32[ndarray, "h w"]]:
    """Haematoxylin and eosin of one block in 1/100."""
    tissue, epithelium, lumen, density, atypia, secretion, across, along = values[:8]
    # The fibre picture has one pixel every half µm across and every µm along.
    strand = fibre[
        (across * (1 / DRAWN_MPP)).astype(np.int32) & (_FIBRE_ACROSS - 1), along.astype(np.int32) & (_FIBRE_ALONG - 1)
    ]
    # Stroma: pink strands, open clefts between them where the tissue is loose.
    e = 47 + 13 * density + 9 * strand
    e *= np.clip((strand + 2.1 + 0.6 * density) * 1.3, 0.08, 1)
    h = 8 + 3 * density + 2.5 * strand
    # Epithelium: granular cytoplasm, paler in the lesion, which its crowded nuclei darken; a thin cleft on its outside.
    wall = np.clip(epithelium * 0.7 + 0.8 * grain + 0.5, 0, 1)
    cleft = np.clip(1.6 - np.abs(epithelium + 2.0) * 0.8, 0, 1)
    e *= 1 - 0.55 * cleft
    e += wall * (40 + 5 * grain - 11 * atypia - e)
    h += wall * (17 + 3.5 * grain - 2 * atypia - h)
    # Lumen: empty, or filled with pale pink secretion.
    open_ = np.clip(lumen * 0.8 + 0.7 * grain + 0.5, 0, 1) * wall
    e += open_ * (1 + (17 + 4 * grain) * secretion - e)
    h += open_ * (0.5 + 1.0 * secretion - h)
    # A nucleus holds little eosin.
    n = nuclei.astype(np.float32)
    h += n
    e *= 1 - n * (0.45 / 110)
    if len(values) > 8:
        # The second layer of a fold is stroma of its own, so that lumens close as well.
        second = values[8] - 1
        e += second * (45 + 8 * grain)
        h += second * (16 + 4 * grain)
    inside = np.clip(tissue * 0.6 + 0.9 * strand + 0.5, 0, 1)
    return h * inside, e * inside


def _index(h: Float32[ndarray, "h w"], e: Float32[ndarray, "h w"]) -> ndarray:
    """Row of the stain table for each pixel."""
    high = np.clip(h, 0, 255).astype(np.uint16)
    return (high << 8) | np.clip(e, 0, 255).astype(np.uint16)


def _stain_table(recipe: SlideRecipe) -> ndarray:
    """The colour of every pair of concentrations as packed RGBX (65536,): Beer-Lambert once, not once a pixel."""
    site = SITES[recipe.site]
    rng = stream(recipe.seed, "stain", recipe.site)
    # Slides of a site differ in thickness and staining time, and a little in hue.
    strength = np.array(site.strength) * np.exp(rng.normal(0, 0.06, 2))
    matrix = np.array([site.haematoxylin, site.eosin]) * np.exp(rng.normal(0, 0.015, (2, 3)))
    white = np.array(site.white) + rng.normal(0, 1.0, 3)
    h, e = np.divmod(np.arange(1 << 16), 256)
    density = np.stack([h, e], 1) * UNIT * strength @ matrix
    table = np.zeros((1 << 16, 4), np.uint8)
    table[:, :3] = np.clip(np.rint(white * np.exp(-density)), 0, 255)
    return table.view(np.uint32)[:, 0]


@lru_cache(maxsize=1)
def _textures() -> tuple[Float32[ndarray, "t t"], Float32[ndarray, "t t"], Float32[ndarray, "across along"]]:
    """Grain of cytoplasm and noise of the camera (one block each), and strands of stroma; all wrap around."""
    rng = stream(0, "textures")
    grain = _unit(gaussian_filter(rng.standard_normal((TILE_PX, TILE_PX)), 1.6, mode="wrap"))
    speckle = _unit(gaussian_filter(rng.standard_normal((TILE_PX, TILE_PX)), 0.6, mode="wrap")) * 1.1
    white = rng.standard_normal((3, _FIBRE_ACROSS, _FIBRE_ALONG))
    fibre = (
        _unit(gaussian_filter(white[0], (1.4, 11), mode="wrap"))
        + 0.9 * _unit(gaussian_filter(white[1], (4.0, 28), mode="wrap"))
        + 0.35 * _unit(gaussian_filter(white[2], (0.9, 2.5), mode="wrap"))
    )
    return grain, speckle.astype(np.float32), _unit(fibre)


def _unit(values: ndarray) -> Float32[ndarray, ...]:
    return ((values - values.mean()) / values.std()).astype(np.float32)
