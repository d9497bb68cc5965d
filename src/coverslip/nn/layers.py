"""The small parts that MIL methods share: a row projection, attention scores, and a standardiser."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coverslip.nn.segments import full


def default_hidden(dim: int) -> int:
    """The width of the hidden rows where none is given: 512, or twice narrower features' width but at least 128."""
    return min(512, max(128, 2 * dim))


class Projection(nn.Sequential):
    """Rows (m, d) to rows (m, hidden): a linear map, ReLU, dropout."""

    def __init__(self, dim: int, hidden: int, *, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__(nn.Linear(dim, hidden, bias=bias), nn.ReLU(), nn.Dropout(dropout))


class AttentionScores(nn.Module):
    """Attention scores (m, heads), before any softmax, of rows h (m, dim).

    plain: w^T tanh(V h); gated: w^T (tanh(V h) * sigmoid(U h)), Ilse et al. 2018, https://arxiv.org/abs/1802.04712.
    """

    def __init__(self, dim: int, hidden: int, *, heads: int = 1, gated: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.v = nn.Linear(dim, hidden)
        self.u = nn.Linear(dim, hidden) if gated else None
        self.dropout = nn.Dropout(dropout)
        self.w = nn.Linear(hidden, heads)

    def forward(self, h: Float[Tensor, "m d"]) -> Float[Tensor, "m heads"]:
        hidden = torch.tanh(self.v(h))  # (m, hidden)
        if self.u is not None:
            hidden = hidden * torch.sigmoid(self.u(h))
        return self.w(self.dropout(hidden))


class Standardise(nn.Module):
    """Rows (m, d) in float32 with each dimension shifted and scaled by stored numbers; does nothing until `set`.

    Without it, descriptors whose dimensions differ by orders of magnitude train to chance.
    """

    mean: Tensor
    sd: Tensor

    # A dimension that hardly varies is noise: dividing by its spread would blow it up.
    FLOOR = 1e-6

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("sd", torch.ones(dim))

    def set(self, mean: Float[Tensor, d], sd: Float[Tensor, d]) -> None:
        """Takes the numbers over; a dimension with (almost) no spread is centred and left unscaled."""
        flat = sd <= self.FLOOR * torch.clamp(mean.abs(), min=1.0)
        self.mean.copy_(mean)
        self.sd.copy_(torch.where(flat, torch.ones_like(sd), sd))

    def forward(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        return (full(x) - self.mean) / self.sd
