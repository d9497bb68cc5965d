"""The plain way to train a bag model: the task's loss and whatever terms the method brings."""

from __future__ import annotations

from torch import nn

from coverslip.mil.source import LabelledBags
from coverslip.mil.tasks.contract import Task, weighted_mean
from coverslip.train import Objective, StepOutput


class Supervised(Objective):
    """The task's loss on the network's logits, plus the method's own losses. `network` takes bags and a target."""

    def __init__(self, network: nn.Module, task: Task) -> None:
        super().__init__()
        self._network = network
        self.task = task

    @property
    def network(self) -> nn.Module:
        return self._network

    def forward(self, batch: LabelledBags, progress: float) -> StepOutput:
        output = self._network(batch.bags, batch.target)
        parts = {"task": weighted_mean(*self.task.loss(output.logits, batch.target)), **output.losses}
        return StepOutput(sum(parts.values()), parts, output)
