"""What a task is: how many outputs a method has, what its loss is, and which columns a prediction has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from coverslip.mil.target import Target


class Task(nn.Module, ABC):
    """A kind of prediction. A module without parameters: what it learnt from the training labels (class weights) is
    a buffer that moves and is saved with the model."""

    kind: ClassVar[str]
    num_outputs: int
    columns: tuple[str, ...]

    @abstractmethod
    def loss(self, logits: Float[Tensor, "b k"], target: Target) -> tuple[Float[Tensor, b], Float[Tensor, b]]:
        """The loss of each bag and its weight. A bag whose label is missing has weight 0; the loss of a batch is
        `weighted_mean` of the two."""

    @abstractmethod
    def predictions(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b c"]:
        """The values of `columns` for each bag; what is averaged over slides of a patient and over folds."""

    @abstractmethod
    def fit_target(self, target: Target, groups: list[str]) -> None:
        """Learns what the loss needs from the training labels; `groups` is the patient of each bag."""

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """The arguments that build this task again, as JSON."""


def weighted_mean(loss: Float[Tensor, b], weight: Float[Tensor, b]) -> Float[Tensor, ""]:
    """The mean loss under the weights; zero (with a graph) where all weights are zero."""
    return (loss * weight).sum() / weight.sum().clamp(min=1e-12)
