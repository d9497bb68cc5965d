"""What tasks about times share: the times of their curves, names of columns, and one number out of a curve."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from coverslip.base.errors import SettingsError
from coverslip.mil.tasks.contract import Task


class CurveTask(Task):
    """A task that states curves. `grid` are the times that it learnt with, which its risk is about; `shown` those at
    which `predictions` states the curves: the same, until `at` asks for others."""

    grid: tuple[float, ...]
    shown: Tensor

    def set_times(self, grid: Sequence[float]) -> None:
        """Takes the times of the grid, and shows curves at them.

        Raises:
            SettingsError: there are none, or they do not rise from above 0.
        """
        self.grid = checked_grid(grid)
        self.register_buffer("shown", torch.tensor(self.grid), persistent=False)
        self.columns = self.named(self.grid)

    @abstractmethod
    def named(self, times: Sequence[float]) -> tuple[str, ...]:
        """The columns of predictions with curves at these times."""

    def at(self, times: Sequence[float]) -> Task:
        """A copy with curves at other times.

        Raises:
            SettingsError: there are none, or they do not rise from above 0.
        """
        shown = checked_grid(times)
        made = copy.deepcopy(self)
        made.shown, made.columns = self.shown.new_tensor(shown), self.named(shown)
        return made


def checked_grid(grid: Sequence[float]) -> tuple[float, ...]:
    """The times at which curves are stored.

    Raises:
        SettingsError: there are none, or they do not rise from above 0.
    """
    grid = tuple(map(float, grid))
    if not grid or grid[0] <= 0 or sorted(set(grid)) != list(grid):
        raise SettingsError(
            f"The times of survival curves {list(grid)} do not rise from above 0.", fix="Set task.times."
        )
    return grid


def at_time(prefix: str, time: float) -> str:
    """The name of the column of a curve at one time: "s_365"."""
    return f"{prefix}_{time:.10g}"


def share_lost(incidence: Float[Tensor, "... g"], grid: Float[Tensor, g]) -> Float[Tensor, ...]:
    """The share of the time up to the end of the grid that is expected to be lost to the event: the area under its
    cumulative incidence (starting at 0), by trapezoids, over the length of the grid. 0 none, 1 all."""
    times = torch.cat([grid.new_zeros(1), grid])
    values = torch.cat([torch.zeros_like(incidence[..., :1]), incidence], -1)
    area = ((values[..., 1:] + values[..., :-1]) / 2 * times.diff()).sum(-1)
    return area / times[-1]


def full(logits: Tensor) -> Tensor:
    """Single precision at least: exponentials and logarithms are not made in half."""
    return logits if logits.dtype == torch.float64 else logits.float()
