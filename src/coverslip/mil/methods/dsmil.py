"""DSMIL: the most telling tile of each class, and every tile by its likeness to it.

Li, Li, Eliceiri: Dual-stream multiple instance learning network for whole slide image classification with
self-supervised contrastive learning, CVPR 2021, https://arxiv.org/abs/2011.08939. Written from the paper's formulas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coverslip.mil.bags import BagOutput, Bags, LearningSet, StagedAggregator
from coverslip.mil.source import LabelledBags
from coverslip.mil.supervised import Supervised, task_loss
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task
from coverslip.nn.layers import Projection, default_hidden
from coverslip.nn.segments import first_largest, full, softmax, weighted_sum
from coverslip.train import Objective

ENTRIES = {
    "dsmil": {
        "build": "Dsmil",
        "summary": "likeness to the most telling row of each class",
        "origin": "Li et al. 2021, arXiv:2011.08939",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class Dsmil(StagedAggregator):
    """Two streams: rows classified one by one, and attention to the best row of each class.

    For each row x of a bag, with K outputs:

        h = dropout(relu(P x))                       hidden
        r = R h + e                                  row logits (m, K)
        c_k = the row with the largest r_k           the first one of equals: the critical row of output k
        q = tanh(Q2 relu(Q1 h)), v = relu(V h)       query, hidden
        a_k = softmax of q . q(c_k) / sqrt(query)    over the bag; BagOutput.attention (m, K)
        z_k = sum of a_k v                           BagOutput.embedding (b, K hidden)
        logits = W [z_1 .. z_K] + c                  the bag stream, which predicts

    Evidence is a row's own term of that last sum, W [a_1 v .. a_K v]: over a bag it adds up to the logits minus c,
    exactly. The largest row logits are `BagOutput.branches["best_row"]`: training is on half the task's loss of the
    bag stream and half that of the best rows. No gradient passes through the choice of the critical row.

    `preset` "official" has the released network: features as they are, without a projection (`projection` false), for
    values too (`values` false), no dropout, and a start from orthogonal weights and biases of zero. "fixed", ours: both
    projections, `dropout` .25, torch's start; `hidden` 512, or twice the width of narrower features but at least 128;
    `query` 128. An option that is given goes before the preset.

    Other in both: the released code judges both streams with binary cross-entropy a class, and its probabilities are
    one a class; here the loss and the probabilities are the task's, for the multilabel task the same as theirs. It
    trains with Adam 1e-4, betas .5 and .9, weight decay 1e-3 for 50 epochs. It can average both streams' probabilities;
    here the bag stream predicts, as in its default. Its random leaving out of patches, which it does in testing too, is
    `fit.max_rows`, for training alone. With one output the critical row is the one with the highest logit.
    """

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        hidden: int | None = None,
        query: int = 128,
        projection: bool | None = None,
        values: bool | None = None,
        dropout: float | None = None,
        preset: Literal["fixed", "official"] = "fixed",
    ) -> None:
        super().__init__()
        official = preset == "official"
        projection = not official if projection is None else projection
        values = not official if values is None else values
        dropout = (0.0 if official else 0.25) if dropout is None else dropout
        hidden = default_hidden(dim) if hidden is None else hidden
        self.width = hidden if projection else dim
        self.projection = Projection(dim, hidden, dropout=dropout) if projection else nn.Dropout(dropout)
        self.rows = nn.Linear(self.width, num_outputs)
        self.query = nn.Sequential(nn.Linear(self.width, query), nn.ReLU(), nn.Linear(query, query), nn.Tanh())
        self.values = nn.Sequential(nn.Linear(self.width, self.width), nn.ReLU()) if values else nn.Identity()
        self.classifier = nn.Linear(num_outputs * self.width, num_outputs)
        if official:
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.orthogonal_(module.weight)
                    nn.init.zeros_(module.bias)

    def project(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m width"]:
        h: Tensor = self.projection(x)
        return h

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        h = bags.x  # (m, width)
        r = full(self.rows(h))  # (m, k)
        critical = first_largest(r.detach(), bags.segments)  # (b, k)
        a = softmax(self._likeness(full(self.query(h)), critical, bags), bags.segments)  # (m, k)
        v = self.values(h)  # (m, width)
        z = weighted_sum(a, v, bags.segments).flatten(1)  # (b, k * width)
        best = r.gather(0, critical)  # (b, k)
        return BagOutput(self.classifier(z), z, attention=a, evidence=self._evidence(a, v), branches={"best_row": best})

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"]:
        logits: Tensor = self.classifier(z)
        return logits

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective:
        return _BothStreams(network, task)

    @staticmethod
    def _likeness(q: Tensor, critical: Tensor, bags: Bags) -> Tensor:
        """q . q(c_k) / sqrt(query) of each row, one output at a time to keep memory at M x query."""
        of_bag = q[critical]  # (b, k, query)
        each = [(q * of_bag[:, k][bags.seg]).sum(1) for k in range(critical.shape[1])]
        return torch.stack(each, 1) / math.sqrt(q.shape[1])

    def _evidence(self, a: Tensor, v: Tensor) -> Tensor:
        per_branch = self.classifier.weight.unflatten(1, (a.shape[1], -1))  # (outputs, branches, width)
        own = torch.einsum("md,kcd->mck", v.to(a.dtype), per_branch.to(a.dtype))  # (m, branches, outputs)
        return (a.unsqueeze(2) * own).sum(1)


class _BothStreams(Supervised):
    """Half the task's loss of the bag stream and half that of the best rows."""

    def terms(self, output: BagOutput, batch: LabelledBags, progress: float) -> Mapping[str, Float[Tensor, ""]]:
        return {
            "task": task_loss(self.task, output.logits, batch) / 2,
            "best_row": task_loss(self.task, output.branches["best_row"], batch) / 2,
        }
