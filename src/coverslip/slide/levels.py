"""Which stored level to read from, as pure functions of sizes and numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from coverslip.base.geometry import Size

# A level that is coarser than wanted by no more than this still serves: enlarging by 1 % loses nothing that can be
# seen, and reading the finer level would cost four to sixteen times as many pixels.
TOLERANCE = 0.01


def downsample_of(level: Size, base: Size) -> float:
    """How many level-0 pixels make one pixel of a level.

    Scanners halve an image again and again and drop or keep the odd last row, so that 5477 px become 2738. The ratio
    of the sizes (2.0004) is then wrong and the whole number is right: it is taken where both sides agree with it.
    """
    ratio = (base.width / level.width + base.height / level.height) / 2
    # Small levels fit several factors; scanners halve, so the power of two comes first.
    for factor in (2 ** round(math.log2(ratio)), round(ratio)):
        if factor >= 1 and all(
            side * factor - factor < whole < side * factor + factor for side, whole in zip(level, base)
        ):
            return float(factor)
    return ratio


def best_level(downsamples: Sequence[float], wanted: float) -> int:
    """Index of the coarsest level that is at least as fine as `wanted` (level-0 px per output px), within
    `TOLERANCE`; level 0 where all are coarser. `downsamples` may come in any order."""
    fine_enough = [i for i, d in enumerate(downsamples) if d <= wanted * (1 + TOLERANCE)]
    if not fine_enough:
        return min(range(len(downsamples)), key=downsamples.__getitem__)
    return max(fine_enough, key=downsamples.__getitem__)


def halvings_for(ratio: float, most: int) -> int:
    """How often a decoder may halve pixels that are to become `ratio` times smaller, so that none are enlarged."""
    return max(0, min(most, math.floor(math.log2(ratio) + 1e-9)))


def same_picture(level: Size, base: Size) -> bool:
    """True where a smaller image has the proportions of the base, give or take the pixel that halving drops."""
    if level.width > base.width or level.height > base.height:
        return False
    x, y = base.width / level.width, base.height / level.height
    slack = 0.02 + 2 / min(level.width, level.height)
    return abs(x / y - 1) <= slack
