"""`texture`: the classical descriptor of `coverslip.encoders.texture` as an encoder. It needs no weights."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from coverslip.base.errors import EncoderError, SettingsError
from coverslip.encoders.encoder import Blueprint, Encoder
from coverslip.encoders.info import EncoderInfo
from coverslip.encoders.texture import MIN_PX, describe, feature_names

ENTRIES = {
    "texture": {
        "build": "texture",
        "summary": "classical colour and texture statistics, no weights, 0.25 to 2 µm/px",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class Texture(Encoder):
    """Colour and texture statistics, computed in numpy on the CPU."""

    def __init__(self, info: EncoderInfo) -> None:
        super().__init__()
        self.info = info

    def prepare(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 p p"]:
        """The tiles as they are, bytes, channels first; the descriptor wants no resized pixels.

        Raises:
            EncoderError: tiles too small for its windows.
        """
        if min(images.shape[1:3]) < MIN_PX:
            raise EncoderError(
                f"Tiles of {images.shape[2]} x {images.shape[1]} px are too small for the encoder {self.info.name!r}.",
                fix=f"Set tiles.size_px to at least {MIN_PX}.",
            )
        return images.permute(0, 3, 1, 2)

    def forward(self, x: Float[Tensor, "b 3 p p"]) -> Float[Tensor, "b d"]:
        images = x.permute(0, 2, 3, 1).cpu().numpy()
        return torch.from_numpy(describe(images)).to(x.device)


class _TextureBlueprint(Blueprint):
    def __init__(self, name: str) -> None:
        self.info = EncoderInfo(
            name=name,
            dim=len(feature_names()),
            input_px=None,
            mpp=(0.25, 2.0),
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            resize="none",
            pooling="statistics",
            source="coverslip",
            revision="1",  # raised whenever a number changes, so that features made before are not mixed with new ones
            sha256=None,
            licence="Apache-2.0",
            gated=False,
            pretraining=(),
            device="cpu",
        )

    def resolve(self, weights: str | None) -> EncoderInfo:
        if weights is not None:
            raise SettingsError(
                f"The encoder {self.info.name!r} takes no weights, and encoder.weights = {weights!r}.",
                fix="Leave encoder.weights out.",
            )
        return self.info

    def build(self, weights: str | None) -> Encoder:
        return Texture(self.resolve(weights))


def texture(name: str) -> Blueprint:
    """The descriptor's blueprint."""
    return _TextureBlueprint(name)
