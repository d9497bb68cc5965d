"""ACMIL: several attention branches that look at different tiles, and now and then do without their favourites.

Zhang, Li, Sun, Zheng, Zhu, Yang: Attention-challenging multiple instance learning for whole slide image
classification, ECCV 2024, https://arxiv.org/abs/2311.07125. Written from the paper's formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coverslip.base.errors import SettingsError
from coverslip.mil.bags import BagOutput, Bags, LearningSet, StagedAggregator
from coverslip.mil.source import LabelledBags
from coverslip.mil.supervised import Supervised, task_loss
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task
from coverslip.nn.layers import AttentionScores, Projection, default_hidden
from coverslip.nn.pooling import AttentionPool, Weights
from coverslip.nn.segments import Segments, full, rank, total
from coverslip.train import Objective

ENTRIES = {
    "acmil": {
        "build": "Acmil",
        "summary": "attention branches kept apart, with their most attended rows masked at random",
        "origin": "Zhang et al. 2024, arXiv:2311.07125",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class Acmil(StagedAggregator):
    """Gated attention with K branches, each with a classifier of its own in training, and one for their mean.

    For the rows h = dropout(relu(P x)) of a bag:

        s_k = w_k^T (tanh(V h) * sigmoid(U h))      scores of branch k
        a_k = softmax of s_k over the bag           BagOutput.attention (m, K)
        z_k = sum of a_k h,  z = mean of z_k        z is BagOutput.embedding
        logits = W z + c

    In training (STKIM, stochastic top-K instance masking) each branch draws floor(mask_drop n) of its n =
    min(n_masked, N) most attended rows, by itself and anew in each step, and does without them: their scores are left
    out of the softmax, so that the others' weights still sum to 1. One row of a bag is always left. Then

        loss = task loss of the logits + branch * mean over k of the task loss of W_k z_k + c_k
               + diversity * mean over pairs k < l of cos(a_k, a_l)

    with the same masked attention throughout. With one branch the last two are left out. Bags count alike in the mean
    cosine; in a bag of one row it is 1 whatever the branches do.

    Evidence is a row's own term of the logits, W (mean of a_k h): over a bag it adds up to the logits minus c, exactly.
    A map of the attention is the mean over branches.

    Official settings (gated variant): K = 5, n_masked 10, mask_drop .6, both weights 1, attention 128, AdamW with 1e-4,
    weight decay 1e-5; mask_drop = 0 is advised where training is unstable. Ours are the same where options have those
    names.

    `preset` "official" does as the released code: a projection to half the width of the features (384 to 128) without
    bias or dropout; and a masked row gets a score of -1e9 in whatever precision scores have, which float16 cannot hold
    (training in it is refused), so that a bag of which every row is masked looks at all alike. "fixed", ours: the
    projection is that of `abmil`, so that with branches = 1 and n_masked = 0 this is gated ABMIL; masked rows are left
    out in float32, and one row of a bag always stays. `weights` is that of `coverslip.nn.pooling.AttentionPool`.
    """

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        hidden: int | None = None,
        attention: int = 128,
        branches: int = 5,
        n_masked: int = 10,
        mask_drop: float = 0.6,
        branch: float = 1.0,
        diversity: float = 1.0,
        gated: bool = True,
        dropout: float | None = None,
        weights: Weights = "softmax",
        preset: Literal["fixed", "official"] = "fixed",
    ) -> None:
        super().__init__()
        if branches < 1 or n_masked < 0 or not 0 <= mask_drop <= 1:
            raise ValueError("branches is 1 or more, n_masked 0 or more, and mask_drop lies between 0 and 1")
        self.official = preset == "official"
        dropout = (0.0 if self.official else 0.25) if dropout is None else dropout
        if hidden is None:
            hidden = _released_width(dim) if self.official else default_hidden(dim)
        self.width = hidden
        self.projection = Projection(dim, hidden, dropout=dropout, bias=not self.official)
        self.scores = AttentionScores(hidden, attention, heads=branches, gated=gated)
        self.pool = AttentionPool(hidden, weights=weights)
        self.classifier = nn.Linear(hidden, num_outputs)
        apart = branches > 1 and branch > 0
        self.branches = nn.ModuleList(nn.Linear(hidden, num_outputs) for _ in range(branches if apart else 0))
        self.n_masked, self.mask_drop = n_masked, mask_drop
        self.branch, self.diversity = branch, diversity if branches > 1 else 0.0

    def project(self, x: Tensor) -> Tensor:
        h: Tensor = self.projection(x)
        return h

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        h, segments = bags.x, bags.segments  # (m, hidden)
        scores = self.scores(h) if self.official else full(self.scores(h))  # (m, branches)
        keep = None
        if self.training and self.n_masked > 0:
            spare = 0 if self.official else 1
            keep = without_some_of_the_top(scores.detach(), segments, self.n_masked, self.mask_drop, spare=spare)
            if self.official:
                scores, keep = _masked_as_released(scores, keep), None
        pooled = self.pool(scores, h, segments, keep)
        z = pooled.z.mean(1)  # (b, hidden)
        as_one = replace(pooled, weights=pooled.weights.mean(1, keepdim=True))
        evidence = self.pool.row_terms(as_one, h, self.classifier.weight.unsqueeze(1))
        output = BagOutput(self.classifier(z), z, pooled.attention, evidence)
        if target is None:
            return output
        heads = zip(self.branches, pooled.z.unbind(1))
        return replace(
            output,
            branches={f"branch {place}": head(own) for place, (head, own) in enumerate(heads, 1)},
            losses={"diversity": self.diversity * likeness(pooled.attention, segments)} if self.diversity else {},
        )

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"]:
        logits: Tensor = self.classifier(z)
        return logits

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective | None:
        return AcmilObjective(network, task, self.branch)


class AcmilObjective(Supervised):
    """The task's loss of the slide's logits, and of each branch's."""

    def __init__(self, network: nn.Module, task: Task, branch: float) -> None:
        super().__init__(network, task)
        self.branch = branch

    def terms(self, output: BagOutput, batch: LabelledBags, progress: float) -> Mapping[str, Float[Tensor, ""]]:
        slide = {"task": task_loss(self.task, output.logits, batch)}
        losses = [task_loss(self.task, logits, batch) for logits in output.branches.values()]
        return {**slide, "branches": self.branch * torch.stack(losses).mean()} if losses else slide


