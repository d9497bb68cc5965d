"""Planted bags: the simplest data on which learning from bags can be seen to work, with the answer known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from coverslip.base.random import stream


@dataclass(frozen=True)
class PlantedBags:
    """Bags packed one behind the other: rows `offsets[i]` to `offsets[i + 1]` of `x` are bag i.

    `y` (b,) is a bag's class; `witness` (m,) tells which rows were drawn from its class and not from the background;
    `xy` (m, 2) are level-0 positions of 448 px tiles on a square grid, witnesses side by side.
    """

    x: Float32[ndarray, "m d"]
    offsets: Int64[ndarray, b + 1]
    y: Int64[ndarray, b]
    witness: Bool[ndarray, m]
    xy: Int64[ndarray, "m 2"]

    def bag(self, index: int) -> Float32[ndarray, "n d"]:
        return self.x[self.offsets[index] : self.offsets[index + 1]]


def make_bags(
    bags: int = 60,
    *,
    rows: tuple[int, int] = (40, 120),
    dim: int = 32,
    classes: int = 2,
    witness_rate: float = 0.1,
    shift: float = 2.0,
    seed: int = 0,
) -> PlantedBags:
    """Gaussian bags in which a part of the rows gives the class away.

    Every row is standard normal. In a bag of class k > 0, `witness_rate` of the rows (one at least) are moved by
    `shift` standard deviations along the k-th of a set of orthogonal directions; class 0 has none. Classes take turns,
    so they are balanced. `rows` is the least and largest size of a bag, both possible.
    """
    if classes - 1 > dim or classes < 2:
        raise ValueError(f"classes lies between 2 and dim + 1, not {classes} with dim {dim}")
    rng = stream(seed, "bags")
    directions = np.linalg.qr(rng.standard_normal((dim, classes - 1)))[0].T
    sizes = rng.integers(rows[0], rows[1] + 1, bags)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    x = rng.standard_normal((offsets[-1], dim))
    y = np.arange(bags, dtype=np.int64) % classes
    witness = np.zeros(offsets[-1], bool)
    xy = np.zeros((offsets[-1], 2), np.int64)
    for i, size in enumerate(sizes):
        side = int(np.ceil(np.sqrt(size)))
        cells = np.stack(np.divmod(np.arange(size), side)[::-1], 1)
        xy[offsets[i] : offsets[i + 1]] = cells * 448
        if y[i] == 0:
            continue
        count = max(1, round(witness_rate * size))
        centre = cells[rng.integers(size)]
        nearest = np.argsort(np.hypot(*(cells - centre).T), kind="stable")[:count]
        witness[offsets[i] + nearest] = True
        x[offsets[i] + nearest] += shift * directions[y[i] - 1]
    return PlantedBags(x.astype(np.float32), offsets, y, witness, xy)
