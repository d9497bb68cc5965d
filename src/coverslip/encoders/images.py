"""Tiles as bytes to what a network takes: resize, crop, normalise, on the device the tiles are on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from coverslip.encoders.info import EncoderInfo, Resize


def prepare(images: UInt8[Tensor, "b h w 3"], info: EncoderInfo) -> Float[Tensor, "b 3 p p"]:
    """Resized, cropped and normalised tiles, as `info` states.

    The published pipelines resize 8-bit pictures, so what is resized here is rounded and clipped to 0..255 as well:
    bicubic interpolation overshoots at edges. A tile that has the rule's size already is not touched.
    """
    assert images.dtype == torch.uint8 and images.ndim == 4 and images.shape[-1] == 3, (images.dtype, images.shape)
    assert images.shape[1] == images.shape[2], f"tiles are square, not {tuple(images.shape)}"
    x = images.permute(0, 3, 1, 2).float()  # (b, 3, h, w)
    rule = Resize.parse(info.resize)
    if rule is not None:
        x = _centre_crop(_resize(x, rule), rule.crop)  # (b, 3, p, p)
    mean = x.new_tensor(info.mean).view(1, 3, 1, 1)
    std = x.new_tensor(info.std).view(1, 3, 1, 1)
    return (x / 255 - mean) / std


def _resize(x: Float[Tensor, "b 3 h w"], rule: Resize) -> Float[Tensor, "b 3 r r"]:
    if x.shape[-1] == rule.px:
        return x
    size = (rule.px, rule.px)
    resized = F.interpolate(x, size, mode=rule.interpolation, align_corners=False, antialias=True)
    return resized.clamp(0, 255).round()


def _centre_crop(x: Float[Tensor, "b 3 r r"], px: int) -> Float[Tensor, "b 3 p p"]:
    start = round((x.shape[-1] - px) / 2)
    return x[..., start : start + px, start : start + px]
