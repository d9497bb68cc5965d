"""RRT: rows are embedded anew by a transformer over regions, then pooled by attention.

Tang et al.: Feature re-embedding: towards foundation model-level performance in computational pathology, CVPR 2024,
https://arxiv.org/abs/2402.17228. Written from the paper's formulas.
"""

from __future__ import annotations

import math
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from coverslip.mil.bags import BagOutput, Bags, StagedAggregator
from coverslip.mil.target import Target
from coverslip.nn.layers import AttentionScores, Projection, default_hidden
from coverslip.nn.pooling import AttentionPool, Weights
from coverslip.nn.regions import CrossRegionAttention, GroupAttention, PackedRegions, Regions

ENTRIES = {
    "rrt": {
        "build": "Rrt",
        "summary": "rows embedded anew by a regional transformer, then attention pooling",
        "origin": "Tang et al. 2024, arXiv:2402.17228",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class Rrt(StagedAggregator):
    """Attention pooling of rows that have seen their region and, through it, the others.

    For the projected rows h (n, hidden) of a bag, laid line by line in a square that is cut into regions:

        x = h + R-MSA(LN(h))                             attention inside each region, with EPEG positions
        x = x + CR-MSA(LN(x))                            attention among the regions' tokens, handed back to rows
        x = LN(x + h), without `shortcut` LN(x)
        s = gated attention scores of x, a = softmax     BagOutput.attention (m, 1)
        z = sum of a x                                   BagOutput.embedding (b, hidden)
        logits = W z + c

    The two attentions are described in `coverslip.nn.regions`. Evidence is W (a x), a row's own term of the last sum:
    over a bag it adds up to the logits minus c. As x has seen other rows, so has its evidence. The square knows the
    order of rows, not where tiles lie: order_matters.

    A square has `regions` regions a side, fewer where a region would have under `least_rows` places, and more where it
    would have over `most_rows`; so time grows with the rows, not with their square.

    As released: hidden 512, 8 regions a side at any length, 8 heads, positions 15 (9 to 21 by data set), tokens 3 (1
    to 5), shortcut off (on in four of the six published settings), dropout .25 after the projection and .1 after
    attention, pooling ReLU without gate or biases. Ours: the same, `shortcut` on, pooling as in ABMIL, and regions as
    above. Adam 2e-4 with decay 1e-5 there; the study's here.

    `preset` "official" does as the released code where that is doubtful; "fixed" does not:

    - places without a row hold zeros that attend and are attended to; fixed: they are masked;
    - always 8 regions a side: up to 64 rows each row is a region by itself, and CR-MSA gives nothing, since min and max
      over one row are one; over 10,000 rows time grows with the square of their number. Fixed: as above;
    - pooling as released.

    `weights` and `pooling` are optional parts, see `coverslip.nn.pooling.AttentionPool`; "ggem" is none of them, since
    rows after a layer norm have negative values.

    Each bag has a square of its own; regions of short bags attend side by side.
    """

    order_matters = True

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        preset: Literal["fixed", "official"] = "fixed",
        hidden: int | None = None,
        heads: int = 8,
        regions: int = 8,
        least_rows: int = 16,
        most_rows: int = 256,
        positions: int = 15,
        tokens: int = 3,
        shortcut: bool = True,
        attention: int = 128,
        dropout: float = 0.25,
        attention_dropout: float = 0.1,
        weights: Weights = "softmax",
        pooling: Literal["sum", "low_rank"] = "sum",
        rank: int = 64,
    ) -> None:
        super().__init__()
        if not (regions >= 1 and 1 <= least_rows <= most_rows):
            raise ValueError("regions is at least 1, and least_rows from 1 to most_rows")
        hidden = default_hidden(dim) if hidden is None else hidden
        self.released, self.shortcut, self.width = preset == "official", shortcut, hidden
        self.regions, self.least_rows, self.most_rows = regions, least_rows, most_rows
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.norm_inside, self.norm_across, self.norm_out = (nn.LayerNorm(hidden) for _ in range(3))
        self.inside = GroupAttention(hidden, heads=heads, kernel=positions, dropout=attention_dropout)
        self.across = CrossRegionAttention(
            hidden,
            tokens=tokens,
            heads=heads,
            dropout=attention_dropout,
            released=self.released,
        )
        self.scores: nn.Module
        if self.released:
            first, second = nn.Linear(hidden, attention, bias=False), nn.Linear(attention, 1, bias=False)
            self.scores = nn.Sequential(first, nn.ReLU(), second)
        else:
            self.scores = AttentionScores(hidden, attention)
        self.pool = AttentionPool(hidden, weights=weights, pooling=pooling, rank=rank)
        self.classifier = nn.Linear(self.pool.width, num_outputs)

    def project(self, x: Tensor) -> Tensor:
        h: Tensor = self.projection(x)
        return h

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        regions = PackedRegions.of([self._square(rows) for rows in bags.lengths.tolist()], bags.x.device)
        x = self._embedded(bags.x, regions)  # (m, hidden)
        pooled = self.pool(self.scores(x), x, bags.segments)
        z = pooled.z.flatten(1)  # (b, hidden)
        evidence = self.pool.row_terms(pooled, x, self.classifier.weight.unsqueeze(1))
        return BagOutput(self.classifier(z), z, attention=pooled.attention, evidence=evidence)

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"]:
        logits: Tensor = self.classifier(z)
        return logits

    def _embedded(self, h: Tensor, regions: PackedRegions) -> Tensor:
        """The rows (m, hidden) anew."""
        x = h + self.inside(self.norm_inside(h), regions.inside)
        x = x + self.across(self.norm_across(x), regions)
        new: Tensor = self.norm_out(x + h if self.shortcut else x)
        return new

    def _square(self, rows: int) -> Regions:
        if self.released:
            return Regions.of(rows, self.regions, keep_empty=True)
        side = math.isqrt(rows - 1) + 1
        most = min(self.regions, max(1, side // math.isqrt(self.least_rows)))
        return Regions.of(rows, max(most, -(-side // math.isqrt(self.most_rows))))
