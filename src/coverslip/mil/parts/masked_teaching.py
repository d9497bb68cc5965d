"""A host method trained on part of each bag, beside a teacher that sees the whole of it: the training of MHIM."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coverslip.base.study import FitSettings
from coverslip.mil.bags import BagOutput, Bags, StagedAggregator
from coverslip.mil.parts.recycler import Recycler, with_tokens
from coverslip.mil.parts.teacher import Teacher
from coverslip.mil.source import LabelledBags
from coverslip.mil.supervised import Supervised
from coverslip.mil.target import Target
from coverslip.nn.segments import Segments, full, total
from coverslip.train import Objective, StepOutput
from coverslip.train.schedules import cosine


@dataclass(frozen=True)
class Masks:
    """What becomes of the rows: those kept are learnt from, those recycled become tokens, the others are not seen."""

    kept: Bool[Tensor, m]
    recycled: Bool[Tensor, m] | None = None


class MaskPolicy(ABC):
    """Chooses the rows of a step."""

    @property
    @abstractmethod
    def needs_teacher(self) -> bool:
        """Whether it looks at what the teacher says."""

    @abstractmethod
    def draw(self, seen: BagOutput | None, segments: Segments, progress: float) -> Masks | None:
        """The masks, or None where all rows are kept; every bag keeps one row or more. `seen` is the teacher's output
        for the whole bags."""


@dataclass(frozen=True)
class Teaching:
    """How the teacher is made, and what it counts for."""

    consistency: float
    """Weight of the consistency loss."""
    temperature: float
    """The teacher's; the student's is 1."""
    momentum: float | None
    """Of the teacher, a step; None: it forgets over a tenth of training, however many steps that is."""
    settles: bool
    """Whether the momentum rises to 1 by the end of training, along a cosine."""
    warmup: float
    """Share of training in which the host learns by itself and the teacher is a copy of it."""
    dropout: bool
    """Whether the teacher's dropout is on."""

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise ValueError("warmup is from 0 to below 1")
        if self.consistency < 0 or self.temperature <= 0:
            raise ValueError("consistency is 0 or more, temperature above 0")
        if self.momentum is not None and not 0 <= self.momentum <= 1:
            raise ValueError("momentum is from 0 to 1")


class MaskedTeaching(Objective):
    """The host's own training on masked bags, plus a pull of its bag vectors to those of a teacher on whole bags.

    `plain` is how the host would be trained by itself: its terms, parameter groups and optimiser are kept. After
    `warmup`, in each step: the teacher sees the whole bags; `policy` chooses the rows; the student, which is the host,
    gets the kept rows, and the recycler's tokens for those set aside; the loss is the host's on that, plus

        consistency * mean over bags and branches of -sum_d softmax(z_T / temperature)_d log softmax(z_S)_d

    over the dimensions of the bag vector z (`BagOutput.embedding`; by parts of the host's width where it has several
    branches). The teacher moves once an optimiser step. With nothing masked, nothing recycled and consistency 0 the
    step is that of `plain`, bit for bit.
    """

    progress: Tensor

    def __init__(
        self,
        plain: Supervised,
        host: StagedAggregator,
        policy: MaskPolicy,
        teaching: Teaching,
        *,
        recycler: Recycler | None = None,
        query_momentum: float | None = None,
    ) -> None:
        super().__init__()
        self.plain = plain
        self.teacher = Teacher(host, dropout=teaching.dropout)
        self.policy, self.teaching, self.query_momentum = policy, teaching, query_momentum
        # Held by the network already; a second registration would save them twice.
        self._parts = (host, recycler)
        self.register_buffer("progress", torch.zeros(()))

    @property
    def network(self) -> nn.Module:
        return self.plain.network

    @property
    def begins(self) -> float:
        return self.teaching.warmup

    def parameter_groups(self, settings: FitSettings) -> list[dict[str, Any]]:
        return self.plain.parameter_groups(settings)

    def optimiser(self, settings: FitSettings) -> torch.optim.Optimizer:
        return self.plain.optimiser(settings)

    def forward(self, batch: LabelledBags, progress: float) -> StepOutput:
        host, recycler = self._parts
        if progress < self.teaching.warmup:
            step = self.plain(batch, progress)
            return StepOutput(step.loss + _untouched(recycler), step.parts, step.outputs)
        bags = batch.bags.with_x(self.network.get_submodule("standardise")(batch.bags.x))
        seen: BagOutput | None = self.teacher(bags) if self.policy.needs_teacher or self.teaching.consistency else None
        masks = self.policy.draw(seen, bags.segments, progress)
        output = self._student(bags, masks, batch.target)
        parts = {**self.plain.terms(output, batch, progress), **output.losses}
        if seen is not None and self.teaching.consistency:
            apart = consistency(output.embedding, seen.embedding, host.width, temperature=self.teaching.temperature)
            parts["consistency"] = self.teaching.consistency * apart.mean()
        return StepOutput(torch.stack(list(parts.values())).sum(), parts, output)

    def after_step(self, progress: float) -> None:
        self.plain.after_step(progress)
        host, recycler = self._parts
        if progress < self.teaching.warmup:
            self.teacher.move(host, 0.0)
        else:
            self.teacher.move(host, self._momentum(self.teaching.momentum, progress))
            if recycler is not None:
                recycler.follow(self._momentum(self.query_momentum, progress))
        self.progress.fill_(progress)

    def _student(self, bags: Bags, masks: Masks | None, target: Target | None) -> BagOutput:
        host, recycler = self._parts
        if masks is None:
            return host(bags, target)
        if masks.recycled is None or recycler is None:
            return host(bags.take(masks.kept), target)
        alive = masks.kept | masks.recycled
        bags, aside = bags.take(alive), masks.recycled[alive]
        bags = bags.with_x(host.project(bags.x))
        number = total(aside.to(torch.int64), bags.segments)
        h = bags.x[aside]
        tokens = recycler(h, Segments(torch.cat([number.new_zeros(1), number.cumsum(0)]), len(h)))
        return host.aggregate(with_tokens(bags.take(~aside), tokens, number > 0), target)

    def _momentum(self, momentum: float | None, progress: float) -> float | Tensor:
        """The momentum of this step: 1 - (1 - m) by the cosine from 1 to 0, where it is to rise to 1."""
        left = cosine(1.0, 0.0, progress) if self.teaching.settles else 1.0
        if momentum is not None:
            return 1 - (1 - momentum) * left
        # On the device: how far this step went is a buffer, so that a resumed run knows it too.
        return 1 + left * torch.expm1(-(progress - self.progress) / _MEMORY)


# The released runs have a momentum of .9999 or .9997 over some 54,000 steps: a memory of 19 or 6 % of training.
_MEMORY = 0.1


def consistency(
    student: Float[Tensor, "b e"], teacher: Float[Tensor, "b e"], width: int, *, temperature: float
) -> Float[Tensor, "b branches"]:
    """Cross-entropy of the student's softmax over the dimensions of its bag vectors under the teacher's sharpened one.

    Vectors of several branches of `width` are compared a branch at a time. No gradient reaches the teacher.
    """
    branches = (-1, width) if student.shape[1] % width == 0 else (1, student.shape[1])
    aim = (full(teacher).detach().unflatten(1, branches) / temperature).softmax(2)
    return -(aim * full(student).unflatten(1, branches).log_softmax(2)).sum(2)


def _untouched(recycler: Recycler | None) -> float | Tensor:
    """Zero, with a graph to every parameter: processes that train together wait for the gradients of all of them."""
    return 0.0 if recycler is None else 0.0 * sum(p.sum() for p in recycler.parameters())
