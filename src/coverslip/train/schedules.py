"""Schedules as pure functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from typing import Literal


def linear(start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at 1, and `end` beyond."""
    return start + (end - start) * min(max(progress, 0.0), 1.0)


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at 1 along half a cosine, and `end` beyond."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


def warm_up(step: int, total: int, warmup: float) -> float:
    """The factor of the warm-up: rises in equal steps to 1 over the first `warmup` of all steps; never 0."""
    steps = max(1, round(warmup * total))
    return min(1.0, (step + 1) / steps)


def rate_factor(step: int, total: int, *, warmup: float, schedule: Literal["cosine", "constant"]) -> float:
    """What the peak learning rate is multiplied with at optimiser step `step` (from 0) of `total`."""
    start = max(1, round(warmup * total))
    if step < start or schedule == "constant":
        return warm_up(step, total, warmup)
    return cosine(1.0, 0.0, (step - start) / max(1, total - start))
