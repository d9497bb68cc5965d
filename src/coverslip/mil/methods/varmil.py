"""VarMIL: the attention mean of the tiles, and how much they vary around it.

Schirris, Gavves, Nederlof, Horlings, Teuwen: DeepSMILE, Medical Image Analysis 2022, https://arxiv.org/abs/2107.09405.
Written from the paper's formulas.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import nn

from coverslip.mil.bags import BagOutput, Bags, StagedAggregator
from coverslip.mil.target import Target
from coverslip.nn.layers import AttentionScores, Projection, default_hidden
from coverslip.nn.pooling import AttentionPool, Weights
from coverslip.nn.segments import full, total, weighted_sum

ENTRIES = {
    "varmil": {
        "build": "VarMil",
        "summary": "attention mean and attention-weighted variance of the rows",
        "origin": "Schirris et al. 2022, arXiv:2107.09405",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class VarMil(StagedAggregator):
    """A linear classifier on the attention mean and the attention-weighted variance of projected rows.

    For the rows h_1 to h_N of a bag, with attention a as in `abmil`:

        M = sum of a h                                          hidden
        S = N / (N - 1) sum of a (h - M)^2                      hidden; 0 in a bag of one row
        logits = W [M, S] + c                                   [M, S] is BagOutput.embedding

    Evidence is a row's own term of that sum, W [a h, N / (N - 1) a (h - M)^2], with M as it is: over a bag it adds up
    to the logits minus c, exactly.

    `preset` "official" does as the released code: attention (plain, not `gated`) and both moments are of the features
    themselves, without a projection (`hidden` has no part in it and is refused) or dropout, and N counts only rows
    whose weight is not zero, which differs where float32 attention underflows. Not reproduced: its variance in a bag of
    one such row, which is zero over zero; here it is 0. Its whole-slide settings are features of width 512 and
    attention 128. "fixed", ours: `hidden` 512, or twice the width of narrower features but at least 128; `attention`
    128; `gated`; `dropout` .25; every row counts.

    `weights = "sigmoid"` takes sigmoids over their sum in place of the softmax: moments need weights of sum 1.
    """

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        hidden: int | None = None,
        attention: int = 128,
        gated: bool | None = None,
        dropout: float | None = None,
        weights: Weights = "softmax",
        preset: Literal["fixed", "official"] = "fixed",
    ) -> None:
        super().__init__()
        self.official = preset == "official"
        if self.official and hidden is not None:
            raise ValueError('preset "official" takes features as they are; leave hidden out')
        gated = not self.official if gated is None else gated
        dropout = (0.0 if self.official else 0.25) if dropout is None else dropout
        hidden = dim if self.official else default_hidden(dim) if hidden is None else hidden
        self.width = hidden
        self.projection = nn.Dropout(dropout) if self.official else Projection(dim, hidden, dropout=dropout)
        self.scores = AttentionScores(hidden, attention, gated=gated)
        self.pool = AttentionPool(hidden, weights=weights)
        self.classifier = nn.Linear(2 * hidden, num_outputs)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = self.projection(x)
        return h

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        h, segments = full(bags.x), bags.segments  # (m, hidden)
        a = self.pool(self.scores(bags.x), h, segments).attention  # (m, 1)
        mean = weighted_sum(a, h, segments)[:, 0]  # (b, hidden)
        lengths = (total((a[:, 0] != 0).to(h.dtype), segments) if self.official else bags.lengths).to(h.dtype)
        correction = (lengths / (lengths - 1).clamp(min=1)).unsqueeze(1)  # (b, 1)
        spread = correction[segments.ids] * (h - mean[segments.ids]).square()  # (m, hidden)
        variance = weighted_sum(a, spread, segments)[:, 0]  # (b, hidden)
        z = torch.cat([mean, variance], 1)  # (b, 2 hidden)
        of_mean, of_variance = self.classifier.weight.to(h.dtype).chunk(2, 1)  # (outputs, hidden) each
        evidence = a * (h @ of_mean.T + spread @ of_variance.T)
        return BagOutput(self.classifier(z), z, attention=a, evidence=evidence)

    def classify(self, z: Float[torch.Tensor, "b e"]) -> Float[torch.Tensor, "b k"]:
        logits: torch.Tensor = self.classifier(z)
        return logits
