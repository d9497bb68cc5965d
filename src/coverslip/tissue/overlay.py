"""A picture of what was taken for tissue, for reports."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray
from scipy.ndimage import binary_dilation, binary_erosion

from coverslip.tissue.mask import LAYER_COLOURS, TissueMask

_TINT = 0.45
_FADE = 0.55


def overlay(rgb: UInt8[ndarray, "h w 3"], tissue: TissueMask) -> UInt8[ndarray, "h w 3"]:
    """The thumbnail with a line around the tissue and each layer tinted; what is neither fades towards white.

    `rgb` shows the whole slide, at any size.
    """
    h, w = rgb.shape[:2]
    inside = _resized(tissue.usable(("pen",)), h, w)
    image = rgb.astype(np.float32)
    image[~inside] += _FADE * (255 - image[~inside])
    for name, layer in tissue.layers.items():
        where = _resized(layer, h, w)
        colour = np.array(LAYER_COLOURS.get(name, (128, 128, 128)), np.float32)
        image[where] += _TINT * (colour - image[where])
    width = max(1, round(max(h, w) / 500))
    line = binary_dilation(inside, iterations=width) & ~binary_erosion(inside, iterations=1, border_value=1)
    image[line] = LAYER_COLOURS["tissue"]
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _resized(mask: Bool[ndarray, "a b"], h: int, w: int) -> Bool[ndarray, "h w"]:
    """The mask at another size, by the nearest pixel."""
    rows = ((np.arange(h) + 0.5) * mask.shape[0] / h).astype(np.intp)
    columns = ((np.arange(w) + 0.5) * mask.shape[1] / w).astype(np.intp)
    return mask[rows[:, None], columns[None, :]]
