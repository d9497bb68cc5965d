"""Max pooling: the most telling tile of each class decides."""

from __future__ import annotations

from coverslip.mil.bags import Aggregator, BagOutput, Bags
from coverslip.mil.methods._rows import RowClassifier
from coverslip.mil.target import Target
from coverslip.nn.segments import full, maximum

ENTRIES = {
    "max": {
        "build": "Max",
        "summary": "largest row logit of each class",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class Max(Aggregator):
    """The largest of the rows' own logits, a class at a time: logits_b = max of (W h + c), with h = dropout(relu(P x)).

    Evidence is each row's logits, W h + c: over a bag their maximum is the bag's logits, exactly.

    The loss of a bag reaches one row a class, at first a row of no meaning, so that learning begins late, and when is
    for the seed to say. On planted bags (80 of 40 to 80 rows, 8 % witnesses, 15 epochs of five bags a step) three of
    twelve seeds ended at AUROC .49 to .77 and nine at .93 to 1.00; a bare network with a maximum over its rows, under
    the same schedule, ended two of twelve at .47 and .67. With 40 epochs of one bag a step all of nine, on three sets
    of bags, reached .98. Where it learns nothing, set `fit.batch` = 1 and more epochs, or a larger `fit.lr`.
    """

    def __init__(self, dim: int, num_outputs: int, *, hidden: int | None = None, dropout: float = 0.25) -> None:
        super().__init__()
        self.rows = RowClassifier(dim, num_outputs, hidden=hidden, dropout=dropout)

    def forward(self, bags: Bags, target: Target | None = None) -> BagOutput:
        h, logits = self.rows(bags.x)  # (m, hidden), (m, k)
        logits = full(logits)
        return BagOutput(maximum(logits, bags.segments), maximum(h, bags.segments), evidence=logits)
