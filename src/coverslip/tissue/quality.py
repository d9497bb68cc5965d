"""What spoils tissue: ink of a pen, regions out of focus, folds. Each is a mask, to be excluded or kept by choice.

The rules are ratios between optical densities of R, G and B, written r, g and b below. On haematoxylin-eosin the green
channel absorbs most, on DAB the blue one; r/g stays below about 0.8 and, but for blood, b/g as well. What the inks do
differently is what is asked. Figures in the comments were read off real slides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8
from numpy import ndarray
from scipy.ndimage import (
    binary_dilation,
    distance_transform_edt,
    find_objects,
    gaussian_filter,
    label,
    uniform_filter,
)

from coverslip.tissue.glass import optical_density, unscanned, white_level

# The rules for ink look at this scale: nuclei and fibres average out, a stroke (0.2 mm and more) does not.
_INK_UM = 12.0
# Smaller spots are not a stroke. Strokes lose their soft rim this far out.
_INK_LEAST_UM2 = 15_000.0
_INK_RIM_UM = 16.0
# Detail is judged at about this scale, over windows of this size.
FOCUS_MPP = 2.0
_FOCUS_WINDOW_UM = 64.0
# In-focus tissue keeps over this much of the contrast of 8 µm structures at 4 µm, blurred tissue loses it.
_FOCUS_RATIO = 0.28
_FOCUS_LEAST_CONTRAST = 4.0
# Tissue at this distance is what a fold is compared with; a fold is this many times as long as wide.
_FOLD_AROUND_UM = 100.0
_FOLD_LONG = 3.0
_FOLD_LEAST_UM = 150.0
_FOLD_LEAST_UM2 = 4_000.0


def quality_layers(
    rgb: UInt8[ndarray, "h w 3"],
    mask: Bool[ndarray, "h w"],
    *,
    mpp: float | None,
    fine: UInt8[ndarray, "a b 3"] | None = None,
) -> Mapping[str, Bool[ndarray, "h w"]]:
    """Masks "pen" and "fold" of an image at `mpp` µm per pixel, and "blur" where it can be judged.

    Focus is judged on `fine`, the same field at about 2 µm/px with a whole number of pixels for each of `rgb`, or on
    `rgb` itself where that is fine enough. Without a scale, sizes are taken as if it were 8 µm per pixel and focus is
    not judged.
    """
    white = white_level(rgb)
    density = optical_density(rgb, white)
    scale = 8.0 if mpp is None else mpp
    layers = {"pen": pen_layer(density, mpp=scale) & ~unscanned(rgb)}
    layers["fold"] = fold_layer(density, mask & ~layers["pen"], mpp=scale)
    if fine is not None:
        factor = fine.shape[0] // rgb.shape[0]
        layers["blur"] = blur_layer(fine, mask & ~layers["pen"], factor=factor, mpp=scale)
    elif mpp is not None and mpp <= 1.5 * FOCUS_MPP:
        layers["blur"] = blur_layer(rgb, mask & ~layers["pen"], factor=1, mpp=scale)
    return layers


def pen_layer(density: Float32[ndarray, "h w 3"], *, mpp: float) -> Bool[ndarray, "h w"]:
    """Ink of red, green, blue and black felt pens.

    A strong rule finds certain ink, a weak one what may be ink; what is weak and touches strong is ink. Ink over
    tissue mixes with the stain, so faint strokes over dense tissue are found in part only. Pools of blood look like
    red ink where they are over 0.1 mm wide and dense.
    """
    if not density.size:
        return np.zeros(density.shape[:2], bool)
    sigma = _INK_UM / mpp / 2
    r, g, b = (
        gaussian_filter(density[..., c], sigma, truncate=2.0) if sigma > 0.3 else density[..., c] for c in range(3)
    )
    result = np.zeros(r.shape, bool)
    most = np.maximum(np.maximum(r, g), b)
    least = np.minimum(np.minimum(r, g), b)
    # Green, blue, red, black. Real ink: green r/g 1.2 to 3.9; blue 1.9, b/g 0.24; red r/g under 0.25, b/g 0.7 to 1.05;
    # black dark in every channel.
    # Tissue: blue-grey counterstain of IHC has r/g up to 1.18; eosin r/g down to 0.1 but b/g under 0.7.
    strong_weak = (
        ((r > 0.5) & (r > 1.35 * g) & (b > 0.8 * g), (r > 0.3) & (r > 1.0 * g) & (b > 0.74 * g)),
        ((r > 0.7) & (r > 1.4 * g) & (b < 0.8 * g), (r > 0.35) & (r > 1.15 * g) & (b < 0.9 * g)),
        ((g > 0.9) & (r < 0.25 * g) & (b > 0.80 * g), (g > 0.35) & (r < 0.30 * g) & (b > 0.66 * g)),
        ((least > 1.3) & (least > 0.55 * most), (least > 0.75) & (least > 0.45 * most)),
    )
    for strong, weak in strong_weak:
        if strong.any():
            result |= _touching(strong, strong | weak, _INK_LEAST_UM2 / mpp**2)
    if result.any():
        rim = max(1, round(_INK_RIM_UM / mpp))
        result = binary_dilation(result, iterations=rim)
    return result


def _smooth(values: Float32[ndarray, "h w"], sigma: float) -> Float32[ndarray, "h w"]:
    return gaussian_filter(values, sigma, truncate=2.0) if sigma > 0.3 else values


def _touching(strong: Bool[ndarray, "h w"], weak: Bool[ndarray, "h w"], least_px: float) -> Bool[ndarray, "h w"]:
    """The connected parts of `weak` over `least_px` of which at least a quarter of `least_px` is `strong`."""
    labels, count = label(weak)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    certain = np.bincount(labels[strong], minlength=count + 1)
    keep = (certain > least_px / 4) & (sizes > least_px)
    keep[0] = False
    return keep[labels]


def fold_layer(density: Float32[ndarray, "h w 3"], mask: Bool[ndarray, "h w"], *, mpp: float) -> Bool[ndarray, "h w"]:
    """Tissue that lies on itself: a band, much denser than the tissue around it in the proportions of that tissue.

    Crowds of nuclei are dense as well, but what they have more than their surroundings absorbs red more than the rest
    of the tissue does; and they are rarely bands. Narrow folds and folds at the very edge are missed.
    """
    if np.count_nonzero(mask) * mpp**2 < 4 * _FOLD_AROUND_UM**2:
        return np.zeros_like(mask)
    sigma = 6.0 / mpp
    r, g = (_smooth(density[..., c], sigma) for c in (0, 1))
    around_r, around_g = _means_around((r, g), mask, _FOLD_AROUND_UM / mpp)
    usual_hue = float(np.median(r[mask] / np.maximum(g[mask], 0.05)))
    # The second condition compares the colour of what is added with the colour of the tissue.
    same_dyes = (r - around_r) < 1.2 * usual_hue * (g - around_g)
    strong = mask & same_dyes & (g > 1.6 * around_g) & (g > 0.5)
    weak = mask & same_dyes & (g > 1.4 * around_g)
    return bands(_touching(strong, weak, _FOLD_LEAST_UM2 / mpp**2), mpp)


def _means_around(
    channels: Sequence[Float32[ndarray, "h w"]], mask: Bool[ndarray, "h w"], sigma: float
) -> list[Float32[ndarray, "h w"]]:
    """Mean of the tissue near each pixel, weighted by a Gaussian, of each channel."""
    weight = np.maximum(gaussian_filter(mask.astype(np.float32), sigma, truncate=2.0), 1e-3)
    return [gaussian_filter(np.where(mask, c, np.float32(0)), sigma, truncate=2.0) / weight for c in channels]


def bands(mask: Bool[ndarray, "h w"], mpp: float) -> Bool[ndarray, "h w"]:
    """The connected parts that are one band: long for their width, and not a net of many.

    A band fills its length times its width; a net, such as the walls of crowded glands, fills far more.
    """
    labels, count = label(mask, np.ones((3, 3)))
    if not count:
        return mask
    boxes = find_objects(labels)
    width = np.array([_widest(labels, number, box) for number, box in enumerate(boxes, start=1)])
    area = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    length = np.array([np.hypot(s[0].stop - s[0].start, s[1].stop - s[1].start) for s in boxes])
    band = (length > _FOLD_LONG * width) & (length * mpp > _FOLD_LEAST_UM) & (area < 1.2 * length * width)
    return np.concatenate([[False], band])[labels]


def _widest(labels: Int32[ndarray, "h w"], number: int, box: tuple[slice, slice]) -> float:
    """Twice the greatest distance of a pixel of the part to what is not part; beyond the image nothing is known."""
    around = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
    return 2 * float(distance_transform_edt(labels[around] == number).max())


def blur_layer(
    fine: UInt8[ndarray, "a b 3"], mask: Bool[ndarray, "h w"], *, factor: int, mpp: float
) -> Bool[ndarray, "h w"]:
    """The part of `mask` that is out of focus, judged on `fine` with `factor` × `factor` pixels for each of the mask's.

    The measure is how much of the contrast that structures of two fine pixels' width show is left at one pixel's
    width: energy of a Laplacian over that of the same Laplacian on the image at half the size. A ratio depends neither
    on stain nor on how much there is to see; where there is next to nothing to see, nothing is flagged.
    """
    ratio, contrast = focus_ratio(fine, mask, factor=factor, window_px=max(1, round(_FOCUS_WINDOW_UM / mpp)))
    flagged = (ratio < _FOCUS_RATIO) & (contrast > _FOCUS_LEAST_CONTRAST) & mask
    # A window that holds anything sharp is sharp, so what is flagged ends half a window too early.
    half = round(_FOCUS_WINDOW_UM / mpp / 2)
    return binary_dilation(flagged, iterations=half) & mask if half and flagged.any() else flagged


def focus_ratio(
    fine: UInt8[ndarray, "a b 3"], mask: Bool[ndarray, "h w"], *, factor: int, window_px: int
) -> tuple[Float32[ndarray, "h w"], Float32[ndarray, "h w"]]:
    """Energy of the finest detail over that of detail twice as coarse, and the latter (grey levels squared), over the
    part of `mask` in windows of `window_px` of its pixels."""
    h, w = mask.shape
    # The green channel shows all common dyes.
    grey = np.zeros((h * factor, w * factor), np.float32)
    part = fine[: h * factor, : w * factor, 1]
    grey[: part.shape[0], : part.shape[1]] = part
    half = _halved(grey)
    detail = _energy(grey, factor, mask.shape)
    if factor % 2 == 0:
        coarse = _energy(half, factor // 2, mask.shape)
    else:
        coarse = _energy(np.repeat(np.repeat(half, 2, 0), 2, 1), factor, mask.shape)
    # Ink and glass have edges of their own and do not take part.
    share = np.maximum(uniform_filter(mask.astype(np.float32), window_px), 1e-3)
    detail, coarse = (uniform_filter(energy * mask, window_px) / share for energy in (detail, coarse))
    return detail / np.maximum(coarse, 1e-6), coarse


def _halved(grey: Float32[ndarray, "a b"]) -> Float32[ndarray, "c d"]:
    a, b = grey.shape[0] // 2 * 2, grey.shape[1] // 2 * 2
    even = grey[:a, :b]
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) * 0.25


def _energy(grey: Float32[ndarray, "a b"], factor: int, shape: tuple[int, int]) -> Float32[ndarray, "h w"]:
    """Mean square of the Laplacian in blocks of `factor`."""
    laplacian = np.zeros_like(grey)
    inner = laplacian[1:-1, 1:-1]
    np.add(grey[:-2, 1:-1], grey[2:, 1:-1], out=inner)
    inner += grey[1:-1, :-2]
    inner += grey[1:-1, 2:]
    inner -= 4 * grey[1:-1, 1:-1]
    laplacian *= laplacian
    h, w = shape
    full = np.zeros((h * factor, w * factor), np.float32)
    a, b = min(full.shape[0], grey.shape[0]), min(full.shape[1], grey.shape[1])
    full[:a, :b] = laplacian[:a, :b]
    return full.reshape(h, factor, w, factor).mean(axis=(1, 3))
