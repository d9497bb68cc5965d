"""Small stand-ins for the giants: the same family, pooling and preprocessing, one narrow layer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coverslip.encoders.encoder import Blueprint, blueprint
from coverslip.encoders.vit import PublishedViT


def shrunk(name: str) -> Blueprint:
    """The registered encoder; a published vision transformer with one layer of 32 numbers, everything else its own."""
    plan = blueprint(name)
    if not isinstance(plan, PublishedViT):
        return plan
    parts = plan.info.dim // plan.vit.width
    vit = replace(plan.vit, width=32, depth=1, heads=2)
    return replace(plan, vit=vit, info=replace(plan.info, dim=32 * parts))


@pytest.fixture
def tiny():
    return shrunk
