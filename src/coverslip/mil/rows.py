"""Rows of slides as tensors: read once where they fit into memory, checked once, summed up once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from coverslip.store import Features, check_rows


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of some rows, which add up with those of other rows."""

    count: int
    mean: Float64[Tensor, d]
    squares: Float64[Tensor, d]

    @classmethod
    def none(cls, dim: int) -> Moments:
        zeros = torch.zeros(dim, dtype=torch.float64)
        return cls(0, zeros, zeros)

    @classmethod
    def of(cls, x: Float[Tensor, "n d"]) -> Moments:
        wide = x.double()
        mean = wide.mean(0)
        return cls(len(x), mean, (wide - mean).square().sum(0))

    def with_other(self, other: Moments) -> Moments:
        """The moments of both together (Chan, Golub, LeVeque 1983): exact where sums of squares would cancel."""
        count = self.count + other.count
        step = other.mean - self.mean
        return Moments(
            count,
            self.mean + step * (other.count / count),
            self.squares + other.squares + step.square() * (self.count * other.count / count),
        )

    @property
    def sd(self) -> Float64[Tensor, d]:
        """Standard deviation over rows."""
        return (self.squares / max(1, self.count)).sqrt()


class Rows:
    """Rows and positions of slides; keeps what it read until `budget` bytes are kept.

    Raises:
        FeatureError: rows that are NaN or infinite, the first time they are read.
    """

    def __init__(self, budget: int) -> None:
        self._budget = self._left = budget
        self._kept: dict[str, Tensor] = {}
        self._positions: dict[str, Tensor | None] = {}
        self._checked: set[str] = set()
        self._moments: dict[str, Moments] = {}

    def __reduce__(self) -> tuple[object, ...]:
        # What was read stays here: another process reads it from the same files.
        return Rows, (self._budget,)

    def of(self, features: Features, rows: Int64[Tensor, k] | None = None) -> Float[Tensor, "n d"]:
        """The rows of a slide, all or some."""
        kept = self._kept.get(features.slide)
        if kept is not None:
            return kept if rows is None else kept[rows]
        if features.slide not in self._checked:
            check_rows(features)
            self._checked.add(features.slide)
        x = features.x
        if x.nbytes <= self._left:
            self._left -= x.nbytes
            self._kept[features.slide] = torch.from_numpy(np.array(x))
            return self.of(features, rows)
        # Only the rows asked for are touched in the mapped file.
        return torch.from_numpy(np.array(x if rows is None else x[rows.numpy()]))

    def positions(self, features: Features, rows: Int64[Tensor, k] | None = None) -> Float[Tensor, "n 2"] | None:
        """Centres of tiles in µm, all or some, or None where the file has no positions."""
        if features.slide not in self._positions:
            centres = features.centres_um
            self._positions[features.slide] = None if centres is None else torch.from_numpy(centres)
        xy_um = self._positions[features.slide]
        return xy_um if xy_um is None or rows is None else xy_um[rows]

    def right_edge(self, features: Features) -> float | None:
        """The largest x of a slide's centres in µm."""
        xy_um = self.positions(features)
        return None if xy_um is None else float(xy_um[:, 0].max())

    def moments(self, features: Features) -> Moments:
        """The moments of a slide's rows; the folds of a study share them."""
        if features.slide not in self._moments:
            self._moments[features.slide] = Moments.of(self.of(features))
        return self._moments[features.slide]
