"""What a task is: how many outputs a method has, what its loss is, and which columns a prediction has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from coverslip.mil.target import Target


class Task(nn.Module, ABC):
    """A kind of prediction. A module without parameters: what it learnt from the training labels (class weights, bins
    of time) is a buffer that moves and is saved with the model.

    Built with those of `classes`, `grid` (times of survival curves) and `weights` (fit.class_weights) that its
    constructor names, and with its options, which are keyword-only and have defaults.
    """

    kind: ClassVar[str]
    least_batch: ClassVar[int] = 1
    """Bags that a training step needs; more than 1 where the loss compares bags."""
    needs_training_logits: ClassVar[bool] = False
    """Whether `finish` is called with the trained network's logits of the training bags."""
    num_outputs: int
    columns: tuple[str, ...]
    explained: tuple[str, ...]
    """What a map of tiles can be about: a class, a label, a higher risk."""

    @abstractmethod
    def loss(self, logits: Float[Tensor, "b k"], target: Target) -> tuple[Float[Tensor, b], Float[Tensor, b]]:
        """The loss of each bag and its weight. A bag whose label is missing has weight 0; the loss of a batch is
        `weighted_mean` of the two."""

    @abstractmethod
    def predictions(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b c"]:
        """The values of `columns` for each bag; what is averaged over slides of a patient and over folds. The first
        ones are those of `explained`, where there are as many."""

    @abstractmethod
    def score(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b e"]:
        """The number that each of `explained` stands for; a tile's evidence is weighted with its slope."""

    @abstractmethod
    def fit_target(self, target: Target, groups: list[str]) -> None:
        """Learns what the loss needs from the training labels; `groups` is the patient of each bag."""

    def as_drawn(self, target: Target, groups: list[str]) -> Task:
        """The task for training on bags of which each class is drawn alike, after `fit_target`: what its loss does for
        rare classes is not done twice. The same task where the loss does nothing of the kind."""
        return self

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """The arguments that build this task again, as JSON."""

    def at(self, times: Sequence[float]) -> Task:
        """This task with curves at other times; a risk stays what it is. The same task where it states no curves."""
        return self

    def finish(self, logits: Float[Tensor, "b k"], target: Target, groups: list[str]) -> None:
        """Learns what needs the trained network: its logits of the training bags, in eval mode."""


def weighted_mean(loss: Float[Tensor, b], weight: Float[Tensor, b]) -> Float[Tensor, ""]:
    """The mean loss under the weights; zero (with a graph) where all weights are zero."""
    return (loss * weight).sum() / weight.sum().clamp(min=1e-12)


def of_patients(target: Target, groups: Sequence[str]) -> Target:
    """Each patient's target once: twice only where slides of a patient differ. Many slides do not shift what is learnt
    of the labels."""
    facts = list(zip(groups, target.facts()))
    first = {fact: place for place, fact in reversed(list(enumerate(facts)))}
    return target.take(torch.tensor(sorted(first.values()), device=target.y.device))


def balanced(counts: Int64[Tensor, k]) -> Float[Tensor, k]:
    """Weights n / (K n_c) of K classes, so that a rare one counts as much as a common one; 1 for one nobody has."""
    present = counts > 0
    weights = counts.sum().float() / (present.sum().clamp(min=1) * counts.clamp(min=1))
    return torch.where(present, weights, torch.ones_like(weights))
