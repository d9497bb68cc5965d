"""Vision transformers with every argument of the architecture written out, and their published weights.

Registries and library defaults disagree about patch sizes, pooling and transforms, and they change; so nothing is taken
from a library's named model. All families here are timm's `VisionTransformer`; those published for another library have
their tensor names translated (`keys.py`), and every load is strict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from timm.layers import Mlp, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from coverslip.encoders import images as tiles
from coverslip.encoders.encoder import Blueprint, Encoder
from coverslip.encoders.info import EncoderInfo
from coverslip.encoders.keys import State
from coverslip.encoders.weights import Weights, find_weights, load_strictly, read_state

Pooling = Literal["cls", "cls+mean"]


@dataclass(frozen=True)
class ViT:
    """The architecture of a vision transformer.

    `mlp_ratio` is the width of the first MLP layer over `width`; with `swiglu` that layer holds gate and value, so the
    hidden width is half of it. `registers` are extra tokens between CLS and patches. `prefix_positions` says whether
    CLS and registers have learnt positions of their own. `layer_scale` says whether each branch is scaled by a learnt
    vector; what it starts from matters to training alone.
    """

    width: int
    depth: int
    heads: int
    patch_px: int
    input_px: int = 224
    mlp_ratio: float = 4.0
    swiglu: bool = False
    registers: int = 0
    prefix_positions: bool = True
    layer_scale: bool = False
    norm_eps: float = 1e-6

    @property
    def num_prefix(self) -> int:
        """Tokens before the first patch: CLS and the registers."""
        return 1 + self.registers

    @property
    def side(self) -> int:
        """Patches along an image."""
        return self.input_px // self.patch_px

    @property
    def num_tokens(self) -> int:
        return self.num_prefix + self.side**2

    def build(self, device: str = "cpu") -> VisionTransformer:
        """The network with untrained weights; on "meta" it costs no memory."""
        with torch.device(device):
            return VisionTransformer(
                img_size=self.input_px,
                patch_size=self.patch_px,
                in_chans=3,
                num_classes=0,
                global_pool="token",
                embed_dim=self.width,
                depth=self.depth,
                num_heads=self.heads,
                mlp_ratio=self.mlp_ratio,
                qkv_bias=True,
                qk_norm=False,
                init_values=1e-5 if self.layer_scale else None,
                class_token=True,
                pos_embed="learn",
                no_embed_class=not self.prefix_positions,
                reg_tokens=self.registers,
                pre_norm=False,
                final_norm=True,
                fc_norm=False,
                dynamic_img_size=False,
                drop_rate=0.0,
                drop_path_rate=0.0,
                norm_layer=partial(nn.LayerNorm, eps=self.norm_eps),
                act_layer=nn.SiLU if self.swiglu else nn.GELU,
                mlp_layer=SwiGLUPacked if self.swiglu else Mlp,  # type: ignore[arg-type]  # a partial of a Module
            )


class ViTEncoder(Encoder):
    """A vision transformer whose tokens are pooled into one row a tile."""

    def __init__(self, info: EncoderInfo, network: VisionTransformer, *, num_prefix: int) -> None:
        super().__init__()
        self.info = info
        self.network = network
        self.num_prefix = num_prefix

    def prepare(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 p p"]:
        return tiles.prepare(images, self.info)

    def forward(self, x: Float[Tensor, "b 3 p p"]) -> Float[Tensor, "b d"]:
        tokens = self.network.forward_features(x)  # (b, prefix + patches, width), after the last norm
        return pool(tokens, self.info.pooling, num_prefix=self.num_prefix)


def pool(tokens: Float[Tensor, "b n w"], pooling: str, *, num_prefix: int) -> Float[Tensor, "b d"]:
    """One row a tile: "cls" is the class token, "cls+mean" that token followed by the mean over patches.

    Registers are neither: they are scratch space of the network.
    """
    assert pooling in {"cls", "cls+mean"}, pooling
    if pooling == "cls":
        return tokens[:, 0]
    return torch.cat([tokens[:, 0], tokens[:, num_prefix:].mean(dim=1)], dim=1)


@dataclass(frozen=True)
class PublishedViT(Blueprint):
    """A vision transformer that its authors publish at `info.source`.

    `translate` turns the published tensors into those of timm's VisionTransformer, where they are named otherwise.
    """

    info: EncoderInfo
    vit: ViT
    translate: Callable[..., State] | None = None

    def __post_init__(self) -> None:
        parts = 2 if self.info.pooling == "cls+mean" else 1
        assert self.info.dim == parts * self.vit.width and self.info.input_px == self.vit.input_px, self.info

    def resolve(self, weights: str | None) -> EncoderInfo:
        return self._with(self._find(weights))

    def build(self, weights: str | None) -> Encoder:
        found = self._find(weights)
        if found.path is None:
            network = self._random()
        else:
            state = read_state(found.path, encoder=self.info.name)
            if self.translate is not None:
                state = self.translate(state, side=self.vit.side, prefix_positions=self.vit.prefix_positions)
            network = self.vit.build("meta")
            load_strictly(network, state, encoder=self.info.name, source=str(found.path))
        return ViTEncoder(self._with(found), network, num_prefix=self.vit.num_prefix)

    def _find(self, weights: str | None) -> Weights:
        return find_weights(self.info.name, weights, default=self.info.source)

    def _with(self, found: Weights) -> EncoderInfo:
        return replace(self.info, source=found.source, revision=found.revision, sha256=found.sha256)

    def _random(self) -> VisionTransformer:
        # The same untrained weights each time, and the caller's own random stream is left where it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.vit.build()
