"""Makes features_v1.h5: run once, when the format was released. The file is kept; this is not run again.

python tests/formats/make_features_v1.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from coverslip.base.geometry import TileSpec
from coverslip.store import EncoderIdentity, FeatureIdentity, FeatureWriter, coords_digest

COORDS = np.array([[0, 0], [448, 0], [896, 0], [0, 448], [448, 448]], np.int32)
ROWS = (np.arange(20, dtype=np.float32).reshape(5, 4) - 7) / 8
IDENTITY = FeatureIdentity(
    encoder=EncoderIdentity(
        name="texture",
        dim=4,
        source="coverslip",
        revision="1",
        pooling="none",
        preprocessing="224 px",
        licence="Apache-2.0",
    ),
    spec=TileSpec(224, 0.5, 224, 0.25),
    mpp=0.25,
    span=448.0,
    slide_fingerprint="0123456789abcdef",
    tiles=coords_digest(COORDS),
    normaliser="macenko",
)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        with FeatureWriter(Path(folder), "Präparat 1", IDENTITY, COORDS) as writer:
            writer.put(np.array([4, 0, 1, 2]), ROWS[[4, 0, 1, 2]])
            writer.skip(3, "the JPEG data ends early")
        Path(__file__).with_name("features_v1.h5").write_bytes((Path(folder) / "Präparat 1.h5").read_bytes())
