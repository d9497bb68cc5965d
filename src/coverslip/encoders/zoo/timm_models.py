"""`timm:<arch>`: any timm architecture as an encoder, with weights from a file or a hub.

timm's published settings of the architecture are resolved once and written out in `EncoderInfo`; nothing of them is
looked up again later. A tile is resized to the network's input and not cropped, although timm's own evaluation crops:
what lies at a tile's border is tissue that no other tile shows.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import timm
import torch
from jaxtyping import Float, UInt8
from timm.models import PretrainedCfg
from torch import Tensor, nn

from coverslip.base.errors import EncoderError, SettingsError
from coverslip.base.registry import suggest
from coverslip.base.units import PLAUSIBLE_MPP
from coverslip.encoders import images as tiles
from coverslip.encoders.encoder import Blueprint, Encoder
from coverslip.encoders.info import RGB, EncoderInfo
from coverslip.encoders.weights import Weights, find_weights, load_strictly, read_state

ENTRIES = {
    "timm:": {
        "build": "timm_model",
        "summary": "timm:<arch>, any timm architecture, e.g. timm:resnet50.a1_in1k; weights from a file or a hub",
        "origin": "timm",
        "licence": "of the weights",
        "needs": "weights",
    }
}

# timm's name of how the last feature map becomes one vector, in this project's words.
_POOLING = {"token": "cls", "avg": "mean", "max": "max", "avgmax": "mean and max", "map": "attention", "fast": "mean"}


class TimmEncoder(Encoder):
    """A timm network without its classifier."""

    def __init__(self, info: EncoderInfo, network: nn.Module) -> None:
        super().__init__()
        self.info = info
        self.network = network

    def prepare(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 p p"]:
        return tiles.prepare(images, self.info)

    def forward(self, x: Float[Tensor, "b 3 p p"]) -> Float[Tensor, "b d"]:
        rows: Tensor = self.network(x)
        return rows


class TimmBlueprint(Blueprint):
    """A timm architecture by name. A tag in the name ("resnet50.a1_in1k") says which published weights are meant."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.arch = name.partition(":")[2]
        self.config = _config(self.arch)
        self.tagged = "." in self.arch
        self.info = self._published()

    def _published(self) -> EncoderInfo:
        network = _network(self.arch, "meta")  # costs no memory, and tells the width of a row
        channels, height, width = self.config.input_size
        if channels != 3 or height != width:
            raise EncoderError(f"{self.name} takes {channels} x {height} x {width}; square RGB is accepted.")
        with torch.inference_mode():
            shape = network(torch.empty(1, 3, height, width, device="meta")).shape
        if len(shape) != 2:
            raise EncoderError(f"{self.name} gives {tuple(shape)} for one tile, not one row of numbers.")
        interpolation = "bilinear" if self.config.interpolation == "bilinear" else "bicubic"
        return EncoderInfo(
            name=self.name,
            dim=int(shape[1]),
            input_px=height,
            mpp=PLAUSIBLE_MPP,  # made for photographs, so any scale is as good as another
            mean=_rgb(self.config.mean),
            std=_rgb(self.config.std),
            resize=f"{interpolation} {height}",
            pooling=_pooling(network),
            source=self._hub_id,
            revision="main",
            sha256=None,
            licence=self.config.license or "not stated",
            gated=False,
        )

    @property
    def _hub_id(self) -> str:
        return str(self.config.hf_hub_id or f"timm/{self.arch}")

    def resolve(self, weights: str | None) -> EncoderInfo:
        return self._with(self._find(weights))

    def build(self, weights: str | None) -> Encoder:
        found = self._find(weights)
        if found.path is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = _network(self.arch, "cpu")
        else:
            network = _network(self.arch, "cpu")
            state = self._without_classifier(read_state(found.path, encoder=self.name))
            load_strictly(network, state, encoder=self.name, source=str(found.path))
        return TimmEncoder(self._with(found), network)

    def _find(self, weights: str | None) -> Weights:
        if weights is None and not self.tagged:
            raise EncoderError(
                f"{self.name} needs weights.",
                fix=f'Set encoder.weights to a file, to a hub id ("{self._hub_id}"), or to "random" for untrained '
                f"weights; or name published ones: timm:{self.arch}.<tag>.",
                code="weights",
            )
        return find_weights(self.name, weights, default=self._hub_id)

    def _with(self, found: Weights) -> EncoderInfo:
        # timm states the licence of the weights it publishes; of any others it knows nothing.
        licence = self.info.licence if found.source == self._hub_id else "not stated"
        return replace(self.info, source=found.source, revision=found.revision, sha256=found.sha256, licence=licence)

    def _without_classifier(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        named = self.config.classifier or ()
        heads = (named,) if isinstance(named, str) else tuple(named)
        return {key: value for key, value in state.items() if not any(key.startswith(f"{head}.") for head in heads)}


def timm_model(name: str) -> Blueprint:
    """The blueprint of `timm:<arch>`.

    Raises:
        SettingsError: timm has no such architecture, with the nearest.
    """
    return TimmBlueprint(name)


def _network(arch: str, device: str) -> nn.Module:
    with torch.device(device):
        network: nn.Module = timm.create_model(arch, pretrained=False, num_classes=0)
    return network.eval()


def _pooling(network: nn.Module) -> str:
    """How the last feature map becomes one row: a word or a layer of the network or of its head."""
    for part in (network, getattr(network, "head", None)):
        found = getattr(part, "global_pool", None)
        word = found if isinstance(found, str) else getattr(found, "pool_type", None)
        if word in _POOLING:
            return _POOLING[word]
    return "of the architecture"


@cache
def _config(arch: str) -> PretrainedCfg:
    base, _, tag = arch.partition(".")
    if not timm.is_model(base):
        raise SettingsError(f"timm has no architecture {base!r}.", fix=_nearest(base, timm.list_models()))
    published = timm.list_pretrained(f"{base}.*")
    if tag and arch not in published:
        raise SettingsError(f"timm publishes no weights {tag!r} of {base}.", fix=_nearest(arch, published))
    config = timm.get_pretrained_cfg(arch)
    if config is None:
        raise EncoderError(f"timm states no input size and normalisation of {base!r}, and nothing is guessed.")
    return config


def _nearest(name: str, known: list[str]) -> str:
    # timm knows a thousand names: the nearest are told, not all.
    return suggest(name, known) if len(known) <= 12 else suggest(name, known).partition(" Accepted")[0]


def _rgb(values: tuple[float, ...]) -> RGB:
    red, green, blue = values
    return float(red), float(green), float(blue)
