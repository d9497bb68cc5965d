"""What mean and max pooling share: each row is classified by itself, then the row logits are pooled."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from coverslip.nn.layers import Projection, default_hidden


class RowClassifier(nn.Module):
    """Rows (m, d) to projected rows (m, hidden) and their own logits (m, k)."""

    def __init__(self, dim: int, num_outputs: int, *, hidden: int | None, dropout: float) -> None:
        super().__init__()
        hidden = default_hidden(dim) if hidden is None else hidden
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.classifier = nn.Linear(hidden, num_outputs)

    def forward(self, x: Float[Tensor, "m d"]) -> tuple[Float[Tensor, "m hidden"], Float[Tensor, "m k"]]:
        h = self.projection(x)
        return h, self.classifier(h)
