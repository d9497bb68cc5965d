"""What `fit` trains: an `Objective` turns a batch into a loss. A method with a teacher is one, not a second loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coverslip.base.study import FitSettings
from coverslip.train.optim import adamw, decay_groups

T = TypeVar("T")


@dataclass(frozen=True)
class StepOutput:
    """The loss of one batch, its named parts for the log, and whatever else the step produced."""

    loss: Float[Tensor, ""]
    parts: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    outputs: Any = None


class Remembered(list[T]):
    """What forward passes leave for `after_step`, which empties it: an entry a pass, so one for each accumulated batch.

    An attribute of the objective or of any module in it, made once. What runs a batch twice finds it there and takes
    back what the pass that does not count has left; so nothing is fed to a memory twice.
    """

    @staticmethod
    def within(module: nn.Module) -> list[Remembered[Any]]:
        """All of them in `module` and the modules in it."""
        return [kept for part in module.modules() for kept in vars(part).values() if isinstance(kept, Remembered)]


class Objective(nn.Module, ABC):
    """A training step as a module.

    Everything that training changes is a parameter or a buffer of it: networks, a teacher, queues, prototypes, running
    schedules. So a checkpoint of its state is a checkpoint of all of it, and a resumed run goes on bit for bit.

    Chance inside `forward` and `after_step` comes from torch's default generators; `fit` seeds them anew for every
    step from the run's seed, so a step's draws do not depend on what ran before.

    - A teacher is a module whose parameters do not require gradients, moved in `after_step`.
    - A queue, prototypes or confidences are buffers, filled in `after_step` from what `forward` left in a `Remembered`.
    - Masks and recycled tokens are made inside `forward`; evaluation never calls it, so inference is the plain network.
    - Parts that learn at other rates, are frozen or belong to another stage are `parameter_groups`; another algorithm
      is another `optimiser`. Two optimisers are two groups: gradients of separate losses only meet where a parameter
      belongs to both, and there they would have been added anyway.
    """

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The module that is kept when training ends: what evaluation and export use."""

    @abstractmethod
    def forward(self, batch: Any, progress: float) -> StepOutput:
        """The loss of a batch; `progress` runs from 0 at the first step to 1 at the last."""

    @property
    def begins(self) -> float:
        """The share of training before which `network` is not yet what this objective makes: a warm-up. No epoch that
        ends before is kept, nor counted as one without progress; else tuning could choose a model of the warm-up."""
        return 0.0

    def after_step(self, progress: float) -> None:
        """Called once after each optimiser step: moves teachers, queues, prototypes."""

    def parameter_groups(self, settings: FitSettings) -> list[dict[str, Any]]:
        """Groups for the optimiser. `lr` of a group is its peak; the schedule multiplies it."""
        assert settings.lr is not None, "the rate depends on the number of bags: see train.sizing"
        return decay_groups(self, lr=settings.lr, weight_decay=settings.weight_decay)

    def optimiser(self, settings: FitSettings) -> torch.optim.Optimizer:
        """The optimiser over `parameter_groups`: AdamW."""
        # Fabric does not clip the scaled gradients of fp16 for a fused optimiser.
        return adamw(self.parameter_groups(settings), fused=settings.precision != "fp16")


class Around(Objective):
    """An objective that adds something to another one, `inner`, and leaves everything else to it."""

    def __init__(self, inner: Objective) -> None:
        super().__init__()
        self.inner = inner

    @property
    def network(self) -> nn.Module:
        return self.inner.network

    @property
    def begins(self) -> float:
        return self.inner.begins

    def forward(self, batch: Any, progress: float) -> StepOutput:
        output: StepOutput = self.inner(batch, progress)
        return output

    def after_step(self, progress: float) -> None:
        self.inner.after_step(progress)

    def parameter_groups(self, settings: FitSettings) -> list[dict[str, Any]]:
        return self.inner.parameter_groups(settings)

    def optimiser(self, settings: FitSettings) -> torch.optim.Optimizer:
        return self.inner.optimiser(settings)
