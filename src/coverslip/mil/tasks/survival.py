"""Survival by discrete hazards: the chance of the event in each bin of time for who is still free of it."""

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
    "survival": {
        "build": "Survival",
        "summary": "time to an event, may be censored; discrete hazards in quantile bins",
        "origin": "Tutz and Schmid 2016; Kvamme and Borgan 2021, arXiv:1910.06724",
        "licence": "Apache-2.0",
        "needs": "a column of times and one of events (0, 1)",
    }
}


class Survival(CurveTask):
    """`bins` logits, one a bin of time; h_k = sigmoid(z_k + z0_k) with z0 the training patients' own hazard.

    The network says how a bag departs from the average patient, so an untrained one already gives the average curve.
    Target: `y` (B,) times, `event` (B,) 1 or 0. The loss is minus the log-likelihood (`_bins` has it); it learns from
    one bag a step. Events are not weighted against censored times, which would bend the curves; bins are quantiles of
    the event times instead, so that each has its share of events.

    Columns: `risk`, the share of the time up to the end of the grid that is expected to be lost, and s_<time>, the
    chance to be free of the event at each time that is shown.
    """

    kind: ClassVar[str] = "survival"
    edges: Tensor
    base: Tensor
    times: Tensor

    def __init__(self, *, grid: tuple[float, ...], bins: int = 4) -> None:
        super().__init__()
        if bins < 1:
            raise SettingsError(f"task.options.bins = {bins}: time is cut into one bin or more.")
        self.set_times(grid)
        self.num_outputs = bins
        self.explained = ("higher risk",)
        self.register_buffer("times", torch.tensor(self.grid), persistent=False)
        self.register_buffer("edges", torch.linspace(0, self.grid[-1], bins + 1))
        self.register_buffer("base", torch.zeros(1, bins))

    def loss(self, logits: Float[Tensor, "b k"], target: Target) -> tuple[Float[Tensor, b], Float[Tensor, b]]:
        assert target.event is not None
        found = log_likelihood(self._moved(logits), target.y, target.event, self.edges)
        return -found, torch.ones_like(found)

    def predictions(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b c"]:
        moved = self._moved(logits)
        gone = incidence(moved, self.times, self.edges)[:, 0]
        shown = incidence(moved, self.shown, self.edges)[:, 0]
        return torch.cat([share_lost(gone, self.times)[:, None], 1 - shown], 1)

    def named(self, times: Sequence[float]) -> tuple[str, ...]:
        return ("risk", *(at_time("s", time) for time in times))

    def score(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b 1"]:
        return self.predictions(logits)[:, :1]

    def fit_target(self, target: Target, groups: list[str]) -> None:
        one = of_patients(target, groups)
        assert one.event is not None
        self.edges.copy_(bin_edges(one.y, one.event, self.num_outputs))
        self.base.copy_(base_logits(one.y, one.event, self.edges, 1))

    def card(self) -> dict[str, Any]:
        return {"grid": list(self.grid), "bins": self.num_outputs}

    def _moved(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b 1 k"]:
        return full(logits)[:, None] + self.base
