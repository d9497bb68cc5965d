"""Virchow2, a DINOv2 vision transformer on tiles of several magnifications (Paige).

Paper: Zimmermann et al. 2024, https://arxiv.org/abs/2408.00738. Weights: CC-BY-NC-ND-4.0, gated.
Model card: https://huggingface.co/paige-ai/Virchow2.
"""

from __future__ import annotations

from coverslip.encoders.encoder import Blueprint
from coverslip.encoders.info import EncoderInfo
from coverslip.encoders.norms import IMAGENET
from coverslip.encoders.vit import PublishedViT, ViT

ENTRIES = {
    "virchow2": {
        "build": "virchow2",
        "summary": "Virchow2: ViT-H/14 with 4 registers, 631 M parameters, 2560 features, 0.25 to 2 µm/px",
        "origin": "paige-ai/Virchow2",
        "licence": "CC-BY-NC-ND-4.0",
        "needs": "gated weights",
    }
}


def virchow2(name: str) -> Blueprint:
    """Virchow2: the class token followed by the mean over patches, without the 4 registers between them.

    Unlike DINOv2's own models with registers, its registers have positions.
    """
    mean, std = IMAGENET
    info = EncoderInfo(
        name=name,
        dim=2560,
        input_px=224,
        mpp=(0.25, 2.0),
        mean=mean,
        std=std,
        resize="bicubic 224",
        pooling="cls+mean",
        source="paige-ai/Virchow2",
        revision="main",
        sha256=None,
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        # "Diverse originating institutions" neither names a public cohort nor rules one out.
        pretraining=None,
        pretraining_source="3.1 million slides of diverse institutions (the paper); which, is not published",
    )
    vit = ViT(width=1280, depth=32, heads=16, patch_px=14, mlp_ratio=5.3375, swiglu=True, registers=4, layer_scale=True)
    return PublishedViT(info, vit)