def _released_width(dim: int) -> int:
    return 128 if dim == 384 else max(1, dim // 2)


def _masked_as_released(scores: Float[Tensor, "m k"], keep: Bool[Tensor, "m k"]) -> Float[Tensor, "m k"]:
    """Scores of -1e9 where not kept.

    Raises:
        SettingsError: scores are float16.
    """
    if scores.dtype == torch.float16:
        raise SettingsError(
            'aggregator.options.preset = "official" masks rows with a score of -1e9, which float16 cannot hold.',
            fix='Set fit.precision = "bf16" or "fp32", or leave the preset out.',
        )
    return scores.masked_fill(~keep, -1e9)


def without_some_of_the_top(
    scores: Float[Tensor, "m k"], segments: Segments, n: int, share: float, *, spare: int = 1
) -> Bool[Tensor, "m k"]:
    """False for floor(share n) rows of each bag and column, drawn from its n largest (of the whole of a shorter bag);
    `spare` rows of each bag at least stay True."""
    lengths = segments.lengths
    drawn_from = lengths.clamp(max=n)  # (b,)
    # The small number keeps .7 x 10 from becoming 6.999.
    num_masked = torch.minimum((drawn_from * share + 1e-4).floor().long(), lengths - spare)
    places = torch.rand(len(segments), scores.shape[1], n, device=scores.device)
    beyond = torch.arange(n, device=scores.device) >= drawn_from.reshape(-1, 1, 1)
    order = places.masked_fill(beyond, torch.inf).argsort(-1).argsort(-1)  # (b, k, n), each place's place in the draw
    masked = order < num_masked.reshape(-1, 1, 1)
    ranks = rank(scores, segments)  # (m, k)
    columns = torch.arange(scores.shape[1], device=scores.device)
    return ~((ranks < n) & masked[segments.ids.unsqueeze(1), columns, ranks.clamp(max=n - 1)])


def likeness(attention: Float[Tensor, "m k"], segments: Segments) -> Float[Tensor, ""]:
    """The mean cosine between two branches' attention, over all pairs of branches and all bags."""
    first, second = torch.triu_indices(attention.shape[1], attention.shape[1], offset=1, device=attention.device)
    together = total(attention[:, first] * attention[:, second], segments)  # (b, pairs)
    lengths = total(attention.square(), segments).sqrt()  # (b, k)
    return (together / (lengths[:, first] * lengths[:, second])).mean()
