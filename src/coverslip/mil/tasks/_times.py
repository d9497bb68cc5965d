"""What tasks about times share: names of the columns of curves, and one number out of a curve."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from coverslip.base.errors import SettingsError


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
