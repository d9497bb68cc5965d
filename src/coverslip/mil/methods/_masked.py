"""What the two versions of MHIM share: a host method that predicts, and is trained on masked bags beside a teacher."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from coverslip.mil.bags import BagOutput, Bags, LearningSet, StagedAggregator
from coverslip.mil.build import build_aggregator
from coverslip.mil.parts.masked_teaching import MaskedTeaching
from coverslip.mil.supervised import Supervised
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task
from coverslip.train import Objective


class MaskedHost(StagedAggregator):
    """The host's output, by the host; `teaching` says how it is trained."""

    def __init__(self, dim: int, num_outputs: int, host: str, host_options: Mapping[str, Any]) -> None:
        super().__init__()
        made = build_aggregator(host, dim, num_outputs, host_options)
        assert isinstance(made, StagedAggregator)
        self.host = made
        self.width = made.width
        self.uses_positions, self.order_matters = made.uses_positions, made.order_matters
        self.least_bags, self.sampling = made.least_bags, made.sampling

    def project(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m width"]:
        return self.host.project(x)

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        return self.host.aggregate(bags, target)

    def forward(self, bags: Bags, target: Target | None = None) -> BagOutput:
        output: BagOutput = self.host(bags, target)
        return output

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"] | None:
        return self.host.classify(z)

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective:
        plain = self.host.objective(network, task, learns) or Supervised(network, task)
        assert isinstance(plain, Supervised)
        return self.teaching(plain)

    @abstractmethod
    def teaching(self, plain: Supervised) -> MaskedTeaching:
        """The objective around the host's own."""


def require_share(**ratios: float) -> None:
    """Nothing, where all are from 0 to 1.

    Raises:
        ValueError: one is not; it is named.
    """
    for name, ratio in ratios.items():
        if not 0 <= ratio <= 1:
            raise ValueError(f"{name} is from 0 to 1")
