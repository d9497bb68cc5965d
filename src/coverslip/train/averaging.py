"""Averages of the weights of many steps: what is tuned on and kept in their place."""

from __future__ import annotations

import copy
from abc import abstractmethod

import torch
from torch import Tensor, nn

from coverslip.train.objective import Around, Objective


class Averaged(Around):
    """`inner` trained as ever; `network` is a copy of its network that holds an average of its weights.

    The average moves after each optimiser step, and after whatever `inner` does then. Buffers (statistics, prototypes)
    are those of the latest step. Average and count are part of the state, so a resumed run goes on with them.
    """

    count: Tensor

    def __init__(self, inner: Objective) -> None:
        super().__init__(inner)
        self._average = copy.deepcopy(inner.network).requires_grad_(False)
        self.register_buffer("count", torch.zeros((), dtype=torch.float32))

    @property
    def network(self) -> nn.Module:
        return self._average

    def after_step(self, progress: float) -> None:
        self.inner.after_step(progress)
        with torch.no_grad():
            part = self._part(progress)
            for mine, theirs in zip(self._average.parameters(), self.inner.network.parameters()):
                mine.add_((theirs - mine) * part.to(mine.device, mine.dtype))
            for own, latest in zip(self._average.buffers(), self.inner.network.buffers()):
                own.copy_(latest)

    @abstractmethod
    def _part(self, progress: float) -> Tensor:
        """How far the average moves to the weights of this step: 0 not at all, 1 to them."""


class MovingAverage(Averaged):
    """The exponential moving average: at each step the average keeps `decay` of itself.

    While there are fewer than 1 / (1 - decay) steps it is the plain mean of all of them, so that the weights a run
    starts with have no part in it. Polyak and Juditsky 1992, https://doi.org/10.1137/0330046, say why an average is
    better than its last member.
    """

    def __init__(self, inner: Objective, decay: float) -> None:
        super().__init__(inner)
        self.decay = decay

    def _part(self, progress: float) -> Tensor:
        self.count += 1
        return (1 / self.count).clamp(min=1 - self.decay)


class Soup(Averaged):
    """The plain mean of the weights of all steps after `start` (a part of all steps); until then the last weights.

    As in stochastic weight averaging (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407), but of every step and
    with the learning rate's own schedule; a soup (Wortsman et al. 2022, https://arxiv.org/abs/2203.05482) of one run.
    """

    def __init__(self, inner: Objective, start: float) -> None:
        super().__init__(inner)
        self.start = start

    @property
    def begins(self) -> float:
        return max(self.start, self.inner.begins)

    def _part(self, progress: float) -> Tensor:
        if progress >= self.start:
            self.count += 1
        return 1 / self.count.clamp(min=1)
