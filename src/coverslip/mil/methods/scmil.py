"""SC-MIL: bags of the same class are drawn together first, then a classifier is learnt on what that made.

Juyal et al.: SC-MIL: Supervised contrastive multiple instance learning for imbalanced classification in pathology,
WACV 2024, https://arxiv.org/abs/2303.13405. Written from the formulas; there is no public code of the authors.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coverslip.base.errors import SettingsError
from coverslip.mil.bags import Aggregator, BagOutput, Bags, LearningSet
from coverslip.mil.build import build_aggregator
from coverslip.mil.parts.classes import class_shares, num_classes
from coverslip.mil.parts.contrast import ContrastHead, supervised_contrast
from coverslip.mil.parts.memory import FeatureQueue
from coverslip.mil.source import LabelledBags
from coverslip.mil.supervised import Supervised, task_loss
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task
from coverslip.train import Objective, Remembered, StepOutput
from coverslip.train.schedules import linear

ENTRIES = {
    "scmil": {
        "build": "Scmil",
        "summary": "supervised contrast of bags, fading into the classifier, around any method of plain training",
        "origin": "Juyal et al. 2024, arXiv:2303.13405",
        "licence": "Apache-2.0",
        "needs": "a target with classes",
    }
}


class Scmil(Aggregator):
    """The host, trained in a curriculum from contrast to classification. Inference is the host's, maps too.

    With the host's bag embedding b, a head g of two layers, and z = g(b) / |g(b)|:

        loss = beta L_contrast + (1 - beta) L_host
        L_contrast = mean over bags i of  - 1 / |P(i)|  sum over j in P(i) of
                         log( exp(z_i.z_j / t) / sum over k != i of exp(z_i.z_k / t) )

    P(i) are the other bags of the step with the class of i. A bag without any has no such loss and is left out of the
    mean; the log has their number as `alone`. L_host is the task's loss and the host's own terms. beta falls from
    `beta` to `beta_end` over the first `curriculum` of training: evenly ("linear"), or late ("parabolic": the fall
    goes with the square of progress). Both losses move the host at all times; at beta 1 its classifier stands still.
    No epoch is kept before the fall has ended: tuning would choose one in which the classifier has hardly begun.

    A bag mixed of two classes agrees with another by the shares they have in common: see `supervised_contrast`.

    What nothing public pins down, and our choice: the temperature (`temperature` .1, that of Khosla et al. 2020;
    second hand, the paper is said to use 1), the fall (`schedule` "linear" over `curriculum` .4 of training), the
    width of the head's output (`contrast` 128), the number of bags in a step (8 at least, classes alike). `queue`
    keeps that many bags of earlier steps to compare to, so that a rare class finds positives; it is ours, and off
    where not given. An earlier vector of the bag itself counts as a positive.

    Options that are not named here are the host's. The target needs classes (classification, ordinal).
    """

    least_bags = 8
    sampling = "balanced"

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        host: str = "abmil",
        beta: float = 1.0,
        beta_end: float = 0.0,
        schedule: Literal["linear", "parabolic"] = "linear",
        curriculum: float = 0.4,
        temperature: float = 0.1,
        contrast: int = 128,
        queue: int = 0,
        **host_options: Any,
    ) -> None:
        super().__init__()
        if not 0 <= beta <= 1 or not 0 <= beta_end <= 1:
            raise ValueError("beta and beta_end lie between 0 and 1")
        if not 0 < curriculum <= 1:
            raise ValueError("curriculum is a share of training, over 0")
        if temperature <= 0:
            raise ValueError("temperature is over 0")
        if queue < 0:
            raise ValueError("queue is a number of bags, 0 for none")
        # The host comes first: with the same seed it starts with the weights that it has alone.
        self.host = build_aggregator(host, dim, num_outputs, host_options)
        self.head = ContrastHead(_embedding_width(self.host, dim), contrast)
        self.host_name = host
        self.uses_positions, self.order_matters = self.host.uses_positions, self.host.order_matters
        self.least_bags = max(self.least_bags, self.host.least_bags)
        self.beta, self.beta_end, self.schedule = float(beta), float(beta_end), schedule
        self.curriculum = curriculum
        self.temperature, self.contrast, self.queue = temperature, contrast, queue

    def forward(self, bags: Bags, target: Target | None = None) -> BagOutput:
        output: BagOutput = self.host(bags, target)
        return output

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"] | None:
        return self.host.classify(z)

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective:
        """The curriculum.

        Raises:
            SettingsError: the target has no classes, or the host has a training of its own.
        """
        if self.host.objective(network, task, learns) is not None:
            raise SettingsError(
                f"aggregator.options.host = {self.host_name!r}: scmil trains its host itself, and {self.host_name} "
                "brings a training of its own.",
                fix=_HOSTS,
            )
        return _Curriculum(network, task, self, num_classes("scmil", task, learns))

    def beta_at(self, progress: float) -> float:
        """The weight of the contrast at that progress of training, 0 to 1."""
        fallen = progress / self.curriculum
        return linear(self.beta, self.beta_end, fallen if self.schedule == "linear" else fallen**2)


class _Curriculum(Supervised):
    """beta times the contrast of bags, 1 - beta times what the host is trained with."""

    def __init__(self, network: nn.Module, task: Task, method: Scmil, classes: int) -> None:
        super().__init__(network, task)
        self.classes = classes
        self.queue = FeatureQueue(method.queue, method.contrast, classes)
        self._pushes: Remembered[tuple[Tensor, Tensor]] = Remembered()

    @property
    def begins(self) -> float:
        return self._method.curriculum if self._method.beta != self._method.beta_end else 0.0

    @property
    def _method(self) -> Scmil:
        method = self.network.aggregator
        assert isinstance(method, Scmil)
        return method

    def forward(self, batch: LabelledBags, progress: float) -> StepOutput:
        method = self._method
        output = self.network(batch.bags, batch.target)
        own = {"task": task_loss(self.task, output.logits, batch), **output.losses}

        z = method.head(output.embedding)  # (b, contrast)
        shares = class_shares(batch, self.classes)  # (b, classes)
        agreement = shares @ torch.cat([shares, self.queue.payloads]).T  # (b, b + queue)
        found = supervised_contrast(
            z, self.queue.vectors, agreement, temperature=method.temperature, known=self.queue.known
        )
        self._pushes.append((z.detach(), shares))

        beta = method.beta_at(progress)
        loss = beta * found.loss + (1 - beta) * sum(own.values())
        return StepOutput(loss, {**own, "contrast": found.loss, "alone": found.alone}, output)

    def after_step(self, progress: float) -> None:
        for vectors, shares in self._pushes:
            self.queue.push(vectors, shares)
        self._pushes.clear()


_HOSTS = (
    "Hosts are abmil, abmilx, aem, gnn_vitcap, mambamil, max, mean, rrt, transmil, varmil, weakstil, and "
    "any method of yours that brings no training of its own."
)


def _embedding_width(host: Aggregator, dim: int) -> int:
    """The width of the host's bag embedding, found by asking."""
    one = Bags(torch.zeros(1, dim), torch.tensor([0, 1]), torch.zeros(1, 2), ("one",))
    with torch.no_grad():
        width = host.eval()(one).embedding.shape[1]
    host.train()
    return int(width)
