"""What is known of bags: the targets of training and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """What is known of B bags: `y` is (B,) classes as int64 or values as float32, or (B, T) for several labels.

    `known` (B, T) is False where a label is missing (None: all are known); `event` (B,) is False for times that are
    censored (None: not about survival).
    """

    y: Tensor
    known: Bool[Tensor, "b t"] | None = None
    event: Bool[Tensor, b] | None = None

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device | str) -> Target:
        """The same target on a device."""
        return self._each(lambda values: values.to(device, non_blocking=True))

    def take(self, index: Int64[Tensor, n]) -> Target:
        """The target of some bags, in the order of `index`."""
        return self._each(lambda values: values[index])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Target:
        return Target(
            change(self.y),
            None if self.known is None else change(self.known),
            None if self.event is None else change(self.event),
        )
