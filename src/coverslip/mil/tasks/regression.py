"""Regression: one number a bag, squared error in units of the training patients' standard deviation."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task, of_patients

ENTRIES = {
    "regression": {
        "build": "Regression",
        "summary": "a number; squared error, or Huber's with robust = true",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "a column of numbers",
    }
}


class Regression(Task):
    """One logit z; the value is mean + sd z, with mean and standard deviation of the training patients.

    Target: `y` (B,) float, NaN where missing. `robust` takes Huber's loss with its corner at one standard deviation,
    so that single far values do not decide (Huber 1964, https://doi.org/10.1214/aoms/1177703732).
    """

    kind: ClassVar[str] = "regression"
    mean: Tensor
    sd: Tensor

    def __init__(self, *, robust: bool = False) -> None:
        super().__init__()
        self.num_outputs = 1
        self.columns = ("value",)
        self.explained = ("higher value",)
        self.robust = robust
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("sd", torch.ones(()))

    def loss(self, logits: Float[Tensor, "b 1"], target: Target) -> tuple[Float[Tensor, b], Float[Tensor, b]]:
        known = torch.isfinite(target.y)
        z = torch.where(known, (target.y.float() - self.mean) / self.sd, 0)
        distance = functional.huber_loss if self.robust else functional.mse_loss
        return distance(logits[:, 0].float(), z, reduction="none"), known.float()

    def predictions(self, logits: Float[Tensor, "b 1"]) -> Float[Tensor, "b 1"]:
        return self.mean + self.sd * logits.float()

    def score(self, logits: Float[Tensor, "b 1"]) -> Float[Tensor, "b 1"]:
        return self.predictions(logits)

    def fit_target(self, target: Target, groups: list[str]) -> None:
        y = of_patients(target, groups).y.double()
        y = y[torch.isfinite(y)]
        self.mean.copy_(y.mean() if len(y) else torch.zeros(()))
        sd = y.std() if len(y) > 1 else torch.ones(())
        self.sd.copy_(sd if sd > 0 else torch.ones(()))

    def card(self) -> dict[str, Any]:
        return {"robust": self.robust}
