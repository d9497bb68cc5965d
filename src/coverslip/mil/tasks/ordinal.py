"""Ordinal: ordered levels, each step up its own logit, the steps multiplied along the order."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from coverslip.base.errors import SettingsError
from coverslip.mil.target import Target
from coverslip.mil.tasks._classes import ClassWeights, check_beta, class_weights, drawn_weights
from coverslip.mil.tasks.contract import Task, of_patients

ENTRIES = {
    "ordinal": {
        "build": "Ordinal",
        "summary": "ordered levels; sequential logits, so that probabilities respect the order",
        "origin": "Tutz 1991; for networks Shi et al. 2021, arXiv:2111.08851",
        "licence": "Apache-2.0",
        "needs": "a column of ordered levels",
    }
}


class Ordinal(Task):
    """K levels, K - 1 logits: logit j is that of going beyond level j for who has reached it.

        P(y > j | y >= j) = sigmoid(z_j)        P(y = k) = (1 - sigmoid(z_k)) * product over j < k of sigmoid(z_j)

    The sequential (continuation ratio) model (Tutz 1991, https://doi.org/10.1111/j.2044-8317.1991.tb00961.x), which
    Shi, Cao and Raschka (2021, https://arxiv.org/abs/2111.08851) train networks with. The loss is minus the log of
    the level's probability, weighted as in classification (`beta` too); target: `y` (B,) int64, the place of the level.
    """

    kind: ClassVar[str] = "ordinal"
    class_weights: Tensor

    def __init__(self, classes: tuple[str, ...], *, weights: ClassWeights = "balanced", beta: float = 0.99) -> None:
        super().__init__()
        if len(classes) < 2:
            raise SettingsError(
                f"An ordinal target needs two or more levels, found {list(classes)}.", fix="Check the target's column."
            )
        self.classes = tuple(classes)
        self.num_outputs = len(classes) - 1
        self.columns = tuple(f"p_{name}" for name in classes)
        self.explained = ("higher level",)
        self.weights, self.beta = weights, check_beta(beta)
        self.register_buffer("class_weights", torch.ones(len(classes)))

    def loss(self, logits: Float[Tensor, "b s"], target: Target) -> tuple[Float[Tensor, b], Float[Tensor, b]]:
        log_p = self._log_probabilities(logits)
        return -log_p.gather(1, target.y[:, None])[:, 0], self.class_weights[target.y]

    def predictions(self, logits: Float[Tensor, "b s"]) -> Float[Tensor, "b k"]:
        return self._log_probabilities(logits).exp()

    def score(self, logits: Float[Tensor, "b s"]) -> Float[Tensor, "b 1"]:
        """The expected level, counted from 0."""
        p = self._log_probabilities(logits).exp()
        return (p * torch.arange(p.shape[1], device=p.device)).sum(1, keepdim=True)

    def fit_target(self, target: Target, groups: list[str]) -> None:
        self.class_weights.copy_(class_weights(self._counts(target, groups), self.weights, self.beta))

    def as_drawn(self, target: Target, groups: list[str]) -> Task:
        drawn = copy.deepcopy(self)
        drawn.class_weights.copy_(drawn_weights(self._counts(target, groups), self.weights, self.beta))
        return drawn

    def card(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "weights": self.weights, "beta": self.beta}

    def _counts(self, target: Target, groups: list[str]) -> Int64[Tensor, k]:
        return torch.bincount(of_patients(target, groups).y, minlength=len(self.classes))

    def _log_probabilities(self, logits: Float[Tensor, "b s"]) -> Float[Tensor, "b k"]:
        logits = logits.float() if logits.dtype != torch.float64 else logits
        reached = functional.pad(functional.logsigmoid(logits).cumsum(1), (1, 0))  # log P(y >= k), (b, k)
        stays = functional.pad(functional.logsigmoid(-logits), (0, 1))  # who has reached the last level stays there
        return reached + stays
