"""Hibou-B, a DINOv2 vision transformer with registers (HistAI).

Paper: Nechaev et al. 2024, https://arxiv.org/abs/2406.05074. Weights: Apache-2.0, gated.
Model card: https://huggingface.co/histai/hibou-b.
"""

from __future__ import annotations

from coverslip.encoders.encoder import Blueprint
from coverslip.encoders.info import EncoderInfo
from coverslip.encoders.keys import from_transformers
from coverslip.encoders.vit import PublishedViT, ViT

ENTRIES = {
    "hibou-b": {
        "build": "hibou_b",
        "summary": "Hibou-B: ViT-B/14 with 4 registers, 86 M parameters, 768 features, 0.5 µm/px",
        "origin": "histai/hibou-b",
        "licence": "Apache-2.0",
        "needs": "gated weights",
    }
}


def hibou_b(name: str) -> Blueprint:
    """Hibou-B: its pooled output, which is the class token after the last norm."""
    info = EncoderInfo(
        name=name,
        dim=768,
        input_px=224,
        mpp=(0.5, 0.5),
        mean=(0.7068, 0.5755, 0.722),
        std=(0.195, 0.2316, 0.1816),
        resize="bicubic 224",
        pooling="cls",
        source="histai/hibou-b",
        revision="main",
        sha256=None,
        licence="Apache-2.0",
        gated=True,
        pretraining=(),  # slides of its makers alone, as the paper says
    )
    vit = ViT(width=768, depth=12, heads=12, patch_px=14, registers=4, prefix_positions=False, layer_scale=True)
    return PublishedViT(info, vit, translate=from_transformers)
