"""Classification: one of two or more classes, softmax over one logit a class."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from coverslip.base.errors import SettingsError
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task, balanced, of_patients

ENTRIES = {
    "classification": {
        "build": "Classification",
        "summary": "one of two or more classes; softmax and cross-entropy",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "a column with one class a row",
    }
}


class Classification(Task):
    """K classes, K logits. Target: `y` (B,) int64, the place of the class in `classes`.

    With class weights "balanced" a class of n_c among n patients weighs n / (K n_c), so that a rare class counts as
    much as a common one. Weights come from patients, not slides: a patient with many slides does not shift them.
    """

    kind: ClassVar[str] = "classification"
    class_weights: Tensor

    def __init__(self, classes: tuple[str, ...], *, weights: Literal["balanced", "none"] = "balanced") -> None:
        super().__init__()
        if len(classes) < 2:
            raise SettingsError(
                f"Classification needs two or more classes, found {list(classes)}.", fix="Check the target's column."
            )
        self.classes = tuple(classes)
        self.num_outputs = len(classes)
        self.columns = tuple(f"p_{name}" for name in classes)
        self.explained = self.classes
        self.weights = weights
        self.register_buffer("class_weights", torch.ones(len(classes)))

    def loss(self, logits: Float[Tensor, "b k"], target: Target) -> tuple[Float[Tensor, b], Float[Tensor, b]]:
        loss = functional.cross_entropy(logits.float(), target.y, reduction="none")
        return loss, self.class_weights[target.y]

    def predictions(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        return logits.float().softmax(-1)

    def score(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Each logit minus the mean of the others: a number added to all changes no probability."""
        others = (logits.sum(1, keepdim=True) - logits) / (self.num_outputs - 1)
        return logits - others

    def fit_target(self, target: Target, groups: list[str]) -> None:
        if self.weights == "balanced":
            y = of_patients(target, groups).y
            self.class_weights.copy_(balanced(torch.bincount(y, minlength=self.num_outputs)))

    def card(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "weights": self.weights}
