"""AEM: any attention method, kept from looking at too few tiles.

Zhang, Li, Sun, Shui, Li, Zhu, Yang: AEM, attention entropy maximization for multiple instance learning based whole
slide image classification, 2025, https://arxiv.org/abs/2406.15303. Written from the paper's formulas.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coverslip.base.errors import SettingsError
from coverslip.mil.bags import Aggregator, BagOutput, Bags, LearningSet
from coverslip.mil.build import build_aggregator
from coverslip.mil.source import LabelledBags
from coverslip.mil.supervised import Supervised
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task
from coverslip.nn.segments import Segments, entropy, full
from coverslip.train import Objective, StepOutput
from coverslip.train.modes import evaluating
from coverslip.train.objective import Around
from coverslip.train.schedules import cosine

ENTRIES = {
    "aem": {
        "build": "Aem",
        "summary": "an attention method (its host) whose attention is rewarded for its entropy",
        "origin": "Zhang et al. 2025, arXiv:2406.15303",
        "licence": "Apache-2.0",
        "needs": "a host with attention",
    }
}


class Aem(Aggregator):
    """The host's output as it is; in training, minus `entropy_weight` times the entropy of its attention is added to
    the loss.

    For the attention a of a bag of N rows, with K branches (heads, classes):

        H = -sum of a log a                      nats, between 0 and log N; with `normalise`, H / log N
        loss = the host's loss - entropy_weight * mean of H over branches and bags

    With `anneal` the weight falls from entropy_weight at the first step to 0 at the last along half a cosine.

    `host` is any method that has attention and is trained on the task's loss and terms of its own; options other than
    those below are the host's. Logits, attention and evidence are the host's, and so is inference. With
    entropy_weight = 0 training is the host's too, bit for bit.

    The paper's entropy is not normalised, so that large bags are regularised more; a bag of one row has H = 0 either
    way. Its released code has a weight of 0 unless told, and .1 in its commands: ours is .1. There the entropy is
    summed over the whole tensor of one bag; here it is a bag's own, whatever else is in the batch. The paper anneals in
    its third version, not in the first two nor in its code, and here where it is asked to; that the weight ends at 0 is
    our reading. H is computed as logsumexp(log a) - sum of a log a, in float32 or wider, so rows that are masked or
    underflow add nothing.
    """

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        host: str = "abmil",
        entropy_weight: float = 0.1,
        normalise: bool = False,
        anneal: bool = False,
        **host_options: Any,
    ) -> None:
        super().__init__()
        if entropy_weight < 0:
            raise ValueError("entropy_weight is 0 or more")
        if host == "aem":
            raise SettingsError('aggregator.options.host = "aem": AEM cannot be its own host.', fix=_HOSTS)
        self.host = build_aggregator(host, dim, num_outputs, host_options)
        self.uses_positions, self.order_matters = self.host.uses_positions, self.host.order_matters
        self.least_bags, self.sampling = self.host.least_bags, self.host.sampling
        self.host_name = host
        self.entropy_weight, self.normalise, self.anneal = entropy_weight, normalise, anneal
        if not _has_attention(self.host, dim):
            raise SettingsError(f"aggregator.options.host = {host!r} has no attention to regularise.", fix=_HOSTS)

    def forward(self, bags: Bags, target: Target | None = None) -> BagOutput:
        output: BagOutput = self.host(bags, target)
        if target is None or self.entropy_weight == 0:
            return output
        assert output.attention is not None
        spread = attention_entropy(output.attention, bags.segments, normalise=self.normalise)
        return replace(output, losses={**output.losses, "entropy": -self.entropy_weight * spread.mean()})

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"] | None:
        return self.host.classify(z)

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective | None:
        own = self.host.objective(network, task, learns)
        # Another step may never come by this method's forward, and the entropy would be lost without a word.
        if own is not None and type(own).forward is not Supervised.forward:
            raise SettingsError(
                f"aggregator.options.host = {self.host_name!r} has a training step of its own, which takes no entropy.",
                fix=_HOSTS,
            )
        if self.anneal and self.entropy_weight > 0:
            return Annealed(own or Supervised(network, task))
        return own


class Annealed(Around):
    """The step of `inner` with the weight of its entropy falling to 0."""

    def forward(self, batch: LabelledBags, progress: float) -> StepOutput:
        output: StepOutput = self.inner(batch, progress)
        term = output.parts["entropy"]
        share = cosine(1.0, 0.0, progress)
        parts = {**output.parts, "entropy": share * term}
        return StepOutput(output.loss - (1 - share) * term, parts, output.outputs)


_HOSTS = (
    "Hosts are abmil, abmilx, acmil, clam_mb, clam_sb, dsmil, dtfd, gnn_vitcap, mambamil, rrt, transmil, varmil, and "
    "any method of yours that has attention and is trained on its own logits."
)


def attention_entropy(
    attention: Float[Tensor, "m k"], segments: Segments, *, normalise: bool = False
) -> Float[Tensor, "b k"]:
    """Entropy (nats) of each bag's attention, a branch at a time; with `normalise`, its share of the largest possible,
    log N, and 0 for a bag of one row."""
    a = full(attention)
    # Weights of zero (masked, underflowed) count as the smallest number: they add nothing, and log has a gradient.
    spread = entropy(a.clamp(min=torch.finfo(a.dtype).tiny).log(), segments)
    if not normalise:
        return spread
    most = segments.lengths.to(a.dtype).log().unsqueeze(1)
    return torch.where(most > 0, spread / most.clamp(min=1e-12), 0.0)


def _has_attention(host: Aggregator, dim: int) -> bool:
    """Whether the host's output holds attention: asked with a bag of four rows of zeros."""
    place = torch.arange(4)
    xy_um = torch.stack([place % 2, place // 2], 1).float() * 100
    bag = Bags(torch.zeros(4, dim), torch.tensor([0, 4]), xy_um, ("example",), place)
    # A copy is asked: the host keeps nothing of the example, and no random number is used up.
    host = deepcopy(host)
    with evaluating(host), torch.random.fork_rng(devices=[]):
        return host(bag).attention is not None
