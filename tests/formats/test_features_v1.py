"""A feature file of version 1, written when the format was released, still reads: bytes, identity and fingerprint."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from coverslip.base.geometry import TileSpec
from coverslip.store import EncoderIdentity, FeatureIdentity, read_features

FILE = Path(__file__).with_name("features_v1.h5")


def test_version_1_gives_the_same_rows_positions_and_identity() -> None:
    features = read_features(FILE, slide="Präparat 1")
    rows = (np.arange(20).reshape(5, 4) - 7) / 8
    np.testing.assert_array_equal(features.x, rows[[0, 1, 2, 4]])
    assert features.coords is not None
    assert features.coords.tolist() == [[0, 0], [448, 0], [896, 0], [448, 448]]
    assert [(one.index, one.reason) for one in features.skipped] == [(3, "the JPEG data ends early")]
    encoder = EncoderIdentity(
        "texture",
        4,
        source="coverslip",
        revision="1",
        pooling="none",
        preprocessing="224 px",
        licence="Apache-2.0",
    )
    assert features.identity == FeatureIdentity(
        encoder, TileSpec(224, 0.5), 0.25, 448.0, "0123456789abcdef", "f787e2e3f5f740b4", "macenko"
    )


def test_version_1_has_the_attributes_that_its_page_promises() -> None:
    with h5py.File(FILE) as file:
        found = {key: value.item() if hasattr(value, "item") else value for key, value in file.attrs.items()}
        assert file["features"].chunks is None
        assert dict(file["coords"].attrs) == {"patch_size_level0": 448}
    assert found == {
        "format": "coverslip.features/1",
        "slide": "Präparat 1",
        "encoder": "texture",
        "encoder_dim": 4,
        "encoder_source": "coverslip",
        "encoder_revision": "1",
        "encoder_sha256": "",
        "encoder_pooling": "none",
        "encoder_preprocessing": "224 px",
        "encoder_precision": "fp32",
        "encoder_licence": "Apache-2.0",
        "mpp": 0.25,
        "span": 448.0,
        "tile_px": 224,
        "tile_mpp": 0.5,
        "tile_stride_px": 224,
        "tile_min_tissue": 0.25,
        "tiles": "f787e2e3f5f740b4",
        "slide_fingerprint": "0123456789abcdef",
        "normaliser": "macenko",
        "fingerprint": "8577f5dc72d6fc3d",
        "written_by": "coverslip 0.1.0",
    }


def test_version_1_is_small_enough_to_keep() -> None:
    assert FILE.stat().st_size < 10_000
