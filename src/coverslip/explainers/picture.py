"""Drawing a map of tile scores: colours over the slide in grey, a scale bar, and a colour bar with its name."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from coverslip.explainers.colours import colours_of

_FOOTER_PX = 46
_MARGIN_PX = 10
_LEAST_WIDTH_PX = 360
_TEXT = (40, 40, 40)


def draw(
    background: UInt8[ndarray, "h w 3"],
    xy: Float[ndarray, "n 2"],
    side: float,
    scores: Float[ndarray, n],
    *,
    limits: tuple[float, float],
    signed: bool,
    label: str,
    mpp: float,
    opacity: float,
) -> Image.Image:
    """The picture. `xy` and `side` are in pixels of the background, which has `mpp` µm per pixel."""
    grid = paint(background.shape[:2], xy, side, scores)
    low, high = limits
    covered = ~np.isnan(grid)
    picture = _grey(background)
    colours = colours_of((grid[covered] - low) / (high - low), signed=signed).astype(np.float32)
    picture[covered] = opacity * colours + (1 - opacity) * picture[covered]
    return _with_footer(np.rint(picture).astype(np.uint8), limits, signed, label, mpp)


def paint(
    shape: tuple[int, ...], xy: Float[ndarray, "n 2"], side: float, scores: Float[ndarray, n]
) -> Float[ndarray, "h w"]:
    """The mean score of the tiles over each pixel, NaN where there is none.

    Corners of tiles are added to an image of differences, which two running sums turn into sums: the cost does not
    depend on how large tiles are or how much they overlap.
    """
    height, width = shape
    left, top = np.clip(np.rint(xy), 0, (width, height)).astype(np.int64).T
    right, low = np.clip(np.rint(xy + side), 0, (width, height)).astype(np.int64).T
    total, count = (np.zeros((height + 1, width + 1)) for _ in range(2))
    for rows, columns, sign in ((top, left, 1), (top, right, -1), (low, left, -1), (low, right, 1)):
        np.add.at(total, (rows, columns), sign * scores.astype(np.float64))
        np.add.at(count, (rows, columns), sign)
    total, count = (a.cumsum(0).cumsum(1)[:-1, :-1] for a in (total, count))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def nice_length_um(width_um: float) -> float:
    """A round length (1, 2 or 5 times a power of ten) of at most a quarter of the picture, and as near as can be."""
    most = width_um / 4
    power = 10.0 ** math.floor(math.log10(most))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= most)


def _grey(background: UInt8[ndarray, "h w 3"]) -> Float[ndarray, "h w 3"]:
    """The background without colour and a little paler, so that the only colours are scores."""
    grey = background.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat((0.8 * grey + 0.2 * 255)[..., None], 3, axis=2)


def _with_footer(
    picture: UInt8[ndarray, "h w 3"], limits: tuple[float, float], signed: bool, label: str, mpp: float
) -> Image.Image:
    height, width = picture.shape[:2]
    canvas = Image.new("RGB", (max(width, _LEAST_WIDTH_PX), height + _FOOTER_PX), (255, 255, 255))
    canvas.paste(Image.fromarray(picture), (0, 0))
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=12)
    _scale_bar(pen, font, width, height, mpp)
    _colour_bar(canvas, pen, font, height, limits, signed, label)
    return canvas


def _scale_bar(
    pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, height: int, mpp: float
) -> None:
    length_um = nice_length_um(max(width, _LEAST_WIDTH_PX) * mpp)
    text = f"{length_um / 1000:g} mm"  # Pillow's own font has no µ
    y = height + 14
    pen.rectangle((_MARGIN_PX, y, _MARGIN_PX + round(length_um / mpp) - 1, y + 3), fill=_TEXT)
    pen.text((_MARGIN_PX, y + 9), text, fill=_TEXT, font=font)


def _colour_bar(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    height: int,
    limits: tuple[float, float],
    signed: bool,
    label: str,
) -> None:
    wide, thick = 170, 10
    left, top = canvas.width - _MARGIN_PX - wide, height + 7
    ramp = colours_of(np.linspace(0, 1, wide), signed=signed)
    canvas.paste(Image.fromarray(np.repeat(ramp[None], thick, axis=0)), (left, top))
    below = top + thick + 2
    low, high = (f"{value:.2g}" for value in limits)
    pen.text((left, below), low, fill=_TEXT, font=font)
    pen.text((left + wide, below), high, fill=_TEXT, font=font, anchor="ra")
    pen.text((left + wide / 2, below + 12), label, fill=_TEXT, font=font, anchor="ma")
