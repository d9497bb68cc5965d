"""Whether the µm per pixel that a slide states can be true: nuclei are the ruler that every slide brings along.

The haematoxylin of a few cell-rich fields is cut at Otsu's threshold, and its pieces are measured in two ways: how wide
they are inside (distance to the edge) and how large they are. The geometric mean of the two medians varies little
between slides of one scale and about halves or doubles with a scale that is wrong by two. It is a size of pieces,
smaller than a nucleus, since touching fragments and lymphocytes count too; what is normal was measured on slides whose
scale is known, with limits wider than all of them. So an error under two is not seen, and of those of two not all.

Real nuclei are uneven inside and fall into fragments at the threshold; where they are even (drawn slides, scanners that
smooth) the pieces are whole nuclei, about twice as wide, and count half.

Only H&E is judged: without eosin, with too few pieces or too little contrast, nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy import ndarray
from scipy import ndimage

from coverslip.base.errors import Finding
from coverslip.base.geometry import Box, Size
from coverslip.slide import Slide
from coverslip.slide.stain import separate
from coverslip.tissue import segment_image

# Fields, their side in µm, and the µm per pixel at which they are read (all by the stated scale).
_FIELDS, _FIELD_UM, _MPP = 4, 112.0, 0.3
# Pieces narrower than this are noise (px); few pieces in a field, or a single field, say nothing.
_LEAST_RADIUS_PX, _LEAST_AREA_PX, _LEAST_PIECES, _LEAST_FIELDS = 1.5, 12, 20, 2
# H&E has eosin beside the nuclei, and nuclei that stand out.
_LEAST_EOSIN, _LEAST_CONTRAST = 0.03, 0.08
# Spread of the stain inside pieces, against their contrast, at the true scale: .33 to .47 scanned, .14 to .29 drawn.
_EVEN = 0.31
# Sizes in µm outside which the stated scale is doubted: 49 scanned H&E slides of known scale measure 2.2 to 3.4.
SMALLEST_UM, LARGEST_UM = 2.1, 4.0
_NORMAL_UM = 3.0


@dataclass(frozen=True)
class NucleusSize:
    """The median size of haematoxylin pieces over the fields, in stated µm, and how many fields could be judged."""

    um: float
    fields: int


def mpp_against_nuclei(slide: Slide, image: UInt8[ndarray, "h w 3"], image_mpp: float | None) -> list[Finding]:
    """mpp_suspect, where nuclei would be about half or twice as large as nuclei are; else nothing.

    `image` is the slide's overview and `image_mpp` its µm per pixel. A slide without scale is not asked.

    Raises:
        SlideError: a field cannot be decoded.
    """
    if slide.mpp is None or image_mpp is None:
        return []
    size = nucleus_size(slide, image, image_mpp)
    if size is None or SMALLEST_UM <= size.um <= LARGEST_UM:
        return []
    factor = _NORMAL_UM / size.um
    likely = slide.mpp * factor
    way = f"{factor:.1f} times larger" if factor > 1 else f"{1 / factor:.1f} times smaller"
    return [
        Finding(
            "mpp_suspect",
            f"At the stated {slide.mpp:.3g} µm per pixel the nuclei are too {'small' if factor > 1 else 'large'}: the "
            f"true scale may be about {way} ({likely:.2g} µm per pixel).",
            "Compare with a slide of the same scanner; give the right value in the cohort's 'mpp' column.",
        )
    ]


def nucleus_size(slide: Slide, image: UInt8[ndarray, "h w 3"], image_mpp: float) -> NucleusSize | None:
    """The size of nuclei in µm by the slide's stated scale; None where the slide shows no H&E nuclei to measure.

    Raises:
        SlideError: a field cannot be decoded.
    """
    mpp = slide.require_mpp()
    fields = []
    for box in _cell_rich(slide, image, image_mpp, mpp):
        out = Size(max(16, round(box.width * mpp / _MPP)), max(16, round(box.height * mpp / _MPP)))
        found = _pieces(slide.read(box, out))
        if found is not None:
            fields.append(found)
    if len(fields) < _LEAST_FIELDS:
        return None
    size, uneven = np.median(np.array(fields), axis=0)
    return NucleusSize(float(size) * _MPP / (2 if uneven < _EVEN else 1), len(fields))


def _cell_rich(slide: Slide, image: ndarray, image_mpp: float, mpp: float) -> list[Box]:
    """Boxes, in level-0 px, of the fields with most haematoxylin, apart from each other."""
    tissue = segment_image(image, mpp=image_mpp)
    amount = np.where(tissue, separate(image)[..., 0], 0).astype(np.float32)
    scale = max(slide.size) / max(image.shape[:2])
    side = max(1, round(_FIELD_UM / mpp))
    reach = max(1, round(side / scale))
    mean = ndimage.uniform_filter(amount, reach, mode="constant")
    boxes = []
    for _ in range(_FIELDS):
        row, column = np.unravel_index(int(np.argmax(mean)), mean.shape)
        if mean[row, column] <= 0:
            break
        width, height = min(side, slide.size.width), min(side, slide.size.height)
        x = int(np.clip((column + 0.5) * scale - width / 2, 0, slide.size.width - width))
        y = int(np.clip((row + 0.5) * scale - height / 2, 0, slide.size.height - height))
        boxes.append(Box(x, y, width, height))
        mean[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = 0
    return boxes


def _pieces(rgb: UInt8[ndarray, "h w 3"]) -> tuple[float, float] | None:
    """The size of the haematoxylin pieces of one field, in its pixels, and how uneven they are inside; None where it
    shows no H&E nuclei."""
    stains = separate(rgb)
    blue: Float32[ndarray, "h w"] = ndimage.gaussian_filter(np.clip(stains[..., 0], 0, 2), 1.0)
    inside: Bool[ndarray, "h w"] = blue > _otsu(blue)
    if not inside.any() or inside.all():
        return None
    contrast = float(blue[inside].mean() - blue[~inside].mean())
    if float(stains[..., 1][~inside].mean()) < _LEAST_EOSIN or contrast < _LEAST_CONTRAST:
        return None
    depth = ndimage.distance_transform_edt(inside)
    smooth = ndimage.gaussian_filter(depth, 1.0)
    middles = (smooth == ndimage.maximum_filter(smooth, 7)) & (depth >= _LEAST_RADIUS_PX)
    areas = np.bincount(ndimage.label(inside)[0].reshape(-1))[1:]
    areas = areas[areas > _LEAST_AREA_PX]
    if min(int(middles.sum()), len(areas)) < _LEAST_PIECES:
        return None
    width = 2 * float(np.median(depth[middles]))
    breadth = 2 * float(np.sqrt(np.median(areas) / np.pi))
    return float(np.sqrt(width * breadth)), float(blue[inside].std()) / contrast


def _otsu(values: Float32[ndarray, "h w"]) -> float:
    """The threshold that parts values into two groups as unlike as can be (Otsu 1979,
    https://doi.org/10.1109/TSMC.1979.4310076)."""
    counts, edges = np.histogram(values, 128)
    centres = (edges[1:] + edges[:-1]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * centres)
    between = np.zeros(len(counts))
    apart = (below > 0) & (below < total)
    between[apart] = (sums[-1] * below[apart] - total * sums[apart]) ** 2 / (below[apart] * (total - below[apart]))
    return float(centres[int(np.argmax(between))])
