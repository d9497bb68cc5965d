"""The tile encoder of Prov-GigaPath (Providence and Microsoft).

Paper: Xu et al. 2024, https://doi.org/10.1038/s41586-024-07441-w. Weights: Apache-2.0 with conditions of use, gated.
Model card: https://huggingface.co/prov-gigapath/prov-gigapath.
"""

from __future__ import annotations

from coverslip.encoders.encoder import Blueprint
from coverslip.encoders.info import EncoderInfo
from coverslip.encoders.norms import IMAGENET
from coverslip.encoders.vit import PublishedViT, ViT

ENTRIES = {
    "gigapath": {
        "build": "gigapath",
        "summary": "Prov-GigaPath tile encoder: ViT-g/16, 1.13 B parameters, 1536 features, 0.5 µm/px",
        "origin": "prov-gigapath/prov-gigapath",
        "licence": "Apache-2.0 with conditions",
        "needs": "gated weights",
    }
}


def gigapath(name: str) -> Blueprint:
    """The class token of a ViT-g whose patches are 16 px, although the architecture it is derived from says 14.

    The published transform enlarges a tile to 256 px and keeps the middle 224.
    """
    mean, std = IMAGENET
    info = EncoderInfo(
        name=name,
        dim=1536,
        input_px=224,
        mpp=(0.5, 0.5),
        mean=mean,
        std=std,
        resize="bicubic 256, centre crop 224",
        pooling="cls",
        source="prov-gigapath/prov-gigapath",
        revision="main",
        sha256=None,
        licence="Apache-2.0 with conditions",
        gated=True,
        pretraining=(),
        pretraining_source="Prov-Path: 171,189 slides of the Providence health network (the paper); TCGA tested it",
    )
    vit = ViT(width=1536, depth=40, heads=24, patch_px=16, mlp_ratio=5.33334, swiglu=True, layer_scale=True)
    return PublishedViT(info, vit)
