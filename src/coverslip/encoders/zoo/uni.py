"""UNI and UNI2-h, DINOv2 vision transformers on H&E and IHC tiles (Mahmood Lab).

Paper: Chen et al. 2024, https://doi.org/10.1038/s41591-024-02857-3. Weights: CC-BY-NC-ND-4.0, gated; models trained on
their outputs count as derivatives. Model cards: https://huggingface.co/MahmoodLab/UNI and .../UNI2-h.
"""

from __future__ import annotations

from dataclasses import replace

from coverslip.encoders.encoder import Blueprint
from coverslip.encoders.info import EncoderInfo
from coverslip.encoders.norms import IMAGENET
from coverslip.encoders.vit import PublishedViT, ViT

ENTRIES = {
    "uni": {
        "build": "uni",
        "summary": "UNI: ViT-L/16, 303 M parameters, 1024 features, 0.5 µm/px",
        "origin": "MahmoodLab/UNI",
        "licence": "CC-BY-NC-ND-4.0",
        "needs": "gated weights",
    },
    "uni2": {
        "build": "uni2",
        "summary": "UNI2-h: ViT-H/14 with 8 registers, 681 M parameters, 1536 features, 0.5 µm/px",
        "origin": "MahmoodLab/UNI2-h",
        "licence": "CC-BY-NC-ND-4.0",
        "needs": "gated weights",
    },
}


def uni(name: str) -> Blueprint:
    """UNI: the class token of a ViT-L/16."""
    return PublishedViT(
        replace(
            _info(name, dim=1024, source="MahmoodLab/UNI"),
            pretraining=("GTEx",),
            pretraining_source="Mass-100K: Massachusetts General, Brigham and Women's, and GTEx (the paper)",
        ),
        ViT(width=1024, depth=24, heads=16, patch_px=16, layer_scale=True),
    )


def uni2(name: str) -> Blueprint:
    """UNI2-h: the class token of a ViT-H/14 with SwiGLU and 8 registers; positions are of patches alone."""
    return PublishedViT(
        replace(
            _info(name, dim=1536, source="MahmoodLab/UNI2-h"),
            pretraining=(),
            pretraining_source="350,000 slides of Mass General Brigham; no public cohort is named (model card)",
        ),
        ViT(
            width=1536,
            depth=24,
            heads=24,
            patch_px=14,
            mlp_ratio=2.66667 * 2,
            swiglu=True,
            registers=8,
            prefix_positions=False,
            layer_scale=True,
        ),
    )


def _info(name: str, *, dim: int, source: str) -> EncoderInfo:
    mean, std = IMAGENET
    return EncoderInfo(
        name=name,
        dim=dim,
        input_px=224,
        mpp=(0.5, 0.5),
        mean=mean,
        std=std,
        resize="bilinear 224",
        pooling="cls",
        source=source,
        revision="main",
        sha256=None,
        licence="CC-BY-NC-ND-4.0",
        gated=True,
    )
