"""ABMILX: attention by head, refined by how rows correlate over the whole bag.

Tang et al. 2025: ABMILX of "Revisiting end-to-end learning with slide-level supervision in computational pathology",
NeurIPS 2025, https://arxiv.org/abs/2506.02408. Written from the formulas.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coverslip.mil.bags import BagOutput, Bags, StagedAggregator
from coverslip.mil.target import Target
from coverslip.nn.attention import attend, logit_shares
from coverslip.nn.layers import default_hidden
from coverslip.nn.segments import full, softmax, total

ENTRIES = {
    "abmilx": {
        "build": "AbmilX",
        "summary": "attention of several heads, refined over the whole bag",
        "origin": "Tang et al. 2025, arXiv:2506.02408",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class AbmilX(StagedAggregator):
    """Attention pooling by head, each row's score moved towards those of the rows it resembles, then a classifier.

    A projected row h = dropout(gelu(P x)) is cut into H heads h_1 ... h_H of width e. For each head, with the same
    weights for all:

        s = u^T gelu(U h_i)                                 score
        q, k = Q LN(h_i), K LN(h_i)
        s' = s + w softmax(q k^T / sqrt e) s                A+, over all rows of the bag; without `correlation`, s' = s
        a = softmax of s' over the bag                      BagOutput.attention (m, H)
        z = [sum of a_1 h_1, ..., sum of a_H h_H]
        c = O z, with `feed_forward` plus a two-layer network of LN(c)
        logits = W LN(c) + b                                BagOutput.embedding is LN(c) (b, hidden)

    Evidence is W LN'(O (a h)), a row's own term with the final LN at the spread it has: over a bag it adds up to the
    logits less biases. With `feed_forward` logits are no sum over rows, and there is none.

    Every row looks at every other, so time grows with the square of the rows (10,000 rows: 100 times the pairs of
    1,000); memory does not, in training neither, as no (n, n) matrix is made. Where that takes too long, `exact_rows`
    is the largest bag to do so; in larger ones rows look at `landmarks` of all rows, at even steps along their sorted
    scores. That is ours, not the paper's, and off unless asked for. It does not depend on the order of rows, as many
    landmarks as rows are the exact thing, and the error falls with their number.

    `preset` "official" does as released: a layer norm on the input as well, no bias anywhere, w drawn evenly between
    -1 and 1, so that in half the runs a row is moved away from those that it resembles at first, and `hidden` 512 at
    any width of the features. "fixed", ours: no norm on the input, whose rows are standardised already; biases but in
    scores, q and k; w begins at 1. Published settings: hidden 512 (256 for BRCA), 8 heads (4 for PANDA), AdamW 1e-4
    without decay on stored features. The paper trains the tile encoder as well; this is its aggregator.
    """

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        hidden: int | None = None,
        heads: int = 8,
        correlation: bool = True,
        feed_forward: bool = False,
        dropout: float = 0.25,
        exact_rows: int | None = None,
        landmarks: int = 1024,
        preset: Literal["fixed", "official"] = "fixed",
    ) -> None:
        super().__init__()
        official = preset == "official"
        bias = not official
        if official and hidden is None:
            hidden = 512
        # Heads share their weights, so all are equally wide.
        hidden = -(-default_hidden(dim) // heads) * heads if hidden is None else hidden
        if hidden % heads:
            raise ValueError(f"hidden {hidden} is not a multiple of heads {heads}")
        self.width, self.heads = hidden, heads
        e = hidden // heads
        first = [nn.LayerNorm(dim, bias=False)] if official else []
        self.projection = nn.Sequential(*first, nn.Linear(dim, hidden, bias=bias), nn.GELU(), nn.Dropout(dropout))
        self.scores = nn.Sequential(nn.Linear(e, e, bias=False), nn.GELU(), nn.Linear(e, 1, bias=False))
        self.correlation: Correlation | None = None
        if correlation:
            self.correlation = Correlation(e, exact_rows=exact_rows, landmarks=landmarks, official=official)
        self.out = nn.Linear(hidden, hidden, bias=bias)
        self.feed_forward: nn.Sequential | None = None
        if feed_forward:
            wide, narrow = nn.Linear(hidden, 4 * hidden, bias=bias), nn.Linear(4 * hidden, hidden, bias=bias)
            self.feed_forward = nn.Sequential(nn.LayerNorm(hidden, bias=bias), wide, nn.GELU(), narrow)
        self.norm_out = nn.LayerNorm(hidden, bias=bias)
        self.classifier = nn.Linear(hidden, num_outputs, bias=bias)

    def project(self, x: Tensor) -> Tensor:
        h: Tensor = self.projection(x)
        return h

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"]:
        logits: Tensor = self.classifier(z)
        return logits

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        h = bags.x.unflatten(1, (self.heads, -1))  # (m, heads, e)
        s = full(self.scores(h)).squeeze(2)  # (m, heads)
        if self.correlation is not None:
            s = s + self.correlation(h, s, bags)
        a = softmax(s, bags.segments)
        shares = (a.unsqueeze(2) * h).flatten(1)  # (m, hidden)
        c = self.out(total(shares, bags.segments))  # (b, hidden)
        if self.feed_forward is not None:
            c = c + self.feed_forward(c)
        z = self.norm_out(c)
        evidence = None
        if self.feed_forward is None:
            evidence = logit_shares(shares, self.out.weight, c, self.norm_out, self.classifier, bags.segments)
        return BagOutput(self.classifier(z), z, attention=a, evidence=evidence)


class Correlation(nn.Module):
    """What A+ adds to each row's score: those of the rows of its bag, by how much they are alike."""

    def __init__(self, dim: int, *, exact_rows: int | None, landmarks: int, official: bool) -> None:
        super().__init__()
        if landmarks < 1:
            raise ValueError("there is at least one landmark")
        self.exact_rows, self.landmarks = exact_rows, landmarks
        self.norm = nn.LayerNorm(dim, bias=not official)
        self.qk = nn.Linear(dim, 2 * dim, bias=False)
        self.w = nn.Parameter(torch.empty(()).uniform_(-1, 1) if official else torch.ones(()))

    def forward(self, h: Tensor, s: Tensor, bags: Bags) -> Tensor:
        q, k = full(self.qk(self.norm(h))).chunk(2, dim=2)  # (m, heads, e)
        q = q * q.shape[2] ** -0.5
        lengths = bags.lengths.tolist()
        # A bag at a time: no row looks beyond its own.
        parts = zip(q.split(lengths), k.split(lengths), s.split(lengths))
        return self.w * torch.cat([self._looked_up(*part) for part in parts])

    def _looked_up(self, q: Tensor, k: Tensor, s: Tensor) -> Tensor:
        """softmax(q k^T) s of one bag, (n, heads)."""
        if self.exact_rows is not None and len(s) > self.exact_rows:
            k, s = self._landmarks(k, s)
        with torch.autocast(q.device.type, enabled=False):
            by_head = (values.transpose(0, 1).unsqueeze(0) for values in (q, k, s.unsqueeze(2)))
            found = attend(*by_head)  # (1, heads, n, 1)
        return found[0].squeeze(2).T

    def _landmarks(self, k: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and scores of rows at even steps along the sorted scores, each head by its own."""
        num = min(self.landmarks, len(s))
        steps = (2 * torch.arange(num, device=s.device) + 1) * len(s) // (2 * num)
        chosen = torch.argsort(s, dim=0)[steps]  # (num, heads)
        return k.gather(0, chosen.unsqueeze(2).expand(-1, -1, k.shape[2])), s.gather(0, chosen)
