"""Phikon and Phikon-v2, vision transformers on public cohorts (Owkin).

Papers: Filiot et al. 2023, https://doi.org/10.1101/2023.07.21.23292757 (iBOT); Filiot et al. 2024,
https://arxiv.org/abs/2409.09173 (DINOv2). Weights: Owkin non-commercial licence, not gated.
Model cards: https://huggingface.co/owkin/phikon and .../phikon-v2.
"""

from __future__ import annotations

from coverslip.encoders.encoder import Blueprint
from coverslip.encoders.info import EncoderInfo
from coverslip.encoders.keys import from_transformers
from coverslip.encoders.norms import IMAGENET
from coverslip.encoders.vit import PublishedViT, ViT

ENTRIES = {
    "phikon": {
        "build": "phikon",
        "summary": "Phikon: ViT-B/16, 86 M parameters, 768 features, 0.5 µm/px",
        "origin": "owkin/phikon",
        "licence": "Owkin non-commercial",
        "needs": "weights",
    },
    "phikon-v2": {
        "build": "phikon_v2",
        "summary": "Phikon-v2: ViT-L/16, 303 M parameters, 1024 features, 0.5 µm/px",
        "origin": "owkin/phikon-v2",
        "licence": "Owkin non-commercial",
        "needs": "weights",
    },
}


def phikon(name: str) -> Blueprint:
    """Phikon: the class token of a ViT-B/16; transformers' ViT normalises with an epsilon of 1e-12."""
    return PublishedViT(
        _info(name, dim=768, source="owkin/phikon", resize="bilinear 224", pretraining=("TCGA",)),
        ViT(width=768, depth=12, heads=12, patch_px=16, norm_eps=1e-12),
        translate=from_transformers,
    )


def phikon_v2(name: str) -> Blueprint:
    """Phikon-v2: the class token of a ViT-L/16 trained with DINOv2."""
    return PublishedViT(
        _info(name, dim=1024, source="owkin/phikon-v2", resize="bicubic 224", pretraining=("TCGA", "CPTAC", "GTEx")),
        ViT(width=1024, depth=24, heads=16, patch_px=16, layer_scale=True),
        translate=from_transformers,
    )


def _info(name: str, *, dim: int, source: str, resize: str, pretraining: tuple[str, ...]) -> EncoderInfo:
    mean, std = IMAGENET
    return EncoderInfo(
        name=name,
        dim=dim,
        input_px=224,
        mpp=(0.5, 0.5),
        mean=mean,
        std=std,
        resize=resize,
        pooling="cls",
        source=source,
        revision="main",
        sha256=None,
        licence="Owkin non-commercial",
        gated=False,
        pretraining=pretraining,
    )
