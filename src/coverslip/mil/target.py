"""What is known of bags: the targets of training and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """What is known of B bags: `y` is (B,) classes as int64 or values as float32, or (B, T) for several labels.

    `known` (B, T) is False where a label is missing (None: all are known). For survival `y` is a time, and `event` (B,)
    says how it ended: 0 censored, 1 in the event, or 1 + the place of the cause (None: not about survival).
    """

    y: Tensor
    known: Bool[Tensor, "b t"] | None = None
    event: Int64[Tensor, b] | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def has_classes(self) -> bool:
        """Whether each bag is of one class, so that bags of one class can be counted, drawn or paired."""
        return self.y.ndim == 1 and not self.y.is_floating_point() and self.event is None

    def to(self, device: torch.device | str) -> Target:
        """The same target on a device."""
        return self._each(lambda values: values.to(device, non_blocking=True))

    def take(self, index: Int64[Tensor, n]) -> Target:
        """The target of some bags, in the order of `index`."""
        return self._each(lambda values: values[index])

    def facts(self) -> list[tuple[object, ...]]:
        """What is known of each bag as plain values that compare and hash; a missing label is None."""
        rows = self.y.reshape(len(self.y), -1).tolist()
        if self.known is not None:
            rows = [[v if k else None for v, k in zip(*pair)] for pair in zip(rows, self.known.tolist())]
        if self.event is not None:
            rows = [[*row, event] for row, event in zip(rows, self.event.tolist())]
        return [tuple(row) for row in rows]

    def _each(self, change: Callable[[Tensor], Tensor]) -> Target:
        return Target(
            change(self.y),
            None if self.known is None else change(self.known),
            None if self.event is None else change(self.event),
        )


@dataclass(frozen=True)
class Mixture:
    """What mixed bags hold besides their own: bag b is `share[b]` of its own target and 1 - share[b] of `other`."""

    other: Target
    share: Float[Tensor, b]

    def to(self, device: torch.device | str) -> Mixture:
        """The same on a device."""
        return Mixture(self.other.to(device), self.share.to(device, non_blocking=True))
