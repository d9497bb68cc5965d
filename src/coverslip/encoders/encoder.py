"""The contract of encoders, and `encoder(name)`, which makes one.

A plug-in is a file in `zoo/` whose `ENTRIES` names a function `(name) -> Blueprint`. A blueprint says what an encoder
is before its weights are touched, which weights it would take, and only then builds it: a study whose features are all
there never loads a network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from coverslip.base.registry import ENCODERS
from coverslip.encoders.device import choose_device
from coverslip.encoders.info import EncoderInfo


class Encoder(nn.Module, ABC):
    """Turns tiles into rows of features.

    `prepare` and `forward` are apart so that images travel to the device as bytes and are resized and normalised there.
    """

    info: EncoderInfo

    @abstractmethod
    def prepare(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 p p"]:
        """What the network takes, from sRGB tiles, on the device the tiles are on."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "b 3 p p"]) -> Float[Tensor, "b d"]:
        """One row a tile; d is `info.dim`."""


class Blueprint(ABC):
    """An encoder that is not built yet. `info` is what is published; `resolve` adds which weights."""

    info: EncoderInfo

    @abstractmethod
    def resolve(self, weights: str | None) -> EncoderInfo:
        """The info with source, revision and sha256 of the weights that `build` would load; may download them.

        Raises:
            EncoderError: the weights are missing, gated, or cannot be reached.
        """

    @abstractmethod
    def build(self, weights: str | None) -> Encoder:
        """The encoder on the CPU, with `info` as `resolve` gives it.

        Raises:
            EncoderError: as `resolve`, and where the weights do not fit the architecture.
        """


def blueprint(name: str) -> Blueprint:
    """The blueprint of a registered name; `timm:<arch>` for any timm architecture.

    Raises:
        SettingsError: no such name, with the nearest.
    """
    plan: Blueprint = ENCODERS.load(name)(name)
    return plan


def describe(name: str) -> EncoderInfo:
    """What is published of an encoder: dimension, input, scale, licence. No weights are touched."""
    return blueprint(name).info


def encoder_info(name: str, weights: str | None = None) -> EncoderInfo:
    """The full identity of an encoder with these weights, without building the network.

    Raises:
        EncoderError: the weights are missing, gated, or cannot be reached.
    """
    return blueprint(name).resolve(weights)


def encoder(name: str, weights: str | None = None, device: str | torch.device = "cpu") -> Encoder:
    """An encoder in evaluation mode on `device`, with frozen parameters.

    `weights` is a local file, a hub id (`owner/name`, `owner/name@revision`), or "random" for untrained weights (tests
    and timing); where it is not given, the weights that the encoder's authors publish.

    Raises:
        SettingsError: no such encoder.
        EncoderError: the weights are missing, gated, cannot be reached, or do not fit.
    """
    model = blueprint(name).build(weights)
    return model.requires_grad_(False).eval().to(choose_device(device, model.info))
