"""Survival by Cox's partial likelihood: bags of a step are ranked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coverslip.mil.target import Target
from coverslip.mil.tasks._times import CurveTask, at_time, full

ENTRIES = {
    "survival_cox": {
        "build": "SurvivalCox",
        "summary": "time to an event, may be censored; Cox's partial likelihood over the bags of a step",
        "origin": "Cox 1972, doi:10.1111/j.2517-6161.1972.tb00899.x",
        "licence": "Apache-2.0",
        "needs": "a column of times and one of events (0, 1); 16 bags a step",
    }
}


class SurvivalCox(CurveTask):
    """One logit r, the log hazard ratio. Target: `y` (B,) times, `event` (B,) 1 or 0.

    The loss of a bag with the event is -(r_i - log of the sum of exp(r_j) over the bags of the step that were still
    followed at its time); ties as Breslow takes them. A censored bag only stands in those sums, and a bag that is
    followed longest has nobody to be compared with: both have weight 0. So a step needs several bags, and learns the
    more the more it has: 16 at least, and where `fit.batch` is not given it is raised to that.

    Columns: `risk`, r minus the training patients' mean, and s_<time> = exp(-H(t) exp(risk)) with Breslow's cumulative
    baseline hazard H (Breslow 1974, https://doi.org/10.2307/2529620) of the training patients under the trained
    network, at the times of the grid (between them by straight lines, after the last as at the last). The network has
    seen these patients, so curves may be too far apart; ranks are not touched by that.
    """

    kind: ClassVar[str] = "survival_cox"
    least_batch: ClassVar[int] = 16
    needs_training_logits: ClassVar[bool] = True
    mean: Tensor
    hazard: Tensor

    def __init__(self, *, grid: tuple[float, ...]) -> None:
        super().__init__()
        self.set_times(grid)
        self.num_outputs = 1
        self.explained = ("higher risk",)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("hazard", torch.zeros(len(self.grid)))

    def loss(self, logits: Float[Tensor, "b 1"], target: Target) -> tuple[Float[Tensor, b], Float[Tensor, b]]:
        r, followed = full(logits)[:, 0], _followed(target.y)
        assert target.event is not None
        sums = torch.where(followed, r, -torch.inf).logsumexp(1)
        informative = (target.event > 0) & (followed.sum(1) > 1)
        return torch.where(informative, sums - r, 0), informative.to(r.dtype)

    def predictions(self, logits: Float[Tensor, "b 1"]) -> Float[Tensor, "b c"]:
        risk = full(logits) - self.mean
        # A ratio of exp(30) is certain death on any baseline; beyond it float32 overflows.
        return torch.cat([risk, torch.exp(-self._hazard_shown() * risk.clamp(max=30).exp())], 1)

    def named(self, times: Sequence[float]) -> tuple[str, ...]:
        return ("risk", *(at_time("s", time) for time in times))

    def score(self, logits: Float[Tensor, "b 1"]) -> Float[Tensor, "b 1"]:
        return logits

    def fit_target(self, target: Target, groups: list[str]) -> None:
        pass  # nothing is learnt before the network

    def finish(self, logits: Float[Tensor, "b 1"], target: Target, groups: list[str]) -> None:
        assert target.event is not None
        names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
        place = torch.tensor([names[name] for name in groups], device=logits.device)
        # A patient with several slides counts once, with their mean.
        sums = torch.zeros(len(names), dtype=torch.float64, device=logits.device)
        r = sums.index_add(0, place, logits[:, 0].double()) / torch.bincount(place)
        first = torch.tensor([groups.index(name) for name in names], device=logits.device)
        time, event = target.y[first], target.event[first] > 0
        self.mean.copy_(r.mean())
        at_risk = (_followed(time) * (r - r.mean()).exp()).sum(1)
        steps = torch.where(event, 1 / at_risk, 0)
        grid = torch.tensor(self.grid, device=logits.device)
        self.hazard.copy_((steps * (time <= grid[:, None])).sum(1))

    def card(self) -> dict[str, Any]:
        return {"grid": list(self.grid)}

    def _hazard_shown(self) -> Float[Tensor, g]:
        """H at the times that are shown: exact at those of the grid, between them by straight lines."""
        grid, hazard = self.shown.new_tensor((0.0, *self.grid)), torch.cat([self.hazard.new_zeros(1), self.hazard])
        place = torch.searchsorted(grid, self.shown).clamp(1, len(grid) - 1)
        part = ((self.shown - grid[place - 1]) / (grid[place] - grid[place - 1])).clamp(max=1)
        return torch.lerp(hazard[place - 1], hazard[place], part)


def _followed(time: Float[Tensor, b]) -> Bool[Tensor, "b b"]:
    """In row i, who is still followed at the time of i, i included."""
    return time[None, :] >= time[:, None]
