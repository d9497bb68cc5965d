"""What a way of explaining is: one number a tile, and a word for what the number means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from coverslip.mil import BagOutput, Bags, SlideModel


class Explainer(ABC):
    """Built without arguments. Scores of several models are averaged, so they must be comparable between models."""

    kind: ClassVar[str]
    """The word under the picture and in the files: attention, evidence."""
    signed: ClassVar[bool]
    """True where zero is a middle and scores speak for and against; False where more is just more."""

    @abstractmethod
    def offers(self, output: BagOutput) -> bool:
        """True where the method behind this output can be explained so."""

    @abstractmethod
    def scores(self, model: SlideModel, bags: Bags, output: BagOutput, column: int) -> Float[Tensor, m]:
        """One number a row for the class in place `column`; `output` is the model's own for these bags."""
