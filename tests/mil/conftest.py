"""Features of planted bags, as the store hands them out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from coverslip.base.study import FitSettings
from coverslip.mil import BagSource, Target
from coverslip.store import Features
from coverslip.synthetic import PlantedBags, make_bags


@pytest.fixture
def planted() -> PlantedBags:
    return make_bags(24, rows=(5, 30), dim=8, witness_rate=0.3, shift=3.0)


@pytest.fixture
def features_of() -> Callable[[PlantedBags], list[Features]]:
    def make(bags: PlantedBags) -> list[Features]:
        return [
            Features(
                f"s{i:03d}",
                bags.bag(i).astype(np.float16),
                coords=bags.xy[bags.offsets[i] : bags.offsets[i + 1]].astype(np.int32),
                mpp=0.25,
                span=448.0,
            )
            for i in range(len(bags.y))
        ]

    return make


@pytest.fixture
def source(planted: PlantedBags, features_of: Callable[[PlantedBags], list[Features]]) -> BagSource:
    """24 slides of 12 patients, two each."""
    patients = {f"s{i:03d}": f"p{i % 12:02d}" for i in range(24)}
    return BagSource(features_of(planted), patients=patients, target=Target(torch.from_numpy(planted.y)))


@pytest.fixture
def quick() -> FitSettings:
    """Settings for tests: a few epochs, on the CPU."""
    return FitSettings(epochs=4, device="cpu", batch=5, lr=1e-3)
