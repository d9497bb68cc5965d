from __future__ import annotations

import numpy as np
import pytest
import torch

from coverslip.base.errors import EncoderError
from coverslip.encoders import EncoderInfo
from coverslip.encoders.encoder import Encoder
from coverslip.encoders.runner import Runner

CPU = torch.device("cpu")


class Small(Encoder):
    """Mean colours; a device with room for `room` tiles at once."""

    def __init__(self, room=1000):
        super().__init__()
        self.room, self.seen = room, []
        self.info = EncoderInfo(
            *("small", 3, None, (0.5, 0.5), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
            *("none", "mean", "test", "1", None, "none", False),
        )
        self.eval()

    def prepare(self, images):
        return images.permute(0, 3, 1, 2).float()

    def forward(self, x):
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.seen.append(len(x))
        return x.mean(dim=(2, 3))


def tiles(n):
    return np.random.default_rng(n).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("batch", "room", "passes"), [(16, 16, [16]), (16, 5, [4] * 4), (10, 4, [3] * 4), (3, 1, [1] * 3)]
)
def test_a_device_that_is_too_small_gets_half_batches_and_the_rows_are_the_same(batch, room, passes):
    model = Small(room)
    runner = Runner(model, device=CPU, precision="fp32", batch=batch)
    images = tiles(batch)
    np.testing.assert_allclose(runner.rows(images), images.mean(axis=(1, 2)), rtol=1e-5)
    assert model.seen == passes
    runner.rows(images)
    assert model.seen == passes * 2, "what did not fit is not tried again"


def test_where_no_tile_fits_the_user_is_told():
    with pytest.raises(EncoderError, match="not even with one tile"):
        Runner(Small(0), device=CPU, precision="fp32", batch=4).rows(tiles(2))


@pytest.mark.parametrize("k", [1, 3, 4])
def test_a_batch_that_is_not_full_is_padded(k):
    model = Small()
    images = tiles(k)
    rows = Runner(model, device=CPU, precision="fp32", batch=4).rows(images)
    assert rows.shape == (k, 3) and model.seen == [4]
    np.testing.assert_allclose(rows, images.mean(axis=(1, 2)), rtol=1e-5)


def test_an_encoder_in_training_mode_is_refused():
    with pytest.raises(EncoderError, match="training mode"):
        Runner(Small().train(), device=CPU, precision="fp32", batch=4)
