"""Lunit's DINO ViT-S/16 on TCGA and in-house tiles.

Paper: Kang et al. 2023, https://arxiv.org/abs/2212.04690. Weights: Lunit non-commercial licence, not gated.
Model card: https://huggingface.co/1aurent/vit_small_patch16_224.lunit_dino.
"""

from __future__ import annotations

from coverslip.encoders.encoder import Blueprint
from coverslip.encoders.info import EncoderInfo
from coverslip.encoders.vit import PublishedViT, ViT

ENTRIES = {
    "lunit-vits16": {
        "build": "lunit_vits16",
        "summary": "Lunit DINO ViT-S/16: 22 M parameters, 384 features, 0.5 µm/px",
        "origin": "1aurent/vit_small_patch16_224.lunit_dino",
        "licence": "Lunit non-commercial",
        "needs": "weights",
    }
}


def lunit_vits16(name: str) -> Blueprint:
    """The class token of a ViT-S/16 trained with DINO.

    Mean and standard deviation are those of its authors' training tiles, which the hub's copy does not carry.
    """
    info = EncoderInfo(
        name=name,
        dim=384,
        input_px=224,
        mpp=(0.5, 0.5),
        mean=(0.70322989, 0.53606487, 0.66096631),
        std=(0.21716536, 0.26081574, 0.20723464),
        resize="bicubic 224",
        pooling="cls",
        source="1aurent/vit_small_patch16_224.lunit_dino",
        revision="main",
        sha256=None,
        licence="Lunit non-commercial",
        gated=False,
        pretraining=("TCGA",),
    )
    return PublishedViT(info, ViT(width=384, depth=12, heads=6, patch_px=16))
