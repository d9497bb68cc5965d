"""What both kinds of CLAM share: attention pooling whose most and least attended tiles learn to tell their class.

Lu, Williamson, Chen, Chen, Barbieri, Mahmood: Data-efficient and weakly supervised computational pathology on
whole-slide images, Nature Biomedical Engineering 2021, https://arxiv.org/abs/2004.09666.
Written from the paper's formulas.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from coverslip.base.errors import SettingsError
from coverslip.mil.bags import BagOutput, Bags, LearningSet, StagedAggregator
from coverslip.mil.source import LabelledBags
from coverslip.mil.supervised import Supervised, task_loss
from coverslip.mil.target import Target
from coverslip.mil.tasks.classification import Classification
from coverslip.mil.tasks.contract import Task, weighted_mean
from coverslip.nn.layers import AttentionScores, Projection, default_hidden
from coverslip.nn.pooling import AttentionPool, Pooling, Weights
from coverslip.nn.segments import Segments, full, rank, total
from coverslip.train import Objective


@dataclass(frozen=True)
class ClamOutput(BagOutput):
    """A bag output with what the instance loss reads; both are None in evaluation.

    `instances` is each row's logit of belonging to each class, `ranks` its place in its bag by attention, 0 the most.
    """

    instances: Float[Tensor, "m k"] | None = None
    ranks: Int64[Tensor, "m branches"] | None = None


class Clam(StagedAggregator):
    """Attention pooling with one branch (`clam_sb`) or one for each class (`clam_mb`), and an instance loss.

    For the rows h = dropout(relu(P x)) of a bag, with the scores s of `abmil` and a = softmax of s over the bag:

        z = sum of a h                       one vector (SB), or one for each class (MB): BagOutput.embedding
        logit of class c = w_c z + b_c       with its own z_c in MB

    In training, each class has an instance classifier u_c = v_c h + d_c. In a bag of class y, the `k_sample` rows with
    most attention (SB: of the one branch, MB: of branch y) are taken as of class y, the `k_sample` with least as not:

        instance loss = mean over these rows of softplus(margin - u_y) or softplus(margin + u_y)
        loss = bag_weight * the task's loss + (1 - bag_weight) * instance loss, averaged over bags

    `instance_loss = "svm"` has margin 1: the smooth top-1 SVM with temperature 1 (Berrada et al. 2018,
    https://arxiv.org/abs/1802.07595). `"ce"` has margin 0: cross-entropy. The paper's two outputs per instance
    classifier are one here, since both losses only depend on their difference. With `subtyping`, for classes that
    exclude each other tile by tile, the most attended rows of each other class (MB: of its own branch) are taken as not
    of it, and the classes' losses are averaged. A mixed bag's instance loss is that of its two classes by their shares.

    Evidence is a row's own term of the logits, w_c (a h): over a bag it adds up to the logits minus b, exactly.
    Attention is a, a column for each branch. The instance classifiers are for training alone.

    Official settings: hidden 512, attention 256 (384 in its large size), dropout .25, k_sample 8, bag_weight .7, Adam
    with 2e-4, weight decay 1e-5, classes drawn alike; the SVM in its commands, cross-entropy in its code. Ours are the
    same where options have those names; `hidden` is less for features narrower than 256, and the dropout inside the
    attention is left out, so that bag_weight = 1 is gated ABMIL.

    `preset`: with "official" every bag gives its k_sample most and least attended rows, so that in a bag of fewer than
    2 k_sample rows a row may be taken as both (under k_sample rows the released code fails; here all are taken). With
    "fixed" a bag of N rows gives floor(N / 2) of each at most, and one of a single row no instance loss.

    `weights`, `pooling`, `rank` and `groups` are those of `coverslip.nn.pooling.AttentionPool`; with `ggem` there is no
    evidence.
    """

    sampling: Literal["uniform", "balanced"] = "balanced"

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        hidden: int | None = None,
        attention: int = 256,
        gated: bool = True,
        dropout: float = 0.25,
        k_sample: int = 8,
        bag_weight: float = 0.7,
        instance_loss: Literal["svm", "ce"] = "svm",
        subtyping: bool = False,
        preset: Literal["fixed", "official"] = "fixed",
        weights: Weights = "softmax",
        pooling: Pooling = "sum",
        rank: int = 64,
        groups: int = 8,
    ) -> None:
        super().__init__()
        if not 0 <= bag_weight <= 1 or k_sample < 1:
            raise ValueError("bag_weight lies between 0 and 1, and k_sample is 1 or more")
        hidden = default_hidden(dim) if hidden is None else hidden
        branches = self.num_branches(num_outputs)
        self.width = hidden
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.scores = AttentionScores(hidden, attention, heads=branches, gated=gated)
        self.pool = AttentionPool(hidden, branches=branches, weights=weights, pooling=pooling, rank=rank, groups=groups)
        self.classifier = nn.Linear(self.pool.width, num_outputs)
        # Without a share in the loss the instance classifiers would never learn.
        self.instances = nn.Linear(hidden, num_outputs) if bag_weight < 1 else None
        self.bag_weight = bag_weight
        margin = 1.0 if instance_loss == "svm" else 0.0
        self.instance_loss = InstanceLoss(k_sample, margin, subtyping=subtyping, disjoint=preset == "fixed")

    @staticmethod
    @abstractmethod
    def num_branches(num_outputs: int) -> int:
        """Attention branches of a method with so many outputs."""

    def project(self, x: Tensor) -> Tensor:
        h: Tensor = self.projection(x)
        return h

    def aggregate(self, bags: Bags, target: Target | None = None) -> ClamOutput:
        h = bags.x  # (m, hidden)
        scores = full(self.scores(h))  # (m, branches)
        pooled = self.pool(scores, h, bags.segments)
        own = self._classifier_of_branches()
        z = pooled.z.flatten(1)  # (b, branches * width)
        output = ClamOutput(self.classify(z), z, pooled.attention, evidence=self.pool.row_terms(pooled, h, own))
        if target is None or self.instances is None:
            return output
        return replace(output, instances=full(self.instances(h)), ranks=rank(scores.detach(), bags.segments))

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"]:
        own = self._classifier_of_branches()  # (outputs, branches, width)
        z = z.unflatten(1, own.shape[1:])
        return torch.einsum("bkw,okw->bo", z, own.to(z.dtype)) + self.classifier.bias

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective | None:
        if self.instances is None:
            return None
        if not isinstance(task, Classification):
            raise SettingsError(
                f"CLAM's instance loss gives tiles the class of their slide; the task is {task.kind}, without classes.",
                fix='Set task.kind = "classification", or bag_weight = 1 in aggregator.options to train without that '
                'loss (for clam_sb that is "abmil").',
            )
        return ClamObjective(network, task, self.bag_weight, self.instance_loss)

    def _classifier_of_branches(self) -> Float[Tensor, "o k w"]:
        """The classifier's weights on each branch's vector: one branch serves all classes, of several each its own."""
        w = self.classifier.weight
        if self.scores.w.out_features == 1:
            return w.unsqueeze(1)
        return torch.eye(len(w), dtype=w.dtype, device=w.device).unsqueeze(2) * w.unsqueeze(1)


class ClamObjective(Supervised):
    """The task's loss and the instance loss, shared out by `bag_weight`."""

    def __init__(self, network: nn.Module, task: Task, bag_weight: float, instance_loss: InstanceLoss) -> None:
        super().__init__(network, task)
        self.bag_weight, self.instance_loss = bag_weight, instance_loss

    def terms(self, output: BagOutput, batch: LabelledBags, progress: float) -> Mapping[str, Float[Tensor, ""]]:
        assert isinstance(output, ClamOutput)
        loss, weight = self.instance_loss(output, batch.target.y, batch.bags.segments)
        if batch.mixture is not None:
            other, _ = self.instance_loss(output, batch.mixture.other.y, batch.bags.segments)
            share = batch.mixture.share.to(loss.dtype)
            loss = share * loss + (1 - share) * other
        return {
            "task": self.bag_weight * task_loss(self.task, output.logits, batch),
            "instance": (1 - self.bag_weight) * weighted_mean(loss, weight),
        }


@dataclass(frozen=True)
class InstanceLoss:
    """How the most and least attended rows of a bag are judged, given its class. Called, it gives each bag's loss (b,)
    and its weight (b,): 0 for a bag that gives no rows."""

    k_sample: int
    margin: float
    subtyping: bool
    disjoint: bool

    def __call__(
        self, output: ClamOutput, y: Int64[Tensor, b], segments: Segments
    ) -> tuple[Float[Tensor, b], Float[Tensor, b]]:
        assert output.instances is not None and output.ranks is not None
        u = output.instances  # (m, k)
        lengths = segments.lengths
        most = lengths // 2 if self.disjoint else lengths
        k = most.clamp(max=self.k_sample)  # (b,)
        of_row = k[segments.ids].unsqueeze(1)  # (m, 1)
        top = (output.ranks < of_row).to(u.dtype)  # (m, branches)
        bottom = (output.ranks >= lengths[segments.ids].unsqueeze(1) - of_row).to(u.dtype)
        against = functional.softplus(self.margin + u)  # (m, k)
        inside = total(top * functional.softplus(self.margin - u) + bottom * against, segments)  # (b, k)
        share = k.clamp(min=1).to(u.dtype)
        loss = inside.gather(1, y.unsqueeze(1))[:, 0] / (2 * share)  # (b,)
        if self.subtyping:
            outside = total(top * against, segments)
            others = outside.sum(1) - outside.gather(1, y.unsqueeze(1))[:, 0]
            loss = (loss + others / share) / u.shape[1]
        return loss, (k > 0).to(u.dtype)
