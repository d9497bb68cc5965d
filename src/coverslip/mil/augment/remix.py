"""ReMix: bags reduced to prototypes, with prototypes of another bag of the class mixed in.

Yang, Chen, Zhao, Yang, Zhang, He, Yao: ReMix: a general and efficient framework for multiple instance learning based
whole slide image classification, MICCAI 2022, https://arxiv.org/abs/2207.01805. Written from the paper's formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from coverslip.base.errors import SettingsError
from coverslip.base.random import stream
from coverslip.mil.augment.contract import Augment, PerBag, same_class
from coverslip.mil.bags import Bags, pack
from coverslip.mil.source import LabelledBags
from coverslip.nn.kmeans import kmeans

ENTRIES = {
    "remix": {
        "build": "ReMix",
        "summary": "bags of prototypes, mixed with those of a bag of the same class",
        "origin": "Yang et al. 2022, arXiv:2207.01805",
        "licence": "Apache-2.0",
        "needs": "a target with classes",
    }
}

Mode = Literal["append", "replace", "interpolate", "covary", "joint"]
_SINGLE: tuple[Mode, ...] = ("append", "replace", "interpolate", "covary")


@dataclass(frozen=True)
class _Prototypes:
    """The mean row of each of K clusters of a bag, and the cluster of each row."""

    rows: Float[Tensor, "k d"]
    xy_um: Float[Tensor, "k 2"] | None
    cluster: Int64[Tensor, n]


class ReMix(Augment):
    """Bags of `prototypes` rows: means of the clusters of k-means, mixed with those of a partner of the same class.

    For each prototype q of a bag, with p the partner's nearest one and lambda drawn evenly from 0 to 1, once a bag:

        append       p joins the bag
        replace      p takes the place of q
        interpolate  (1 - lambda) q + lambda p joins the bag
        covary       q + lambda d joins the bag, d a draw from a normal distribution with the covariance of p's cluster
        joint        all four, each by itself

    each with probability `rate`: .5, and .1 in "joint", as published. A bag without a partner in the step is reduced
    and not mixed. Training sees prototypes, so a step costs next to nothing; evaluation sees all rows. Rows of such
    bags lie in no file: they have no keys, and stand at the mean position of their cluster, mixed ones at that of q.

    Published: 8 prototypes for Camelyon16, 1 for UniToPatho. The released code draws a partner from all training bags
    and may draw the bag itself; here it is another bag of the step. Clusters are measured in standard deviations of
    the training rows where `fit.standardise` is on.

    Raises:
        SettingsError: prototypes under 1, or rate outside [0, 1].
    """

    least_bags: ClassVar[int] = 4
    needs_classes: ClassVar[bool] = True

    def __init__(self, *, prototypes: int = 8, mode: Mode = "joint", rate: float | None = None) -> None:
        super().__init__()
        rate = (0.1 if mode == "joint" else 0.5) if rate is None else rate
        if prototypes < 1 or not 0 <= rate <= 1:
            raise SettingsError(
                f"fit.augment_options: remix cannot mix with prototypes = {prototypes}, rate = {rate}.",
                fix="Accepted: prototypes from 1, rate from 0 to 1.",
            )
        self.prototypes, self.mode, self.rate = prototypes, mode, rate
        self._reduced = PerBag(self._reduce)

    def __call__(self, batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
        bags = batch.bags.unpack()
        reduced = [self._reduced(bag) for bag in bags]
        made = []
        for place, partner in enumerate(same_class(batch.target.y, rng)):
            own = reduced[place]
            rows, xy_um = own.rows, own.xy_um
            if partner is not None:
                rows, stands = self._mix(own, reduced[partner], bags[partner], rng)
                xy_um = None if xy_um is None else xy_um[stands]
            made.append(Bags(rows, torch.tensor([0, len(rows)]), xy_um, bags[place].slides))
        return LabelledBags(pack(made), batch.target)

    def _reduce(self, bag: Bags) -> _Prototypes:
        # Drawn by the bag's name: it is reduced in one way, whenever that happens.
        cluster = kmeans(self.measured(bag.x), self.prototypes, stream(0, "prototypes", *bag.slides))
        counts = torch.bincount(cluster).unsqueeze(1)
        rows = torch.zeros(len(counts), bag.dim).index_add_(0, cluster, bag.x.float()) / counts
        if bag.xy_um is None:
            return _Prototypes(rows, None, cluster)
        return _Prototypes(rows, torch.zeros(len(counts), 2).index_add_(0, cluster, bag.xy_um) / counts, cluster)

    def _mix(
        self, own: _Prototypes, other: _Prototypes, partner: Bags, rng: np.random.Generator
    ) -> tuple[Float[Tensor, "m d"], Int64[Tensor, m]]:
        """The rows of the mixed bag, and the prototype whose place each has."""
        nearest = torch.cdist(self.measured(own.rows), self.measured(other.rows)).argmin(1)
        strength = rng.random()
        rows, joining, stands = own.rows.clone(), [], list(range(len(own.rows)))
        for mode in _SINGLE if self.mode == "joint" else (self.mode,):
            for place in np.flatnonzero(rng.random(len(rows)) < self.rate).tolist():
                p = int(nearest[place])
                if mode == "replace":
                    rows[place] = other.rows[p]
                    continue
                q = own.rows[place]
                if mode == "append":
                    joining.append(other.rows[p])
                elif mode == "interpolate":
                    joining.append(torch.lerp(q, other.rows[p], strength))
                else:
                    joining.append(q + strength * _shift(partner, other, p, rng))
                stands.append(place)
        return torch.cat([rows, torch.stack(joining)]) if joining else rows, torch.tensor(stands)


def _shift(bag: Bags, prototypes: _Prototypes, cluster: int, rng: np.random.Generator) -> Float[Tensor, d]:
    """A draw from a normal distribution with mean 0 and the covariance of a cluster's rows; zeros for one row."""
    rows = bag.x[prototypes.cluster == cluster].float()
    # A sum of deviations with normal weights has their covariance, which is never formed.
    weights = torch.from_numpy(rng.standard_normal(len(rows))).float() / max(1, len(rows) - 1) ** 0.5
    return weights @ (rows - prototypes.rows[cluster])
