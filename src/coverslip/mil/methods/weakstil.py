"""WeakSTIL: a score for each tile, and the slide's score is their mean.

Schirris et al.: WeakSTIL: weak whole-slide image level stromal tumor infiltrating lymphocyte scores are all you need,
SPIE Medical Imaging 2022, https://arxiv.org/abs/2109.05892. Its code is not public; written from the paper's idea.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coverslip.base.errors import SettingsError
from coverslip.mil.bags import BagOutput, Bags, LearningSet, StagedAggregator
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task
from coverslip.mil.tasks.regression import Regression
from coverslip.nn.layers import Projection, default_hidden
from coverslip.nn.segments import full, mean
from coverslip.train.objective import Objective

ENTRIES = {
    "weakstil": {
        "build": "WeakStil",
        "summary": "mean of bounded row scores; the map averages to the slide's value",
        "origin": "Schirris et al. 2022, arXiv:2109.05892",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class WeakStil(StagedAggregator):
    """A small network scores each row by itself; a bag's logits are the mean of its rows' scores.

        h = dropout(relu(P x))                           hidden
        f = W dropout(relu(Q h + q)) + c                 head
        row = f, or low + (high - low) sigmoid(f + f0)   regression between bounds, in the units of the target
        logits = mean of row over the bag

    Evidence is each row's own score: over a bag its mean is the bag's logits, exactly, so a map of values averages to
    the value of the slide. There is no attention: every row counts the same.

    It differs from `mean` by the hidden layer between projection and score, and by the bounds. In regression a row's
    score lies between `low` and `high`, in the target's units (a percentage: 0 and 100). Where neither is given, a
    target whose training values all lie in 0 to 1 is taken as a share and bounded by 0 and 1, and any other is not
    bounded. f0 is set so that an untrained network gives the mean of the training patients. Other tasks have no bounds:
    their logits are means of unbounded row scores. The distance is the task's: squared, or Huber's with
    `task.options.robust`, which suits skewed scores.

    The paper scores tiles of the tumour bed alone. What is tumour bed cannot be told from features: leave the other
    tiles out when tiles are planned, or the slide's score is a mean over all tissue.

    Nothing public says how the tile network looks or which loss it has; both are choices made here. `hidden` is 512, or
    twice the width of narrower features but at least 128; `head` 128; `dropout` .25.
    """

    start: Tensor
    span: Tensor
    shift: Tensor

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        hidden: int | None = None,
        head: int = 128,
        dropout: float = 0.25,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        super().__init__()
        if (low is None) != (high is None):
            raise ValueError("a row score has two bounds or none; give both low and high")
        if low is not None and high is not None and low >= high:
            raise ValueError("low has to be below high")
        self.width = default_hidden(dim) if hidden is None else hidden
        self.bounds = None if low is None or high is None else (float(low), float(high))
        self.projection = Projection(dim, self.width, dropout=dropout)
        self.score = nn.Sequential(Projection(self.width, head, dropout=dropout), nn.Linear(head, num_outputs))
        # In logits: a bounded row score is start + span sigmoid(f + shift); span 0 means no bounds.
        self.register_buffer("start", torch.zeros(()))
        self.register_buffer("span", torch.zeros(()))
        self.register_buffer("shift", torch.zeros(()))

    def project(self, x: Tensor) -> Tensor:
        h: Tensor = self.projection(x)
        return h

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        f = full(self.score(bags.x))  # (m, k)
        bounded = self.start + self.span * torch.sigmoid(f + self.shift)
        rows = torch.where(self.span > 0, bounded, f)
        return BagOutput(mean(rows, bags.segments), mean(bags.x, bags.segments), evidence=rows)

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective | None:
        """None: training is the plain step. This is where the bounds become logits, which depend on the target.

        Raises:
            SettingsError: bounds and a task without values, or a training value beyond the bounds.
        """
        if not isinstance(task, Regression):
            if self.bounds is not None:
                raise SettingsError(
                    f"aggregator.options.low and high bound a row's value, and task {task.kind!r} has no values.",
                    fix='Leave them out, or set task.kind = "regression".',
                )
            return None
        values = learns.target.y[torch.isfinite(learns.target.y)].double()
        if (bounds := self.bounds or _share(values)) is None:
            return None
        low, high = bounds
        if len(values) and not low <= float(values.min()) <= float(values.max()) <= high:
            raise SettingsError(
                f"aggregator.options.low = {low:g} and high = {high:g}: training values go from "
                f"{float(values.min()):g} to {float(values.max()):g}, and a mean of bounded rows cannot reach beyond.",
                fix="Give bounds that hold all values, or leave both out.",
            )
        middle = ((task.mean.double() - low) / (high - low)).clamp(0.01, 0.99)
        self.start.copy_((low - task.mean) / task.sd)
        self.span.copy_((high - low) / task.sd)
        self.shift.copy_(torch.logit(middle))
        return None


def _share(values: Tensor) -> tuple[float, float] | None:
    """0 and 1 where all values lie between them."""
    return (0.0, 1.0) if len(values) and bool(((values >= 0) & (values <= 1)).all()) else None
