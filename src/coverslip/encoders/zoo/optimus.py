"""H-optimus-0, a vision transformer with 1.1 billion parameters on H&E tiles (Bioptimus).

Weights: Apache-2.0. Model card: https://huggingface.co/bioptimus/H-optimus-0.
"""

from __future__ import annotations

from coverslip.encoders.encoder import Blueprint
from coverslip.encoders.info import EncoderInfo
from coverslip.encoders.vit import PublishedViT, ViT

ENTRIES = {
    "h-optimus-0": {
        "build": "h_optimus_0",
        "summary": "H-optimus-0: ViT-g/14 with 4 registers, 1.13 B parameters, 1536 features, 0.5 µm/px",
        "origin": "bioptimus/H-optimus-0",
        "licence": "Apache-2.0",
        "needs": "weights",
    }
}


def h_optimus_0(name: str) -> Blueprint:
    """H-optimus-0: the class token of a ViT-g/14; positions are of patches alone."""
    info = EncoderInfo(
        name=name,
        dim=1536,
        input_px=224,
        mpp=(0.5, 0.5),
        mean=(0.707223, 0.578729, 0.703617),
        std=(0.211883, 0.230117, 0.177517),
        resize="bicubic 224",
        pooling="cls",
        source="bioptimus/H-optimus-0",
        revision="main",
        sha256=None,
        licence="Apache-2.0",
        gated=False,
        pretraining=(),
        pretraining_source="a proprietary collection of more than 500,000 slides (model card)",
    )
    vit = ViT(
        width=1536,
        depth=40,
        heads=24,
        patch_px=14,
        mlp_ratio=2.66667 * 2,
        swiglu=True,
        registers=4,
        prefix_positions=False,
        layer_scale=True,
    )
    return PublishedViT(info, vit)
