"""DTFD-MIL: a bag is split into pseudo bags; what the first tier finds in each is the bag of the second.

Zhang et al.: DTFD-MIL: double-tier feature distillation multiple instance learning for histopathology whole slide image
classification, CVPR 2022, https://arxiv.org/abs/2203.12081. Written from the paper's formulas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from coverslip.base.study import FitSettings
from coverslip.mil.bags import BagOutput, Bags, LearningSet, StagedAggregator
from coverslip.mil.source import LabelledBags
from coverslip.mil.supervised import Supervised, task_loss
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task
from coverslip.nn.layers import AttentionScores, Projection, default_hidden
from coverslip.nn.segments import Segments, full, position, rank, softmax, weighted_sum
from coverslip.train.objective import Objective

ENTRIES = {
    "dtfd": {
        "build": "Dtfd",
        "summary": "attention over pseudo bags, then over what was distilled from each",
        "origin": "Zhang et al. 2022, arXiv:2203.12081",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


@dataclass(frozen=True)
class DtfdOutput(BagOutput):
    """A bag output with the logits of each bag's pseudo bags, those of a short bag repeated in turn."""

    tier1_logits: Float[Tensor, "b p k"] | None = None


class Dtfd(StagedAggregator):
    """Two tiers of gated attention; `pseudo_bags` P of each bag lie between them.

    The rows of a bag are dealt to P pseudo bags of equal size (they differ by a row at most). For pseudo bag p:

        h = dropout(relu(R x))                           hidden
        a = softmax of gated attention over p            tier 1
        f_p = sum of a h,  logits_p = W1 f_p + c1
        d_p = what is distilled of p
        b = softmax of gated attention over all d        tier 2
        z = sum of b d,  logits = W2 z + c2              the bag's

    `distil` says what d_p is. "afs": the feature f_p. "max_s": the projected rows with the largest class activation
    W1 (a h), `rows` of them; "max_min_s": those with the largest and those with the smallest. For one output the
    activation is that logit, for two the difference of the second and the first; for more, each output has its own, and
    rows are taken for every output (that logit less the log of the others' summed exponentials: one against the rest).

    Loss: the task's on the bag's logits, plus `tier1_weight` times the mean of the task's on the logits of the P pseudo
    bags, each with its bag's target. A bag of N < P rows has N pseudo bags; they are taken in turn until P have been,
    so that every bag counts the same. The two tiers are two parameter groups; `tier2_rate` multiplies the learning rate
    of the second.

    Training draws a new random split each step. Otherwise the split is a fixed scramble of the rows' places in the bag,
    the same wherever the bag is computed; `splits` of them are averaged. So the order of rows matters, slightly. With
    one pseudo bag and "afs" the bag's feature is that of ABMIL, and order does not matter.

    Attention of a row: with "afs" a times the b of its pseudo bag, else the sum of b over its selections (0 for a row
    that was not selected). Evidence is W2 h times it: over a bag it adds up to the logits less c2, exactly.

    Official defaults: 4 pseudo bags, "afs", one row, width 512, attention 128, no dropout, projection without bias,
    Adam 1e-4 and weight decay 1e-4, 200 epochs with the rate times .2 at 100, gradients clipped at 5. Ours: the same
    structure; `hidden` 512, or twice the width of narrower features but at least 128; `dropout` .25 after the
    projection; optimiser and epochs as all methods have them.

    `preset` = "official" follows the released code where it differs, without dropout where none is given. There the
    gradient of the second tier's loss is thrown away before it reaches the first tier, so projection and first
    attention learn from pseudo bags alone (d is detached); with more than two outputs rows are taken by the last
    class's probability alone. In "fixed" both losses are one sum and reach everything they depend on. The released
    code averages probabilities over splits and draws them anew each time; here logits are averaged, so that evidence
    adds up, and evaluation is repeatable.
    """

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        pseudo_bags: int = 4,
        distil: Literal["afs", "max_s", "max_min_s"] = "afs",
        rows: int = 1,
        splits: int = 1,
        hidden: int | None = None,
        attention: int = 128,
        dropout: float | None = None,
        tier1_weight: float = 1.0,
        tier2_rate: float = 1.0,
        preset: Literal["fixed", "official"] = "fixed",
    ) -> None:
        super().__init__()
        if min(pseudo_bags, rows, splits) < 1:
            raise ValueError("pseudo_bags, rows and splits are 1 or more")
        hidden = default_hidden(dim) if hidden is None else hidden
        self.width = hidden
        self.pseudo_bags, self.distil, self.rows, self.splits = pseudo_bags, distil, rows, splits
        self.tier1_weight, self.tier2_rate, self.official = tier1_weight, tier2_rate, preset == "official"
        self.order_matters = pseudo_bags > 1
        dropout = (0.0 if self.official else 0.25) if dropout is None else dropout
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.scores1 = AttentionScores(hidden, attention)
        self.classifier1 = nn.Linear(hidden, num_outputs)
        self.scores2 = AttentionScores(hidden, attention)
        self.classifier2 = nn.Linear(hidden, num_outputs)

    def project(self, x: Tensor) -> Tensor:
        h: Tensor = self.projection(x)
        return h

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        s = full(self.scores1(bags.x))  # (m, 1), the same in every split
        if self.training:
            return self._split(bags, s, torch.rand(len(s), device=s.device))
        places = position(bags.segments)
        return _mean([self._split(bags, s, scramble(places, number)) for number in range(self.splits)])

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"]:
        logits: Tensor = self.classifier2(z)
        return logits

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective:
        tier2 = [*self.scores2.parameters(), *self.classifier2.parameters()]
        return DtfdObjective(network, task, self.tier1_weight, tier2, self.tier2_rate)

    def _split(self, bags: Bags, s: Tensor, keys: Tensor) -> DtfdOutput:
        pseudo = PseudoBags.of(bags.segments, keys, self.pseudo_bags)
        h, parts = bags.x[pseudo.order], pseudo.segments  # rows of a pseudo bag lie together
        a = softmax(s[pseudo.order], parts)  # (m, 1)
        f = weighted_sum(a, h, parts)[:, 0]  # (b * p, hidden)
        tier1 = full(self.classifier1(f)).unflatten(0, (-1, self.pseudo_bags))  # (b, p, k)
        if self.distil == "afs":
            d = self._kept_apart(f.unflatten(0, (-1, self.pseudo_bags)))  # (b, p, hidden)
            b = self._attend(d, pseudo.there)  # (b, p)
            own = a * b.flatten()[parts.ids, None]  # (m, 1)
        else:
            chosen, there = self._chosen(h, a, pseudo)  # (b, j), (b, j)
            d = self._kept_apart(h[chosen])  # (b, j, hidden)
            b = self._attend(d, there)  # (b, j)
            # A sum of a few numbers a row, in the place of each row that was selected.
            own = torch.zeros_like(a[:, 0]).index_add(0, chosen.flatten(), b.flatten())[:, None]
        z = (b[:, :, None] * d).sum(1)  # (b, hidden)
        attention = torch.empty_like(own).index_copy(0, pseudo.order, own)
        evidence = attention * (bags.x.to(z.dtype) @ self.classifier2.weight.T.to(z.dtype))
        return DtfdOutput(self.classifier2(z), z, attention, evidence, tier1_logits=self._in_turn(tier1, bags))

    def _kept_apart(self, d: Tensor) -> Tensor:
        """The distilled features; without a way back to the first tier where the released code learns."""
        return d.detach() if self.official and self.training else d

    def _attend(self, d: Float[Tensor, "b j h"], there: Bool[Tensor, "b j"]) -> Float[Tensor, "b j"]:
        """The second tier's weights over what was distilled of each bag."""
        s = full(self.scores2(d))[:, :, 0]
        return s.masked_fill(~there, -torch.inf).softmax(1)

    def _chosen(self, h: Tensor, a: Tensor, pseudo: PseudoBags) -> tuple[Int64[Tensor, "b j"], Bool[Tensor, "b j"]]:
        """The rows with the largest (and smallest) activations of each pseudo bag, and which of them exist."""
        activation = self._activation(a.detach() * h.detach())  # (m, c)
        if self.distil == "max_min_s":
            activation = torch.cat([activation, -activation], 1)
        ranks = rank(activation, pseudo.segments)
        first = pseudo.segments.offsets[:-1]
        rows = torch.arange(len(h), device=h.device)
        wanted, there = [], []
        for column in ranks.unbind(1):
            # by_rank[first of a pseudo bag + r] is its row of rank r.
            by_rank = torch.empty_like(rows).scatter(0, first[pseudo.segments.ids] + column, rows)
            for r in range(self.rows):
                there.append(r < pseudo.segments.lengths)
                wanted.append(by_rank[torch.where(there[-1], first + r, 0)])
        shape = (-1, self.pseudo_bags * len(wanted))
        return torch.stack(wanted, 1).reshape(shape), torch.stack(there, 1).reshape(shape)

    def _activation(self, ah: Tensor) -> Float[Tensor, "m c"]:
        """What rows are ranked by: one column for up to two outputs, else one an output."""
        logits = full(functional.linear(ah, self.classifier1.weight.detach()))
        k = logits.shape[1]
        if k == 1:
            return logits
        columns = [k - 1] if k == 2 or self.official else range(k)
        others = [[c for c in range(k) if c != column] for column in columns]
        return torch.stack([logits[:, c] - logits[:, rest].logsumexp(1) for c, rest in zip(columns, others)], 1)

    def _in_turn(self, tier1: Float[Tensor, "b p k"], bags: Bags) -> Float[Tensor, "b p k"]:
        places = torch.arange(self.pseudo_bags, device=tier1.device)
        index = places % bags.lengths.clamp(max=self.pseudo_bags)[:, None]  # (b, p)
        return tier1.gather(1, index[:, :, None].expand_as(tier1))


