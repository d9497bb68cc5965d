"""AdamW, with weight decay only where it means something."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def decay_groups(module: nn.Module, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups of what requires a gradient: matrices decay, biases and norm scales (one axis) do not."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101) with the usual betas of .9 and .999."""
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
