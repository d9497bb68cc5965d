"""ABMIL: attention decides how much each tile counts.

Ilse, Tomczak, Welling: Attention-based deep multiple instance learning, ICML 2018, https://arxiv.org/abs/1802.04712.
Written from the paper's formulas.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import nn

from coverslip.mil.bags import BagOutput, Bags, StagedAggregator
from coverslip.mil.target import Target
from coverslip.nn.layers import AttentionScores, Projection, default_hidden
from coverslip.nn.pooling import AttentionPool, Pooling, Weights

ENTRIES = {
    "abmil": {
        "build": "Abmil",
        "summary": "gated attention pooling",
        "origin": "Ilse et al. 2018, arXiv:1802.04712",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class Abmil(StagedAggregator):
    """Attention pooling of projected rows, then a linear classifier.

    For each row x of a bag, with H heads:

        h = dropout(relu(P x))                           hidden
        s = w^T (tanh(V h) * sigmoid(U h))               attention; without `gated`, w^T tanh(V h)
        a = softmax of s over the bag                    BagOutput.attention (m, H)
        z = sum of a h                                   BagOutput.embedding (b, H hidden)
        logits = W z + c

    Evidence is a row's own term of that last sum, W (a h): over a bag it adds up to the logits minus c, exactly.

    The paper's MNIST-bags network has hidden 500, attention 128, no dropout, one sigmoid output; whole-slide
    implementations use 512 with 128, 256 or 384. Ours: `hidden` 512, or twice the width of narrower features but at
    least 128; `attention` 128; `dropout` .25 after the projection.

    `weights = "sigmoid"` lets rows count without competing, `pooling = "low_rank"` gives each head a sub-space of
    `rank` dimensions, `pooling = "ggem"` takes a generalised mean with one learnt power for each of `groups` runs of
    channels: see `coverslip.nn.pooling.AttentionPool`. With the sigmoid, attention is the weights over their sum, while
    evidence holds the weights themselves and still adds up. With `ggem` there is no evidence: it is no sum over rows.
    """

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        hidden: int | None = None,
        attention: int = 128,
        heads: int = 1,
        gated: bool = True,
        dropout: float = 0.25,
        weights: Weights = "softmax",
        pooling: Pooling = "sum",
        rank: int = 64,
        groups: int = 8,
    ) -> None:
        super().__init__()
        hidden = default_hidden(dim) if hidden is None else hidden
        self.width = hidden
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.scores = AttentionScores(hidden, attention, heads=heads, gated=gated)
        self.pool = AttentionPool(hidden, branches=heads, weights=weights, pooling=pooling, rank=rank, groups=groups)
        self.classifier = nn.Linear(heads * self.pool.width, num_outputs)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = self.projection(x)
        return h

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        h = bags.x  # (m, hidden)
        pooled = self.pool(self.scores(h), h, bags.segments)
        z = pooled.z.flatten(1)  # (b, heads * hidden)
        per_head = self.classifier.weight.unflatten(1, pooled.z.shape[1:])  # (outputs, heads, hidden)
        evidence = self.pool.row_terms(pooled, h, per_head)
        return BagOutput(self.classifier(z), z, attention=pooled.attention, evidence=evidence)

    def classify(self, z: Float[torch.Tensor, "b e"]) -> Float[torch.Tensor, "b k"]:
        logits: torch.Tensor = self.classifier(z)
        return logits
