"""Feature files for the tests: a small slide of known rows, whole or half written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from coverslip.base.geometry import TileSpec
from coverslip.store import EncoderIdentity, FeatureIdentity, FeatureWriter, coords_digest


@dataclass(frozen=True)
class Plan:
    """What an embedding has before it starts: positions and identity; and the rows it will give."""

    coords: np.ndarray
    rows: np.ndarray
    identity: FeatureIdentity


def make_plan(n: int = 50, dim: int = 8, *, encoder: str = "texture", seed: int = 0) -> Plan:
    random = np.random.default_rng(seed)
    coords = (np.stack([np.arange(n) % 7, np.arange(n) // 7], axis=1) * 448).astype(np.int32)
    identity = FeatureIdentity(
        encoder=EncoderIdentity(encoder, dim, source="coverslip", revision="1", licence="Apache-2.0"),
        spec=TileSpec(224, 0.5),
        mpp=0.25,
        span=448.0,
        slide_fingerprint="0123456789abcdef",
        tiles=coords_digest(coords),
    )
    return Plan(coords, random.normal(size=(n, dim)).astype(np.float32), identity)


@pytest.fixture
def plan() -> Plan:
    return make_plan()


@pytest.fixture(scope="session")
def plans() -> Callable[..., Plan]:
    return make_plan


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes one finished slide of our format and gives its path."""

    def write(slide: str = "a", plan: Plan | None = None, folder: Path = tmp_path) -> Path:
        plan = plan or make_plan()
        with FeatureWriter(folder, slide, plan.identity, plan.coords) as writer:
            writer.put(np.arange(len(plan.coords)), plan.rows)
        return folder / f"{slide}.h5"

    return write
