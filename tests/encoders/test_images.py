from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from coverslip.encoders import describe
from coverslip.encoders.images import prepare
from coverslip.testing.encoders import example_tiles

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def as_bytes(x):
    return (x * 255).round().permute(0, 2, 3, 1).numpy().astype(int)


def test_a_tile_of_the_right_size_is_only_normalised():
    info = describe("h-optimus-0")
    tiles = example_tiles(224)
    x = prepare(tiles, info)
    for c in range(3):
        expected = (tiles[..., c].float() / 255 - info.mean[c]) / info.std[c]
        torch.testing.assert_close(x[:, c], expected)


@pytest.mark.parametrize(("rule", "method"), [("bicubic", Image.BICUBIC), ("bilinear", Image.BILINEAR)])
@pytest.mark.parametrize("px", [160, 256, 512])
def test_resizing_agrees_with_pillow(rule, method, px):
    info = replace(describe("uni"), resize=f"{rule} 224", **PLAIN)
    tile = example_tiles(px)[5:6]
    expected = np.asarray(Image.fromarray(tile[0].numpy()).resize((224, 224), method)).astype(int)
    assert np.abs(as_bytes(prepare(tile, info))[0] - expected).max() <= 1


def test_gigapath_enlarges_and_keeps_the_middle():
    info = replace(describe("gigapath"), **PLAIN)
    tile = example_tiles(224)[5:6]
    large = np.asarray(Image.fromarray(tile[0].numpy()).resize((256, 256), Image.BICUBIC)).astype(int)
    assert np.abs(as_bytes(prepare(tile, info))[0] - large[16:240, 16:240]).max() <= 1


def test_overshoot_stays_within_bytes():
    stripes = example_tiles(256)[4:5]
    x = prepare(stripes, replace(describe("uni"), resize="bicubic 224", **PLAIN))
    assert x.min() >= 0 and x.max() <= 1
