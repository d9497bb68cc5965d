"""A small objective with dropout, a teacher and a queue: everything a checkpoint has to carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from coverslip.base.study import FitSettings
from coverslip.train import Objective, StepOutput


@dataclass(frozen=True)
class Batch:
    x: Tensor
    y: Tensor

    def to(self, device: torch.device) -> Batch:
        return self


class Line:
    """Batches of y = 2 x_0 - x_1 with noise, drawn from epoch and index."""

    def __init__(self, num: int = 7, *, bad: tuple[int, int] | None = None) -> None:
        self.num, self.bad = num, bad
        self.asked: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self.num

    def batch(self, epoch: int, index: int) -> Batch:
        self.asked.append((epoch, index))
        generator = torch.Generator().manual_seed(1000 * epoch + index)
        x = torch.randn(8, 3, generator=generator)
        if (epoch, index) == self.bad:
            x[0, 0] = torch.inf
        return Batch(x, 2 * x[:, 0] - x[:, 1])

    def describe(self, epoch: int, index: int) -> str:
        return f"batch {index} of {epoch}"

    def shard(self, rank: int, world: int) -> Line:
        return self


class WithTeacher(Objective):
    """Least squares with dropout, a moving-average teacher and a queue of losses."""

    queue: Tensor
    fed: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.student = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1))
        self.teacher = nn.Linear(3, 16).requires_grad_(False)
        self.register_buffer("queue", torch.zeros(5))
        self.register_buffer("fed", torch.zeros((), dtype=torch.int64))
        self.steps: list[float] = []
        self.modes: list[bool] = []
        self._last: Tensor | None = None

    @property
    def network(self) -> nn.Module:
        return self.student

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        self.modes.append(self.student.training)
        loss = (self.student(batch.x).squeeze(1) - batch.y).square().mean()
        self._last = loss.detach()
        return StepOutput(loss, {"squares": loss})

    def after_step(self, progress: float) -> None:
        self.steps.append(progress)
        for mine, theirs in zip(self.teacher.parameters(), self.student[0].parameters()):
            mine.lerp_(theirs.detach(), 0.1)
        assert self._last is not None
        self.queue[int(self.fed) % 5] = self._last
        self.fed += 1


@pytest.fixture
def settings() -> FitSettings:
    return FitSettings(epochs=5, device="cpu", lr=0.01, seed=11)


@pytest.fixture
def tune_loss() -> Callable[[nn.Module], Tensor]:
    batch = Line().batch(99, 0)

    def loss(network: nn.Module) -> Tensor:
        return (network(batch.x).squeeze(1) - batch.y).square()

    return loss
