"""What a method remembers between steps. All of it is buffers, so a run that was stopped remembers the same."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional


class FeatureQueue(nn.Module):
    """The last `size` vectors (size, dim) that were pushed, each with a payload (size, payload); the oldest leave."""

    vectors: Tensor
    payloads: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int, payload: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("payloads", torch.zeros(size, payload))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    @property
    def known(self) -> Bool[Tensor, size]:
        """True for the places that hold a vector."""
        return torch.arange(len(self.vectors), device=self.pushed.device) < self.pushed

    def push(self, vectors: Float[Tensor, "n dim"], payloads: Float[Tensor, "n payload"]) -> None:
        """Puts these in the places of the oldest; of more than `size` the last ones stay."""
        size = len(self.vectors)
        skipped = max(0, len(vectors) - size)
        if size:
            order = torch.arange(skipped, len(vectors), device=self.pushed.device)
            places = (self.pushed + order) % size
            self.vectors[places] = vectors[skipped:].to(self.vectors.dtype)
            self.payloads[places] = payloads[skipped:].to(self.payloads.dtype)
        self.pushed += len(vectors)


class Prototypes(nn.Module):
    """One unit vector a class, the moving average of the vectors that were counted to it."""

    vectors: Tensor
    seen: Tensor

    def __init__(self, classes: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(classes, dim))
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.bool))
        self.momentum = momentum

    def update(self, vectors: Float[Tensor, "n dim"], classes: Int64[Tensor, n]) -> None:
        """Moves each class towards the mean of its n_c vectors, mu <- m^n_c mu + (1 - m^n_c) mean, then to length 1.

        That is what n_c single steps of momentum m do to a class whose vectors are alike; it does not depend on their
        order. A class without vectors stays where it is.
        """
        count = functional.one_hot(classes, len(self.vectors)).sum(0).to(self.vectors.dtype)
        added = torch.zeros_like(self.vectors).index_add_(0, classes, vectors.to(self.vectors.dtype))
        mean = added / count.clamp(min=1).unsqueeze(1)
        keep = (self.momentum**count).unsqueeze(1)
        self.vectors.copy_(functional.normalize(keep * self.vectors + (1 - keep) * mean, dim=1))
        self.seen |= count > 0

    def similarity(self, vectors: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        """Inner products with the prototypes; -inf for a class that has none yet."""
        return (vectors.to(self.vectors.dtype) @ self.vectors.T).masked_fill(~self.seen, -torch.inf)


class Confidence(nn.Module):
    """What is believed of each of `num_rows` rows: a share for each class, by the row's key (`Bags.keys`)."""

    shares: Tensor

    def __init__(self, num_rows: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("shares", torch.zeros(num_rows, classes))

    def of(self, keys: Int64[Tensor, n], start: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        """The shares of these rows; `start` for one of whom nothing is known yet."""
        shares = self.shares[keys]
        return torch.where(shares.sum(1, keepdim=True) > 0, shares, start)

    def update(
        self,
        keys: Int64[Tensor, n],
        start: Float[Tensor, "n classes"],
        found: Float[Tensor, "n classes"],
        momentum: float,
    ) -> None:
        """Moves the shares towards what was found: s <- m s + (1 - m) found, beginning with `start`.

        A row that comes twice is moved by the sum of both, wherever it stands.
        """
        shares = self.of(keys, start)
        self.shares[keys] = shares
        self.shares.index_add_(0, keys, (1 - momentum) * (found - shares))
