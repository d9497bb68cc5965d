"""Floor 6: from tiles to features. `encoder(name)` makes an encoder, `embed` runs one over a slide."""

from coverslip.encoders.embed import embed, encoder_identity, identity
from coverslip.encoders.encoder import Blueprint, Encoder, blueprint, describe, encoder, encoder_info
from coverslip.encoders.info import EncoderInfo, Resize

__all__ = [
    "Blueprint",
    "Encoder",
    "EncoderInfo",
    "Resize",
    "blueprint",
    "describe",
    "embed",
    "encoder",
    "encoder_identity",
    "encoder_info",
    "identity",
]
