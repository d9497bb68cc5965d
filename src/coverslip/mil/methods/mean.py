"""Mean pooling: every tile counts the same."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from coverslip.mil.bags import Aggregator, BagOutput, Bags
from coverslip.mil.methods._rows import RowClassifier
from coverslip.mil.target import Target
from coverslip.nn.segments import full, mean

ENTRIES = {
    "mean": {
        "build": "Mean",
        "summary": "mean of row logits",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class Mean(Aggregator):
    """The mean of the rows' own logits: logits_b = mean of (W h + c), with h = dropout(relu(P x)).

    Evidence is each row's logits, W h + c: over a bag their mean is the bag's logits, exactly.
    """

    def __init__(self, dim: int, num_outputs: int, *, hidden: int | None = None, dropout: float = 0.25) -> None:
        super().__init__()
        self.rows = RowClassifier(dim, num_outputs, hidden=hidden, dropout=dropout)

    def forward(self, bags: Bags, target: Target | None = None) -> BagOutput:
        h, logits = self.rows(bags.x)  # (m, hidden), (m, k)
        logits = full(logits)
        return BagOutput(mean(logits, bags.segments), mean(h, bags.segments), evidence=logits)

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"]:
        logits: Tensor = self.rows.classifier(z)
        return logits
