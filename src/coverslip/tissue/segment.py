"""Tissue of a slide or an image: a registered method decides, specks and holes are cleaned, quality is looked at."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray
from scipy.ndimage import binary_opening

from coverslip.base.geometry import Box, Size
from coverslip.base.registry import TISSUE
from coverslip.slide import Slide
from coverslip.tissue.mask import TissueMask
from coverslip.tissue.quality import FOCUS_MPP, blur_layer, quality_layers

# A fragment smaller than this is dust or a floater. A hole smaller than this is a lumen, a vessel or a fat cell; it is
# smaller than a tile of 224 px at 0.5 µm/px, so that no tile of glass alone comes from filling it.
LEAST_TISSUE_UM2 = 10_000.0
LEAST_HOLE_UM2 = 8_000.0
# Without a scale: the same as parts of the image's area, for a slide of some 15 mm.
_LEAST_TISSUE_PART = 5e-5
_LEAST_HOLE_PART = 4e-5
# Up to this many pixels focus is judged everywhere, beyond it on samples.
_FINE_PX = 12_000_000
_SAMPLES = 400


def segment(slide: Slide, method: str = "otsu", *, mpp: float = 8.0, quality: bool = True) -> TissueMask:
    """The tissue of a slide at about `mpp` µm per mask pixel (a whole number of level-0 px), and what spoils it.

    `quality=False` leaves the layers (pen, blur, fold) out. On slides too large to look at everywhere at 2 µm/px,
    focus is judged at 400 places at most and each place speaks for its surroundings.

    Raises:
        SlideError: the slide has no mpp, or cannot be read.
        SettingsError: there is no method of that name.
    """
    slide_mpp = slide.require_mpp()
    # Whole numbers of level-0 px per fine pixel and of fine pixels per mask pixel: everything lies on one grid.
    fine_step = max(1, round(FOCUS_MPP / slide_mpp))
    factor = max(1, round(mpp / (fine_step * slide_mpp)))
    step = fine_step * factor
    width, height = max(1, slide.size.width // step), max(1, slide.size.height // step)
    field = Box(0, 0, min(width * step, slide.size.width), min(height * step, slide.size.height))
    fine = None
    if quality and width * height * factor**2 <= _FINE_PX:
        fine = slide.read(field, Size(width * factor, height * factor))
        rgb = _reduced(fine, factor)
    else:
        rgb = slide.read(field, Size(width, height))
    mask_mpp = step * slide_mpp
    mask = segment_image(rgb, mpp=mask_mpp, method=method, keep_ink=True)
    layers = {}
    if quality:
        layers = dict(quality_layers(rgb, mask, mpp=mask_mpp, fine=fine))
        if fine is None:
            layers["blur"] = _sampled_blur(slide, mask & ~layers["pen"], step, factor, mask_mpp)
    return TissueMask(
        slide=slide.id,
        mask=_to_the_edge(mask, slide.size, step),
        scale=float(step),
        mpp=slide_mpp,
        method=method,
        layers={name: _to_the_edge(layer, slide.size, step) for name, layer in layers.items()},
    )


def segment_image(
    rgb: UInt8[ndarray, "h w 3"], *, mpp: float | None, method: str = "otsu", keep_ink: bool = False
) -> Bool[ndarray, "h w"]:
    """Tissue of an image at `mpp` µm per pixel, None where that is not known.

    Ink of a pen is taken out, since it is no tissue; `keep_ink=True` leaves it in for a caller who has the "pen" layer.

    Raises:
        SettingsError: there is no method of that name.
    """
    mask = np.asarray(TISSUE.load(method)(rgb, mpp=mpp), bool)
    if not keep_ink and mask.any():
        ink = quality_layers(rgb, mask, mpp=mpp)["pen"]
        if ink.any():
            # The soft rim of a stroke is thin, tissue is not.
            mask = binary_opening(mask & ~ink, iterations=1 if mpp is None else max(1, round(12 / mpp)))
    area = mask.size
    specks, holes = (
        (_LEAST_TISSUE_PART * area, _LEAST_HOLE_PART * area)
        if mpp is None
        else (min(LEAST_TISSUE_UM2 / mpp**2, 0.01 * area), LEAST_HOLE_UM2 / mpp**2)
    )
    return clean(mask, specks_px=specks, holes_px=holes)


def clean(mask: Bool[ndarray, "h w"], *, specks_px: float, holes_px: float) -> Bool[ndarray, "h w"]:
    """The mask without parts smaller than `specks_px` and without holes smaller than `holes_px` pixels.

    Parts are connected over corners, holes are not. What touches the image's border is no hole.
    """
    _, parts, found, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    large = found[:, cv2.CC_STAT_AREA] >= specks_px
    large[0] = False
    mask = large[parts]
    _, gaps, found, _ = cv2.connectedComponentsWithStats((~mask).view(np.uint8), connectivity=4)
    small = found[:, cv2.CC_STAT_AREA] < holes_px
    small[0] = False
    border = np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]])
    small[border] = False
    return mask | small[gaps]


def _reduced(image: UInt8[ndarray, "a b 3"], factor: int) -> UInt8[ndarray, "h w 3"]:
    """The image with `factor` × `factor` pixels averaged into one."""
    h, w = image.shape[0] // factor, image.shape[1] // factor
    rows = np.add.reduceat(image, np.arange(0, h * factor, factor), axis=0, dtype=np.uint16)
    total = np.add.reduceat(rows, np.arange(0, w * factor, factor), axis=1, dtype=np.uint32)
    return ((total + factor * factor // 2) // (factor * factor)).astype(np.uint8)


def _to_the_edge(mask: Bool[ndarray, "h w"], size: Size, step: int) -> Bool[ndarray, "H W"]:
    """The mask extended over the last, partial row and column of the slide by the values next to them."""
    missing = (-(-size.height // step) - mask.shape[0], -(-size.width // step) - mask.shape[1])
    return np.pad(mask, ((0, missing[0]), (0, missing[1])), mode="edge")


def _sampled_blur(
    slide: Slide, mask: Bool[ndarray, "h w"], step: int, factor: int, mask_mpp: float
) -> Bool[ndarray, "h w"]:
    """Focus of square cells of a large slide, each judged by a patch of some 0.13 mm in its middle."""
    h, w = mask.shape
    patch = max(8, round(128 / mask_mpp))
    side = max(patch, int(np.sqrt(np.count_nonzero(mask) / _SAMPLES)))
    blurred = np.zeros_like(mask)
    for row in range(0, h, side):
        for column in range(0, w, side):
            cell = np.s_[row : row + side, column : column + side]
            if np.count_nonzero(mask[cell]) < 0.25 * side * side:
                continue
            r = min(max(0, row + (side - patch) // 2), max(0, h - patch))
            c = min(max(0, column + (side - patch) // 2), max(0, w - patch))
            here = mask[r : r + patch, c : c + patch]
            box = Box(c * step, r * step, here.shape[1] * step, here.shape[0] * step)
            fine = slide.read(box, Size(here.shape[1] * factor, here.shape[0] * factor))
            found = blur_layer(fine, here, factor=factor, mpp=mask_mpp)
            if 2 * np.count_nonzero(found) > np.count_nonzero(here):
                blurred[cell] = mask[cell]
    return blurred
