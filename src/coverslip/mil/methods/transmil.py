"""TransMIL: a transformer over the tiles of a bag; a class token gathers what the slide is.

Shao et al.: TransMIL: transformer based correlated multiple instance learning for whole slide image classification,
NeurIPS 2021, https://arxiv.org/abs/2106.00908. Written from the paper's formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from coverslip.base.study import FitSettings
from coverslip.mil.bags import BagOutput, Bags, LearningSet, StagedAggregator
from coverslip.mil.supervised import Supervised
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task
from coverslip.nn.attention import logit_shares
from coverslip.nn.layers import Projection, default_hidden
from coverslip.nn.nystrom import FirstRow, NystromAttention
from coverslip.nn.padded import Padded, batches
from coverslip.nn.segments import Segments, position, total
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

# Squares of more rows than this gain nothing from sharing a convolution.
_MOST_TOGETHER = 1024


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

    Short bags go through attention and squares together, padded and masked; no output depends on it. Longer ones go one
    by one.
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

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"]:
        logits: Tensor = self.classifier(z)
        return logits

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        every = torch.arange(1, 1 + len(bags.x), device=bags.x.device)
        seen = [self._seen(rows) for rows in every.split(bags.lengths.tolist())]
        # Bags of like length become neighbours, which may go together inside.
        by_length = sorted(range(len(bags)), key=lambda b: len(seen[b]))
        rows, lengths = torch.cat([seen[b] for b in by_length]), [len(seen[b]) for b in by_length]
        segments = Segments.of_lengths(lengths, rows.device)

        x = torch.cat([self.token.to(bags.x.dtype).unsqueeze(0), bags.x]).index_select(0, rows)  # (b + n, hidden)
        x = x + self.attention_1(self.norm_1(x), lengths)
        x = self.square(x, lengths)
        first: FirstRow = self.attention_2.first(self.norm_2(x), lengths)
        c = x.index_select(0, segments.offsets[:-1]) + first.out  # (b, hidden)
        z = self.norm_out(c)
        shares = first.weights.unsqueeze(2) * first.values  # (b + n, heads, e)
        evidence = logit_shares(
            shares.flatten(1), self.attention_2.out.weight, c, self.norm_out, self.classifier, segments
        )

        z = z.index_select(0, torch.tensor(by_length, device=z.device).argsort())
        weights, evidence = (_of_rows(values, rows, len(bags.x)) for values in (first.weights, evidence))
        return BagOutput(self.classifier(z), z, attention=_normalised(weights, bags), evidence=evidence)

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective | None:
        return _WithLookahead(network, task) if self.released else None

    def _seen(self, rows: Int64[Tensor, n]) -> Int64[Tensor, n + 1]:
        """The numbers of a bag's rows as the layers see them: in their order, behind number 0, the token."""
        if self.shuffle and self.training:
            rows = rows[torch.randperm(len(rows), device=rows.device)]
        if self.released:
            side = math.isqrt(len(rows) - 1) + 1
            rows = torch.cat([rows, rows[: side**2 - len(rows)]])
        return F.pad(rows, (1, 0))


class SquareConvolution(nn.Module):
    """PPEG: each bag's rows laid line by line in a square, plus three convolutions of each channel (7, 5 and 3 wide).

    Rows are packed, `lengths` those of each bag; the first of each bag is its token, and stays as it is.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.wide, self.middle, self.narrow = (nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim) for k in (7, 5, 3))

    def forward(self, x: Float[Tensor, "m d"], lengths: Sequence[int]) -> Float[Tensor, "m d"]:
        # One convolution by the sum of the kernels is the sum of three, at a third of the time and memory.
        weight = self.wide.weight + F.pad(self.middle.weight, [1] * 4) + F.pad(self.narrow.weight, [2] * 4)
        assert self.wide.bias is not None and self.middle.bias is not None and self.narrow.bias is not None
        bias = self.wide.bias + self.middle.bias + self.narrow.bias
        moved = []
        for rows, of_bags in batches(x, lengths, most=_MOST_TOGETHER):
            side, laid = _squares(of_bags, x.device)
            squares = laid.lay(rows)[:, 1:].unflatten(1, (side, side))  # (b, side, side, d)
            sums = F.conv2d(squares.permute(0, 3, 1, 2), weight, bias, padding=3, groups=x.shape[1])
            moved.append(laid.pick(F.pad(sums.flatten(2).mT, (0, 0, 1, 0))))  # zeros for the token
        return x + torch.cat(moved)


def _squares(lengths: Sequence[int], device: torch.device) -> tuple[int, Padded]:
    """The side of the largest square, and each bag's token before a square of that side, with its own in a corner."""
    sides = [math.isqrt(rows - 2) + 1 for rows in lengths]
    side, segments = max(sides), Segments.of_lengths(lengths, device)
    own, place = torch.tensor(sides, device=device)[segments.ids], position(segments)
    line = (place - 1).clamp(min=0) // own
    return side, Padded(len(lengths), 1 + side**2, place + line * (side - own) + (1 + side**2) * segments.ids)


class _WithLookahead(Supervised):
    """Supervised, by the released code's optimiser."""

    def optimiser(self, settings: FitSettings) -> torch.optim.Optimizer:
        return lookahead_radam(self.parameter_groups(settings))


def _of_rows(values: Tensor, rows: Tensor, num: int) -> Tensor:
    """The values of the numbered rows, in the order of the bags, without the token's; a repeated row's are added up."""
    return values.new_zeros(1 + num, values.shape[1]).index_add(0, rows, values)[1:]


def _normalised(weights: Tensor, bags: Bags) -> Tensor:
    """Weights of at least 0 that sum to 1 over each bag; even ones where none is above 0."""
    positive = weights.clamp(min=0) + 1e-12
    return positive / total(positive, bags.segments)[bags.seg]
