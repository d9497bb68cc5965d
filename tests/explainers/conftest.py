from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from coverslip.base.study import FitSettings
from coverslip.mil import BagSource, SlideModel, Target, fit_bags
from coverslip.mil.tasks.classification import Classification
from coverslip.store import Features
from coverslip.synthetic import PlantedBags, make_bags


@pytest.fixture(scope="session")
def planted() -> PlantedBags:
    return make_bags(40, rows=(20, 40), dim=16, witness_rate=0.2, shift=4.0)


@pytest.fixture(scope="session")
def slides(planted: PlantedBags) -> list[Features]:
    return [
        Features(
            f"s{i:03d}",
            planted.bag(i),
            coords=planted.xy[planted.offsets[i] : planted.offsets[i + 1]].astype(np.int32),
            mpp=0.5,
            span=448.0,
        )
        for i in range(len(planted.y))
    ]


@pytest.fixture(scope="session")
def models(planted: PlantedBags, slides: list[Features]) -> dict[str, SlideModel]:
    """One model a method, and a second ABMIL of another seed."""
    source = BagSource(slides, target=Target(torch.from_numpy(planted.y)))
    settings = FitSettings(device="cpu", epochs=40, lr=1e-3)
    task = Classification(("benign", "lesion"))
    made = {name: fit_bags(source, None, task, name, settings) for name in ("mean", "max", "abmil")}
    made["abmil 2"] = fit_bags(source, None, task, "abmil", settings.model_copy(update={"seed": 1}))
    return made


@pytest.fixture
def without_positions(slides: list[Features]) -> Features:
    return replace(slides[0], coords=None, notes=("The file has no coords.",))
