"""A teacher: a second copy of a network that follows the first slowly, and is never trained itself.

Tarvainen and Valpola: Mean teachers are better role models, NeurIPS 2017, https://arxiv.org/abs/1703.01780.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """The exponential moving average of a student network of the same shape, without gradients.

    `move` makes every number of it m own + (1 - m) student; after n steps beside a constant student that is
    m^n start + (1 - m^n) student. Buffers that are no floating point numbers are copied. The teacher shares no memory
    with the student, and no optimiser takes it, since nothing of it requires a gradient. With `dropout` off it is in
    eval mode always and draws nothing from the random generators; on, it follows the mode of its objective.
    """

    def __init__(self, student: nn.Module, *, dropout: bool = False) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.network.zero_grad(set_to_none=True)
        self.dropout = dropout
        self.train(student.training)

    def forward(self, *inputs: Any) -> Any:
        """What the teacher says of these inputs, without a graph."""
        # Not inference_mode: its tensors could not be part of the student's loss.
        with torch.no_grad():
            return self.network(*inputs)

    def train(self, mode: bool = True) -> Teacher:
        super().train(mode and self.dropout)
        return self

    @torch.no_grad()
    def move(self, student: nn.Module, momentum: float | Tensor) -> None:
        """Moves towards the student; `momentum` 0 makes a copy of it, 1 leaves the teacher where it is."""
        step = 1 - momentum
        for own, new in zip(_state(self.network), _state(student), strict=True):
            if own.is_floating_point():
                own.lerp_(new.to(own.dtype), torch.as_tensor(step, dtype=own.dtype, device=own.device))
            else:
                own.copy_(new)


def _state(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
