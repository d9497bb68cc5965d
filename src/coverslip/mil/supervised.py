"""The plain way to train a bag model: the task's loss and whatever terms the method brings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coverslip.mil.bags import BagOutput
from coverslip.mil.source import LabelledBags
from coverslip.mil.tasks.contract import Task, weighted_mean
from coverslip.train import Objective, StepOutput


class Supervised(Objective):
    """The task's loss on the network's logits, plus the method's own losses. `network` takes bags and a target.

    A method that weighs the task's loss, or takes it of other logits too, overrides `terms`.
    """

    def __init__(self, network: nn.Module, task: Task) -> None:
        super().__init__()
        self._network = network
        self.task = task

    @property
    def network(self) -> nn.Module:
        return self._network

    def forward(self, batch: LabelledBags, progress: float) -> StepOutput:
        output = self._network(batch.bags, batch.target)
        parts = {**self.terms(output, batch, progress), **output.losses}
        return StepOutput(sum(parts.values()), parts, output)

    def terms(self, output: BagOutput, batch: LabelledBags, progress: float) -> Mapping[str, Float[Tensor, ""]]:
        """What the target says of the output, weighted and named; the losses of `output` are added to it."""
        return {"task": task_loss(self.task, output.logits, batch)}


def task_loss(task: Task, logits: Float[Tensor, "b k"], batch: LabelledBags) -> Float[Tensor, ""]:
    """The task's loss of a batch; a mixed bag's is that of its two targets by their shares."""
    own, weight = task.loss(logits, batch.target)
    if batch.mixture is None:
        return weighted_mean(own, weight)
    other, other_weight = task.loss(logits, batch.mixture.other)
    share = batch.mixture.share.to(own.dtype)
    return weighted_mean(torch.cat([own, other]), torch.cat([share * weight, (1 - share) * other_weight]))
