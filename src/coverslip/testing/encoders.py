"""The contract of encoders as a test: `check_encoder(encoder)` fails with a sentence where an encoder breaks it.

from coverslip.testing.encoders import check_encoder

def test_my_encoder_keeps_the_contract():
    check_encoder(my_encoder().eval())
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from coverslip.base.random import stream
from coverslip.encoders import Encoder, EncoderInfo, Resize

FLOAT16_MAX = 65504.0


def check_encoder(encoder: Encoder, *, tile_px: int | None = None) -> None:
    """Nothing, where the encoder keeps its contract; an AssertionError that says what it breaks otherwise.

    `tile_px` is the side of the tiles it is tried on: its own input where not given.
    """
    px = tile_px or encoder.info.input_px or 224
    tiles = example_tiles(px)
    _check_info(encoder.info)
    _check_evaluates(encoder)
    _check_prepare(encoder, tiles)
    _check_rows(encoder, tiles)
    _check_batches(encoder, tiles)
    _check_other_sizes(encoder, px)


def example_tiles(px: int) -> UInt8[Tensor, "6 h w 3"]:
    """Tiles that break descriptors: black, white, noise, one colour, stripes, and something like tissue."""
    random = stream(0, "example tiles", px)
    black, white, colour = (np.full((px, px, 3), value, dtype=np.uint8) for value in (0, 255, 117))
    noise = random.integers(0, 256, (px, px, 3), dtype=np.uint8)
    stripes = np.where((np.arange(px) % 8 < 4)[:, None, None], np.uint8(40), np.uint8(220)) * np.ones_like(black)
    y, x = np.mgrid[:px, :px]
    nuclei = (np.hypot(x % 24 - 12, y % 24 - 12) < 6)[..., None]
    tissue = np.where(nuclei, (80, 50, 130), (225, 150, 190)) + random.integers(-9, 10, (px, px, 3))
    tiles = np.stack([black, white, noise, colour, stripes, tissue.clip(0, 255).astype(np.uint8)])
    return torch.from_numpy(tiles)


def rows_of(encoder: Encoder, tiles: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
    """What `embed` would keep of these tiles, in float32."""
    with torch.inference_mode():
        rows: Tensor = encoder(encoder.prepare(tiles.to(_device(encoder))))
    return rows.float().cpu()


def _check_info(info: EncoderInfo) -> None:
    for field in ("name", "resize", "pooling", "source", "licence"):
        assert getattr(info, field), f"info.{field} is empty"
    assert len(info.mean) == len(info.std) == 3, "info.mean and info.std are of red, green and blue"
    assert all(sd > 0 for sd in info.std), "info.std holds a number that is not over 0"
    assert 0 < info.mpp[0] <= info.mpp[1], "info.mpp is (lowest, highest) µm per pixel"
    assert info.sha256 is None or len(info.sha256) == 64, "info.sha256 is 64 hex digits, or None without a file"
    assert hash(info) == hash(info), "info is a value, and values can be hashed"
    Resize.parse(info.resize)


def _check_evaluates(encoder: Encoder) -> None:
    training = [name or "the encoder" for name, module in encoder.named_modules() if module.training]
    assert not training, f"in training mode: {training[:3]}"
    learnt = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    assert not learnt, f"an encoder is frozen, but these want gradients: {learnt[:3]}"


def _check_prepare(encoder: Encoder, tiles: Tensor) -> None:
    tiles = tiles.to(_device(encoder))
    before = tiles.clone()
    x = encoder.prepare(tiles)
    p = encoder.info.input_px or tiles.shape[1]
    assert tuple(x.shape) == (len(tiles), 3, p, p), f"prepare gave {tuple(x.shape)}, not {(len(tiles), 3, p, p)}"
    assert x.device == tiles.device, f"prepare moved tiles from {tiles.device} to {x.device}"
    assert torch.equal(x, encoder.prepare(tiles)), "prepare gives something else the second time"
    assert torch.equal(tiles, before), "prepare changed the tiles it was given"


def _check_rows(encoder: Encoder, tiles: Tensor) -> None:
    rows = rows_of(encoder, tiles)
    assert tuple(rows.shape) == (len(tiles), encoder.info.dim), f"rows are {tuple(rows.shape)}, dim {encoder.info.dim}"
    assert torch.isfinite(rows).all(), "NaN or infinity for a black, white, noisy, flat or striped tile"
    assert rows.abs().max() <= FLOAT16_MAX, f"{rows.abs().max():.6g} does not fit into float16"
    assert torch.equal(rows, rows_of(encoder, tiles)), "equal tiles give other rows the second time: dropout?"
    assert not torch.allclose(rows[2], rows[5]), "noise and tissue look the same to it"


def _check_batches(encoder: Encoder, tiles: Tensor) -> None:
    rows = rows_of(encoder, tiles)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    _same(rows_of(encoder, tiles[order]), rows[order], "rows depend on the order of tiles in a batch")
    alone = torch.cat([rows_of(encoder, tiles[i : i + 1]) for i in range(len(tiles))])
    _same(alone, rows, "rows depend on the other tiles in a batch")


def _check_other_sizes(encoder: Encoder, px: int) -> None:
    rows = rows_of(encoder, example_tiles(px + 32))
    assert rows.shape[1] == encoder.info.dim and torch.isfinite(rows).all(), f"tiles of {px + 32} px are not taken"


def _same(a: Tensor, b: Tensor, what: str) -> None:
    # Matrix products of another batch size may add up in another order, so equality is to rounding.
    scale = float(b.abs().max()) or 1.0
    worst = float((a - b).abs().max())
    assert worst <= 1e-4 * scale, f"{what}: they differ by {worst:.3g} where the largest number is {scale:.3g}"


def _device(encoder: Encoder) -> torch.device:
    return next(encoder.parameters(), torch.empty(0)).device
