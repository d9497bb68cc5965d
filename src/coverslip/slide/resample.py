"""Area resampling: every output pixel is the mean of exactly the source area it covers, fractions included.

Averaging keeps the colour of a tile whatever the ratio, does not alias, and does not depend on where a tile starts:
the neighbours of two touching tiles never overlap. Enlarging (ratio below 1) interpolates linearly between pixel
centres; at ratio 1 both give the image back.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from scipy.sparse import csr_array

from coverslip.base.geometry import Size


class Region(NamedTuple):
    """A rectangle in pixels of one image, with fractions; what lies outside the image does not count."""

    x: float
    y: float
    width: float
    height: float


def touched(start: Any, length: Any, side: int) -> tuple[Any, Any]:
    """The whole pixels along one axis of `side` pixels, first and behind the last, that positions with fractions touch;
    at least one. Takes numbers and arrays."""
    low = np.clip(np.floor(start), 0, side - 1).astype(np.int64)
    return low, np.clip(np.ceil(start + length), low + 1, side).astype(np.int64)


def snapped(values: Any) -> Any:
    """Numbers, whole where they are whole but for rounding. Takes numbers and arrays."""
    whole = np.round(values)
    return np.where(np.abs(values - whole) < 1e-6, whole, values)


def resample(
    image: UInt8[ndarray, "h w 3"], out: Size, region: Region | None = None, *, room: UInt8[ndarray, s] | None = None
) -> UInt8[ndarray, "oh ow 3"]:
    """`region` of the image (all of it by default) at `out` pixels; halves round up. They may lie in `room`, which is
    flat and at least as long.

    A whole-number ratio on whole pixels is exact: (sum + n/2) // n over the n pixels of each block.
    """
    height, width, channels = image.shape
    x, y, w, h = region or Region(0, 0, width, height)
    if (w, h) == out and x == int(x) and y == int(y) and x >= 0 and y >= 0 and x + w <= width and y + h <= height:
        return np.ascontiguousarray(image[int(y) : int(y + h), int(x) : int(x + w)])
    if (w, h) == (2 * out.width, 2 * out.height) == (width, height) and x == y == 0:
        # By far the most frequent ratio. OpenCV computes it in whole numbers, (a + b + c + d + 2) // 4.
        into = None if room is None else room[: out.width * out.height * 3].reshape(out.height, out.width, 3)
        return cv2.resize(image, out, dst=into, interpolation=cv2.INTER_AREA)
    rows, row_sums = _weights(height, y, h, out.height)
    columns, column_sums = _weights(width, x, w, out.width)
    # Sums first, one division at the end: whole weights stay whole numbers in float32, and ties round as they should.
    tall = rows @ image.reshape(height, width * channels).astype(np.float32)  # (oh, w*c)
    turned = cv2.transpose(tall.reshape(out.height, width, channels)).reshape(width, -1)  # (w, oh*c)
    sums = (columns @ turned).reshape(out.width, out.height, channels)  # (ow, oh, c)
    sums /= (column_sums[:, None] * row_sums)[..., None]
    sums += np.float32(0.5)
    # A float sum of weights can pass 255.5 by its last bit.
    return cv2.transpose(np.minimum(sums, np.float32(255), out=sums).astype(np.uint8))


@lru_cache(maxsize=512)
def _weights(num_in: int, start: float, length: float, num_out: int) -> tuple[csr_array, Float32[ndarray, n]]:
    """The sparse (num_out, num_in) matrix that sums one axis, and the sum of each of its rows."""
    step = length / num_out
    if step >= 1:
        index, weight = _area_taps(start, step, num_out)
    else:
        index, weight = _linear_taps(start, step, num_in, num_out)
    inside = (index >= 0) & (index < num_in)
    weight = np.where(inside, weight, 0.0)
    index = np.clip(index, 0, num_in - 1)
    # An output pixel that lies wholly outside takes the nearest pixel there is.
    empty = weight.sum(axis=1) < 1e-6
    weight[empty, 0] = 1.0
    row = np.repeat(np.arange(num_out), index.shape[1])
    keep = weight.ravel() > 0
    matrix = csr_array(
        (weight.ravel()[keep].astype(np.float32), (row[keep], index.ravel()[keep])), shape=(num_out, num_in)
    )
    return matrix, np.asarray(matrix.sum(axis=1), dtype=np.float32).ravel()


def _area_taps(start: float, step: float, num_out: int) -> tuple[ndarray, ndarray]:
    low = start + np.arange(num_out) * step
    high = low + step
    index = np.floor(low).astype(np.int64)[:, None] + np.arange(int(np.ceil(step)) + 1)
    weight = np.minimum(high[:, None], index + 1) - np.maximum(low[:, None], index)
    # Below a millionth of a pixel it is rounding of the positions, not picture.
    return index, np.where(weight > 1e-6, weight, 0.0)


def _linear_taps(start: float, step: float, num_in: int, num_out: int) -> tuple[ndarray, ndarray]:
    centre = np.clip(start + (np.arange(num_out) + 0.5) * step - 0.5, 0, num_in - 1)
    low = np.floor(centre)
    index = low.astype(np.int64)[:, None] + np.arange(2)
    fraction = centre - low
    return index, np.stack([1 - fraction, fraction], axis=1)
