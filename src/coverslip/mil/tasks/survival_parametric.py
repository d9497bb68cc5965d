"""Survival by a mixture of Weibull distributions: a smooth curve of free shape that learns from one slide a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from coverslip.base.errors import SettingsError
from coverslip.mil.target import Target
from coverslip.mil.tasks._times import CurveTask, at_time, full, share_lost
from coverslip.mil.tasks.contract import of_patients

ENTRIES = {
    "survival_parametric": {
        "build": "SurvivalParametric",
        "summary": "time to an event, may be censored; a mixture of Weibull distributions",
        "origin": "Nagpal et al. 2021, arXiv:2003.01176",
        "licence": "Apache-2.0",
        "needs": "a column of times and one of events (0, 1)",
    }
}

_SHAPES = (0.3, 5.0)
# exp(exp(...)) of the Weibull survivor function is finite below this.
_STEEPEST = 30.0


class SurvivalParametric(CurveTask):
    """Three logits a component: weight, log scale and log shape, as departures from the training patients' own Weibull.

        S(t) = sum of w_j exp(-(t / scale_j)^shape_j)        loss: -log f(t) with the event, -log S(t) censored

    The likelihood of Nagpal, Li and Dubrawski (2021, https://arxiv.org/abs/2003.01176), whose components are shared
    between patients; here scale and shape are the bag's own too, the shape within a factor of 4.5. It needs no bins and
    no other bags, so a step may hold one slide. Time is measured in the scale of the training patients: the loss is
    the same in days and in years.

    Columns: `risk`, the share of the time up to the end of the grid that is expected to be lost, and s_<time>.
    """

    kind: ClassVar[str] = "survival_parametric"
    marginal: Tensor
    times: Tensor

    def __init__(self, *, grid: tuple[float, ...], components: int = 3) -> None:
        super().__init__()
        if components < 1:
            raise SettingsError(f"task.options.components = {components}: a mixture has one component or more.")
        self.set_times(grid)
        self.components = components
        self.num_outputs = 3 * components
        self.explained = ("higher risk",)
        self.register_buffer("times", torch.tensor(self.grid), persistent=False)
        self.register_buffer("marginal", torch.tensor([math.log(self.grid[-1]), 1.0]))  # log scale, shape

    def loss(self, logits: Float[Tensor, "b k"], target: Target) -> tuple[Float[Tensor, b], Float[Tensor, b]]:
        assert target.event is not None
        u = self._log_time(target.y)
        log_weight, log_scale, shape = self._components(logits)
        steep = (shape * (u[:, None] - log_scale)).clamp(max=_STEEPEST)
        log_survival = -steep.exp()
        log_density = shape.log() + steep - u[:, None] + log_survival
        seen = torch.where((target.event > 0)[:, None], log_density, log_survival)
        found = (log_weight + seen).logsumexp(1)
        return -found, torch.ones_like(found)

    def predictions(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b c"]:
        risk = share_lost(1 - self._survival(logits, self.times), self.times)
        return torch.cat([risk[:, None], self._survival(logits, self.shown)], 1)

    def named(self, times: Sequence[float]) -> tuple[str, ...]:
        return ("risk", *(at_time("s", time) for time in times))

    def score(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b 1"]:
        return self.predictions(logits)[:, :1]

    def fit_target(self, target: Target, groups: list[str]) -> None:
        one = of_patients(target, groups)
        assert one.event is not None
        self.marginal.copy_(weibull(one.y, one.event > 0))

    def card(self) -> dict[str, Any]:
        return {"grid": list(self.grid), "components": self.components}

    def _survival(self, logits: Float[Tensor, "b k"], times: Float[Tensor, g]) -> Float[Tensor, "b g"]:
        log_weight, log_scale, shape = self._components(logits)
        u = self._log_time(times)
        steep = (shape[:, None] * (u[None, :, None] - log_scale[:, None])).clamp(max=_STEEPEST)  # (b, g, j)
        return (log_weight[:, None] - steep.exp()).logsumexp(2).exp()

    def _log_time(self, time: Float[Tensor, n]) -> Float[Tensor, n]:
        return time.to(self.marginal.dtype).log() - self.marginal[0]

    def _components(
        self, logits: Float[Tensor, "b k"]
    ) -> tuple[Float[Tensor, "b j"], Float[Tensor, "b j"], Float[Tensor, "b j"]]:
        """log weight, log scale (0 is that of the training patients) and shape of each component."""
        weight, scale, shape = full(logits).unflatten(1, (3, -1)).unbind(1)
        # Components that start alike would stay alike.
        apart = torch.linspace(-0.5, 0.5, self.components, device=logits.device) if self.components > 1 else 0.0
        own = self.marginal[1]
        return functional.log_softmax(weight, 1), (scale + apart) / own, own * (1.5 * torch.tanh(shape)).exp()


def weibull(time: Float[Tensor, n], event: Tensor) -> Float[Tensor, 2]:
    """log scale and shape of the Weibull distribution that is most likely for these times, some of them censored.

    The shape solves sum(t^k log t) / sum(t^k) - 1/k = mean of log t over the events (Cohen 1965,
    https://doi.org/10.1080/00401706.1965.10490300), by bisection within 0.3 to 5; without events it is 1, and the scale
    is that of half an event.
    """
    log_t = time.double().log()
    events = int(event.sum())
    low, high = _SHAPES
    shape = 1.0
    if events:
        mean_of_events = float(log_t[event].mean())
        for _ in range(60):
            shape = (low + high) / 2
            weights = (shape * (log_t - log_t.max())).exp()
            if float((weights * log_t).sum() / weights.sum()) - 1 / shape > mean_of_events:
                high = shape
            else:
                low = shape
    log_scale = (torch.logsumexp(shape * log_t, 0) - math.log(events or 0.5)) / shape
    return torch.stack([log_scale, torch.tensor(shape, dtype=torch.float64, device=time.device)])
