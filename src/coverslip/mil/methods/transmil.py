"""TransMIL: a transformer over the tiles of a bag; a class token gathers what the slide is.

Shao et al.: TransMIL: transformer based correlated multiple instance learning for whole slide image classification,
NeurIPS 2021, https://arxiv.org/abs/2106.00908. Written from the paper's formulas.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coverslip.base.study import FitSettings
from coverslip.mil.bags import BagOutput, Bags, LearningSet, StagedAggregator
from coverslip.mil.supervised import Supervised
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task
from coverslip.nn.attention import logit_shares
from coverslip.nn.layers import Projection, default_hidden
from coverslip.nn.nystrom import FirstRow, NystromAttention
from coverslip.nn.segments import total
from coverslip.train import Objective
from coverslip.train.optim import lookahead_radam

ENTRIES = {
    "transmil": {
        "build": "TransMil",
        "summary": "a transformer with Nyström attention and a class token",
        "origin": "Shao et al. 2021, arXiv:2106.00908",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class TransMil(StagedAggregator):
    """A class token that has attended on all rows, then a linear classifier.

    For the projected rows h (n, hidden) of a bag and the learnt token t:

        x = [t, h]
        x = x + Attention(LN(x))                         every row sees every other through `landmarks`
        x[1:] = PPEG(x[1:])                              rows laid line by line in a square, 7 x 7, 5 x 5 and 3 x 3
                                                         convolutions of each channel added to them
        c = x[0] + Attention(LN(x))[0]                   here only the token's row is needed
        z = LN(c)                                        BagOutput.embedding (b, hidden)
        logits = W z + b

    Attention is that of `coverslip.nn.nystrom`, and exact for bags below `landmarks` rows. Where rows look alike, 6
    `iterations` leave its inverse unfinished, and the token's own view is lost in that of the rows; more bring it back.
    The square knows the order of rows, not where tiles lie: order_matters.

    BagOutput.attention (m, heads) is the token's row of the second attention, A1 pinv(A2) A3 for that row alone,
    without the token itself, its slightly negative entries set to zero, and scaled to 1 over a bag. Evidence is what a
    row's values add to the logits along that attention, W LN'(W_o (a v)) with the final LN at the scale it has: over a
    bag it adds up to the logits, less what the token brings itself (its stream, its own value, the convolution and
    biases).

    As released: hidden 512, 8 heads, landmarks hidden / 2 = 256, 6 iterations of the inverse, kernel 33, dropout .1
    after attention and none after the projection, Lookahead around RAdam with rate 2e-4 and decay 1e-5. Ours:
    `dropout` .25 after the projection, AdamW, and `hidden` as in ABMIL.

    `preset` "official" does as the released code where that is doubtful; "fixed" does not:

    - the square is filled up by repeating the first rows, which then count twice; fixed: by nothing (zeros at the
      convolution, as beyond its border);
    - zeros before the rows take part in attention, and small bags go through the approximate inverse; fixed: neither;
    - the inverse starts from one scale for all heads (there of all bags of a batch, here always of one bag); fixed:
      from each head's own;
    - training is by Lookahead around RAdam (`coverslip.train.optim`), at the study's rate and decay.

    With `shuffle` the rows of a bag come in a new random order in each training step, so that no order is learnt by
    heart; its author reports that it helps. Evaluation keeps the order of the file.

    Bags are taken one by one inside: squares and landmarks depend on their number of rows.
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
        landmarks: int = 256,
        iterations: int = 6,
        dropout: float | None = None,
        attention_dropout: float = 0.1,
        shuffle: bool = False,
    ) -> None:
        super().__init__()
        self.released, self.shuffle = preset == "official", shuffle
        hidden = default_hidden(dim) if hidden is None else hidden
        if dropout is None:
            dropout = 0.0 if self.released else 0.25
        self.width = hidden
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.token = nn.Parameter(torch.randn(hidden))
        self.norm_1, self.norm_2, self.norm_out = (nn.LayerNorm(hidden) for _ in range(3))
        self.attention_1, self.attention_2 = (
            NystromAttention(
                hidden,
                heads=heads,
                landmarks=landmarks,
                iterations=iterations,
                dropout=attention_dropout,
                released=self.released,
            )
            for _ in range(2)
        )
        self.square = SquareConvolution(hidden)
        self.classifier = nn.Linear(hidden, num_outputs)

    def project(self, x: Tensor) -> Tensor:
        h: Tensor = self.projection(x)
        return h

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        lengths = bags.lengths.tolist()
        found = [self._gather(h) for h in bags.x.split(lengths)]
        c = torch.stack([own for own, _, _ in found])  # (b, hidden)
        weights = torch.cat([weights for _, weights, _ in found])  # (m, heads)
        shares = torch.cat([shares for _, _, shares in found])  # (m, heads, e): weight times value
        z = self.norm_out(c)
        return BagOutput(
            self.classifier(z),
            z,
            attention=_normalised(weights, bags),
            evidence=logit_shares(
                shares.flatten(1), self.attention_2.out.weight, c, self.norm_out, self.classifier, bags.segments
            ),
        )

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective | None:
        return _WithLookahead(network, task) if self.released else None

    def _gather(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The token of one bag after both layers, and each row's weights and weighted values in the second."""
        rows = len(h)
        order = torch.randperm(rows, device=h.device) if self.shuffle and self.training else None
        side = math.isqrt(rows - 1) + 1
        h = h if order is None else h[order]
        if self.released:
            h = torch.cat([h, h[: side**2 - rows]])
        x = torch.cat([self.token.to(h.dtype).unsqueeze(0), h])  # (1 + n, hidden)
        x = x + self.attention_1(self.norm_1(x))
        x = torch.cat([x[:1], self.square(x[1:], side)])
        first: FirstRow = self.attention_2.first(self.norm_2(x))
        weights = first.weights[1:]
        shares = weights.unsqueeze(2) * first.values[1:]
        if self.released:
            # A repeated row has the weight of both its copies.
            weights, shares = _merged(weights, rows), _merged(shares, rows)
        if order is not None:
            back = torch.argsort(order)
            weights, shares = weights[back], shares[back]
        return x[0] + first.out, weights, shares


class SquareConvolution(nn.Module):
    """PPEG: rows laid line by line in a square of `side`, plus three convolutions of each channel (7, 5 and 3 wide)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.wide, self.middle, self.narrow = (nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim) for k in (7, 5, 3))

    def forward(self, x: Tensor, side: int) -> Tensor:
        rows = len(x)
        square = F.pad(x, (0, 0, 0, side**2 - rows)).unflatten(0, (side, side))  # (side, side, d)
        # One convolution by the sum of the kernels is the sum of three, at a third of the time and memory.
        weight = self.wide.weight + F.pad(self.middle.weight, [1] * 4) + F.pad(self.narrow.weight, [2] * 4)
        assert self.wide.bias is not None and self.middle.bias is not None and self.narrow.bias is not None
        bias = self.wide.bias + self.middle.bias + self.narrow.bias
        moved = F.conv2d(square.permute(2, 0, 1).unsqueeze(0), weight, bias, padding=3, groups=x.shape[1])
        return x + moved[0].flatten(1).T[:rows]


class _WithLookahead(Supervised):
    """Supervised, by the released code's optimiser."""

    def optimiser(self, settings: FitSettings) -> torch.optim.Optimizer:
        return lookahead_radam(self.parameter_groups(settings))


def _merged(values: Tensor, rows: int) -> Tensor:
    """The first `rows` values, the ones behind them added to those they repeat."""
    again = values[rows:]
    return values[:rows] + F.pad(again, [0, 0] * (values.ndim - 1) + [0, rows - len(again)])


def _normalised(weights: Tensor, bags: Bags) -> Tensor:
    """Weights of at least 0 that sum to 1 over each bag; even ones where none is above 0."""
    positive = weights.clamp(min=0) + 1e-12
    return positive / total(positive, bags.segments)[bags.seg]
