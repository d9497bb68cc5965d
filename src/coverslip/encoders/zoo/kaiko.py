"""Kaiko ViT-S/16 and Midnight-12k (kaiko.ai).

Papers: kaiko.ai 2024, https://arxiv.org/abs/2404.15217 (DINO on TCGA); Karasikov et al. 2025,
https://arxiv.org/abs/2504.05186 (DINOv2 on 12,000 slides). Weights: kaiko non-commercial; MIT.
Model cards: https://huggingface.co/1aurent/vit_small_patch16_224.kaiko_ai_towards_large_pathology_fms and
https://huggingface.co/kaiko-ai/midnight.
"""

from __future__ import annotations

from coverslip.encoders.encoder import Blueprint
from coverslip.encoders.info import EncoderInfo
from coverslip.encoders.keys import from_transformers
from coverslip.encoders.norms import HALF
from coverslip.encoders.vit import PublishedViT, ViT

ENTRIES = {
    "kaiko-vits16": {
        "build": "kaiko_vits16",
        "summary": "Kaiko ViT-S/16: 22 M parameters, 384 features, 0.25 to 2 µm/px",
        "origin": "1aurent/vit_small_patch16_224.kaiko_ai_towards_large_pathology_fms",
        "licence": "kaiko non-commercial",
        "needs": "weights",
    },
    "midnight": {
        "build": "midnight",
        "summary": "Midnight-12k: ViT-g/14, 1.14 B parameters, 3072 features, 0.25 to 2 µm/px",
        "origin": "kaiko-ai/midnight",
        "licence": "MIT",
        "needs": "weights",
    },
}


def kaiko_vits16(name: str) -> Blueprint:
    """Kaiko ViT-S/16: the class token of a ViT-S/16 trained on tiles of four magnifications."""
    info = _info(
        name,
        dim=384,
        resize="bilinear 224",
        pooling="cls",
        source="1aurent/vit_small_patch16_224.kaiko_ai_towards_large_pathology_fms",
        licence="kaiko non-commercial",
    )
    return PublishedViT(info, ViT(width=384, depth=12, heads=6, patch_px=16))


def midnight(name: str) -> Blueprint:
    """Midnight-12k: the class token followed by the mean over patches, as its authors use it for classification."""
    info = _info(name, dim=3072, resize="bilinear 224", pooling="cls+mean", source="kaiko-ai/midnight", licence="MIT")
    vit = ViT(width=1536, depth=40, heads=24, patch_px=14, mlp_ratio=2.66667 * 2, swiglu=True, layer_scale=True)
    return PublishedViT(info, vit, translate=from_transformers)


def _info(name: str, *, dim: int, resize: str, pooling: str, source: str, licence: str) -> EncoderInfo:
    mean, std = HALF
    return EncoderInfo(
        name=name,
        dim=dim,
        input_px=224,
        mpp=(0.25, 2.0),
        mean=mean,
        std=std,
        resize=resize,
        pooling=pooling,
        source=source,
        revision="main",
        sha256=None,
        licence=licence,
        gated=False,
        pretraining=("TCGA",),
    )
