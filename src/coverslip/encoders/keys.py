"""Names of published tensors translated to those of timm's VisionTransformer.

Phikon, Phikon-v2, Hibou and Midnight are published for Hugging Face transformers (`ViTModel`, `Dinov2Model`,
`Dinov2WithRegistersModel`). The computation is the same as timm's; names differ, query, key and value are three tensors
there and one here, and positions are laid out otherwise where there are registers:

    embeddings.cls_token                             cls_token
    embeddings.position_embeddings                   pos_embed
    embeddings.register_tokens                       reg_token
    embeddings.patch_embeddings.projection           patch_embed.proj
    encoder.layer.N.layernorm_before | .norm1        blocks.N.norm1
    encoder.layer.N.attention.attention.{query,key,value}    blocks.N.attn.qkv
    encoder.layer.N.attention.output.dense           blocks.N.attn.proj
    encoder.layer.N.layer_scale1.lambda1             blocks.N.ls1.gamma
    encoder.layer.N.layernorm_after | .norm2         blocks.N.norm2
    encoder.layer.N.intermediate.dense | .mlp.fc1 | .mlp.weights_in     blocks.N.mlp.fc1
    encoder.layer.N.output.dense | .mlp.fc2 | .mlp.weights_out          blocks.N.mlp.fc2
    encoder.layer.N.layer_scale2.lambda1             blocks.N.ls2.gamma
    layernorm                                        norm

A model that was saved inside another keeps that one's prefix ("vit.", "dinov2."), which is taken off. Left out:
`embeddings.mask_token` (used while training alone) and `pooler.*` (a layer that these models do not use; the
pooled output of Dinov2 is the class token itself).
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]

_RULES = [
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.patch_embeddings\.projection\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.(?:layernorm_before|norm1)\.(weight|bias)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.(?:layernorm_after|norm2)\.(weight|bias)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (
        r"encoder\.layer\.(\d+)\.(?:intermediate\.dense|mlp\.(?:fc1|weights_in))\.(weight|bias)",
        r"blocks.\1.mlp.fc1.\2",
    ),
    (r"encoder\.layer\.(\d+)\.(?:output\.dense|mlp\.(?:fc2|weights_out))\.(weight|bias)", r"blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(weight|bias)", r"norm.\1"),
]
_RULES_COMPILED = [(re.compile(pattern), target) for pattern, target in _RULES]
_UNUSED = re.compile(r"embeddings\.mask_token|pooler\..*")


def rename(name: str) -> str | None:
    """timm's name of one published tensor; None where it is left out.

    A name that is not known stays as it is, for the strict load to tell.
    """
    bare = name.removeprefix("vit.").removeprefix("dinov2.")
    if _UNUSED.fullmatch(bare):
        return None
    for pattern, target in _RULES_COMPILED:
        if match := pattern.fullmatch(bare):
            return match.expand(target)
    return name


def from_transformers(state: State, *, side: int, prefix_positions: bool) -> State:
    """The tensors of timm's VisionTransformer from those of a transformers ViT or Dinov2 model.

    `side` is the number of patches along an image; `prefix_positions` says whether timm's model keeps a position for
    the class token, as it does without registers.
    """
    named = {new: tensor for old, tensor in state.items() if (new := rename(old)) is not None}
    named = _join_qkv(named)
    positions, cls = named.get("pos_embed"), named.get("cls_token")
    if positions is None or cls is None or positions.ndim != 3 or positions.shape[1] < 2:
        return named  # the strict load says what is missing
    first, patches = positions[:, :1], _fit_grid(positions[:, 1:], side)
    if prefix_positions:
        named["pos_embed"] = torch.cat([first, patches], dim=1)
    else:  # timm keeps positions of patches alone, so the class token carries its own
        named["cls_token"], named["pos_embed"] = cls + first, patches
    return named


def _join_qkv(named: State) -> State:
    joined: State = {}
    for name, tensor in named.items():
        match = re.fullmatch(r"(blocks\.\d+\.attn)\.(query|key|value)\.(weight|bias)", name)
        if match is None:
            joined[name] = tensor
            continue
        parts = [named.get(f"{match[1]}.{part}.{match[3]}") for part in ("query", "key", "value")]
        whole = [part for part in parts if part is not None]
        if len(whole) == 3:
            joined[f"{match[1]}.qkv.{match[3]}"] = torch.cat(whole, dim=0)
        else:
            joined[name] = tensor
    return joined


def _fit_grid(patches: Tensor, side: int) -> Tensor:
    """Positions for `side` x `side` patches; another square grid is resampled bicubically, as Dinov2Model does."""
    old = round(patches.shape[1] ** 0.5)
    if old == side or old * old != patches.shape[1]:
        return patches
    grid = patches.float().reshape(1, old, old, -1).permute(0, 3, 1, 2)  # (1, w, old, old)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).reshape(1, side * side, -1)
