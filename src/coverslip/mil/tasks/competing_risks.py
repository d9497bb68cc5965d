"""Competing risks: several events, the first of which ends the time; cause-specific discrete hazards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from coverslip.base.errors import SettingsError
from coverslip.mil.target import Target
from coverslip.mil.tasks._bins import base_logits, bin_edges, incidence, log_likelihood
from coverslip.mil.tasks._times import CurveTask, at_time, full, share_lost
from coverslip.mil.tasks.contract import of_patients

ENTRIES = {
    "competing_risks": {
        "build": "CompetingRisks",
        "summary": "the first of several events; cause-specific discrete hazards, cumulative incidence",
        "origin": "Tutz and Schmid 2016, doi:10.1007/978-3-319-28158-2, chapter 8",
        "licence": "Apache-2.0",
        "needs": "a column of times and one of causes (0 censored)",
    }
}


class CompetingRisks(CurveTask):
    """C causes times `bins` logits; in each bin a softmax over the causes and passing it free of all.

    As survival by discrete hazards, which is the case of one cause. Target: `y` (B,) times, `event` (B,) 0 censored or
    1 + the place of the cause in `classes`.

    Columns: risk_<cause>, the share of the time up to the end of the grid that is expected to be lost to the cause, and
    cif_<cause>_<time>, the chance that it has come by then (cumulative incidence: other causes may come before it).
    """

    kind: ClassVar[str] = "competing_risks"
    edges: Tensor
    base: Tensor
    times: Tensor

    def __init__(self, classes: tuple[str, ...], *, grid: tuple[float, ...], bins: int = 4) -> None:
        super().__init__()
        if bins < 1 or not classes:
            raise SettingsError(f"Competing risks need a cause and a bin: {list(classes)}, task.options.bins = {bins}.")
        self.classes = tuple(classes)
        self.set_times(grid)
        self.bins = bins
        self.num_outputs = len(classes) * bins
        self.explained = tuple(f"higher risk of {cause}" for cause in classes)
        self.register_buffer("times", torch.tensor(self.grid), persistent=False)
        self.register_buffer("edges", torch.linspace(0, self.grid[-1], bins + 1))
        self.register_buffer("base", torch.zeros(len(classes), bins))

    def loss(self, logits: Float[Tensor, "b k"], target: Target) -> tuple[Float[Tensor, b], Float[Tensor, b]]:
        assert target.event is not None
        found = log_likelihood(self._moved(logits), target.y, target.event, self.edges)
        return -found, torch.ones_like(found)

    def predictions(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b c"]:
        moved = self._moved(logits)
        risk = share_lost(incidence(moved, self.times, self.edges), self.times)
        return torch.cat([risk, incidence(moved, self.shown, self.edges).flatten(1)], 1)

    def named(self, times: Sequence[float]) -> tuple[str, ...]:
        curves = [at_time(f"cif_{cause}", time) for cause in self.classes for time in times]
        return (*(f"risk_{cause}" for cause in self.classes), *curves)

    def score(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b e"]:
        return self.predictions(logits)[:, : len(self.classes)]

    def fit_target(self, target: Target, groups: list[str]) -> None:
        one = of_patients(target, groups)
        assert one.event is not None
        self.edges.copy_(bin_edges(one.y, one.event, self.bins))
        self.base.copy_(base_logits(one.y, one.event, self.edges, len(self.classes)))

    def card(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "grid": list(self.grid), "bins": self.bins}

    def _moved(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b c k"]:
        return full(logits).unflatten(1, self.base.shape) + self.base