@dataclass(frozen=True)
class PseudoBags:
    """P pseudo bags of each of B bags: row order[i] of the bags stands at place i of `segments`, B * P of them.

    The pseudo bags of a bag of fewer rows than P are empty from the last on.
    """

    order: Int64[Tensor, m]
    segments: Segments
    there: Bool[Tensor, "b p"]

    @classmethod
    def of(cls, segments: Segments, keys: Tensor, number: int) -> PseudoBags:
        """Rows are dealt in the order of falling keys, one to each pseudo bag in turn."""
        turn = rank(keys, segments) % number
        order = torch.argsort(segments.ids * number + turn, stable=True)
        first = torch.arange(number, device=order.device)
        lengths = (segments.lengths[:, None] - first + number - 1).div(number, rounding_mode="floor").clamp(min=0)
        offsets = torch.cat([lengths.new_zeros(1), lengths.flatten().cumsum(0)])
        return cls(order, Segments(offsets, segments.num_rows), lengths > 0)


class DtfdObjective(Supervised):
    """The task's loss of both tiers, as two groups of parameters."""

    def __init__(
        self, network: nn.Module, task: Task, tier1_weight: float, tier2: Sequence[nn.Parameter], tier2_rate: float
    ) -> None:
        super().__init__(network, task)
        self.tier1_weight, self.tier2_rate = tier1_weight, tier2_rate
        self._tier2 = {id(parameter) for parameter in tier2}

    def terms(self, output: BagOutput, batch: LabelledBags, progress: float) -> Mapping[str, Float[Tensor, ""]]:
        assert isinstance(output, DtfdOutput) and output.tier1_logits is not None
        pseudo = [task_loss(self.task, logits, batch) for logits in output.tier1_logits.unbind(1)]
        task = task_loss(self.task, output.logits, batch)
        return {"task": task, "tier1": self.tier1_weight * torch.stack(pseudo).mean()}

    def parameter_groups(self, settings: FitSettings) -> list[dict[str, Any]]:
        groups = []
        for group in super().parameter_groups(settings):
            tiers: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
            for parameter in group["params"]:
                tiers[id(parameter) in self._tier2].append(parameter)
            groups += [
                {**group, "params": tiers[0]},
                {**group, "params": tiers[1], "lr": group["lr"] * self.tier2_rate},
            ]
        return groups


def scramble(places: Int64[Tensor, m], number: int) -> Int64[Tensor, m]:
    """A fixed number for each place, as good as random; another one for each `number`.

    The mixing steps of SplitMix64 (Steele, Lea, Flood 2014, https://doi.org/10.1145/2660193.2660195), cut to 31 bits a
    product so that they are the same on every device.
    """
    mixed = (places * 0x9E3779B1 + (number + 1) * 0x85EBCA6B) & 0x7FFFFFFF
    for factor, shift in ((0x45D9F3B, 15), (0x2C1B3C6D, 13)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & 0x7FFFFFFF
    return mixed ^ (mixed >> 16)


def _mean(outputs: Sequence[DtfdOutput]) -> DtfdOutput:
    """The mean over splits, number by number."""

    def over(name: str) -> Tensor:
        return torch.stack([getattr(output, name) for output in outputs]).mean(0)

    attention, evidence, tier1 = over("attention"), over("evidence"), over("tier1_logits")
    return DtfdOutput(over("logits"), over("embedding"), attention, evidence, tier1_logits=tier1)
