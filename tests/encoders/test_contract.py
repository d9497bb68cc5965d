"""Every registered encoder keeps the contract; the giants in a narrow version of themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coverslip.base.registry import ENCODERS
from coverslip.encoders import Encoder, encoder
from coverslip.testing.encoders import check_encoder

NAMES = ["timm:test_vit" if name == "timm:" else name for name in ENCODERS.names()]


def built(plan) -> Encoder:
    weights = None if plan.info.source == "coverslip" else "random"
    return plan.build(weights).requires_grad_(False).eval()


@pytest.mark.parametrize("name", NAMES)
def test_a_registered_encoder_keeps_the_contract(name, tiny):
    check_encoder(built(tiny(name)))


@pytest.mark.parametrize("name", NAMES)
def test_listing_tells_what_the_encoder_says_itself(name, tiny):
    entry, info = ENCODERS.entry(name), tiny(name).info
    assert info.name == name
    if entry.name != "timm:":
        assert entry.licence == info.licence and entry.origin == info.source
        assert ("gated" in entry.needs) == info.gated


class _Broken(Encoder):
    """texture with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.inner = encoder("texture")
        self.info = self.inner.info
        self.fault = fault
        self.dropout = nn.Dropout(0.5)

    def prepare(self, images):
        return self.inner.prepare(images)

    def forward(self, x):
        rows = self.inner(x)
        if self.fault == "batch" and len(rows):
            return rows - rows.mean(dim=0)
        if self.fault == "nan":
            return torch.log(rows)
        if self.fault == "width":
            return rows[:, 1:]
        if self.fault == "overflow":
            return rows * 1e6
        return self.dropout(rows)


@pytest.mark.parametrize(
    ("fault", "said"),
    [("batch", "batch"), ("nan", "NaN"), ("width", "rows are"), ("overflow", "float16"), ("train", "training mode")],
)
def test_the_suite_finds_a_broken_encoder(fault, said):
    broken = _Broken(fault)
    broken.train(fault == "train")
    with pytest.raises(AssertionError, match=said):
        check_encoder(broken, tile_px=64)
