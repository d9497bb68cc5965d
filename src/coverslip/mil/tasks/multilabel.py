"""Multilabel: several yes-or-no questions at once, a sigmoid each; any answer may be missing."""

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
    "multilabel": {
        "build": "Multilabel",
        "summary": "several labels at once, each may be missing; sigmoids and binary cross-entropy",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "a column a label, each 0, 1 or empty",
    }
}


class Multilabel(Task):
    """T labels, T logits. Target: `y` (B, T) of 0 and 1, `known` (B, T) False where a label is missing.

    A bag's loss is the mean binary cross-entropy of its known labels; a bag that knows few weighs little, one that
    knows none nothing. With weights "balanced" positives and negatives of a label count the same: n / (2 n_+) and
    n / (2 n_-) over the training patients who know it.
    """

    kind: ClassVar[str] = "multilabel"
    label_weights: Tensor

    def __init__(
        self, classes: tuple[str, ...], *, weights: Literal["balanced", "effective_number", "none"] = "balanced"
    ) -> None:
        super().__init__()
        if weights == "effective_number":
            raise SettingsError(
                'fit.class_weights = "effective_number" is for targets with classes; labels are weighed "balanced" or '
                '"none".',
                fix='Set fit.class_weights = "balanced".',
            )
        if not classes:
            raise SettingsError("Multilabel needs at least one label.", fix="Name columns in task.columns.")
        self.classes = tuple(classes)
        self.num_outputs = len(classes)
        self.columns = tuple(f"p_{name}" for name in classes)
        self.explained = self.classes
        self.weights = weights
        self.register_buffer("label_weights", torch.ones(len(classes), 2))  # negative, positive

    def loss(self, logits: Float[Tensor, "b t"], target: Target) -> tuple[Float[Tensor, b], Float[Tensor, b]]:
        known = torch.ones_like(target.y, dtype=torch.bool) if target.known is None else target.known
        y = torch.where(known, target.y, 0).float()
        weight = torch.where(y > 0.5, self.label_weights[:, 1], self.label_weights[:, 0]) * known  # (b, t)
        losses = functional.binary_cross_entropy_with_logits(logits.float(), y, reduction="none")
        total = weight.sum(1)
        return (losses * weight).sum(1) / total.clamp(min=1e-12), total / self.num_outputs

    def predictions(self, logits: Float[Tensor, "b t"]) -> Float[Tensor, "b t"]:
        return logits.float().sigmoid()

    def score(self, logits: Float[Tensor, "b t"]) -> Float[Tensor, "b t"]:
        return logits

    def fit_target(self, target: Target, groups: list[str]) -> None:
        if self.weights == "none":
            return
        one = of_patients(target, groups)
        known = torch.ones_like(one.y, dtype=torch.bool) if one.known is None else one.known
        for label in range(self.num_outputs):
            y = one.y[known[:, label], label].long()
            self.label_weights[label] = balanced(torch.bincount(y, minlength=2))

    def card(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "weights": self.weights}
