"""PseMix: pseudo-bags of two slides make one bag, whose target is mixed as its content is.

Liu, Ji, Zhang, Ye: Pseudo-bag mixup augmentation for multiple instance learning-based whole slide image classification,
IEEE TMI 2024, https://arxiv.org/abs/2306.16180. Written from the paper's description.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from coverslip.base.errors import SettingsError
from coverslip.mil.augment.contract import Augment, PerBag, beside, rows_of
from coverslip.mil.bags import Bags, pack
from coverslip.mil.source import LabelledBags
from coverslip.mil.target import Mixture

ENTRIES = {
    "psemix": {
        "build": "PseMix",
        "summary": "pseudo-bags of two slides in one bag, targets mixed by content",
        "origin": "Liu et al. 2024, arXiv:2306.16180",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class PseMix(Augment):
    """Bags of `pseudo_bags` parts, of which lambda come from one slide and the rest from another.

    A slide's rows are sorted into `phenotypes` by their cosine with the slide's mean row, in even shares; then, 8
    times, each row moves to the phenotype whose mean it is nearest to in angle. Each phenotype is dealt evenly to the
    pseudo-bags, so every pseudo-bag is a small likeness of its slide. One lambda a step, Beta(alpha, alpha) in steps of
    1 / pseudo_bags; the partner is another bag of the step. With probability `rate` a bag takes that many of its own
    pseudo-bags and the others from its partner; else it stays whole, or, with `otherwise` "part" as published, keeps
    that many of its own. The target's share of a slide is the part of its rows that came, against the part of the
    partner's that came: lambda where rows divide evenly, and still right where a slide has fewer rows than pseudo-bags.

    The first of a mixed bag's two targets is the one with the larger share. Published values: 30 pseudo-bags, 8
    phenotypes, alpha 1, rate .4. Ours differ in one: `otherwise` is "whole", since a small part of a positive slide may
    hold nothing positive. Rows are compared in standard deviations of the training rows where `fit.standardise` is on,
    and dealt to pseudo-bags anew at each step.

    Raises:
        SettingsError: pseudo_bags under 2, phenotypes under 1, alpha not over 0, or rate outside [0, 1].
    """

    least_bags: ClassVar[int] = 2

    def __init__(
        self,
        *,
        pseudo_bags: int = 30,
        phenotypes: int = 8,
        alpha: float = 1.0,
        rate: float = 0.4,
        otherwise: Literal["whole", "part"] = "whole",
    ) -> None:
        super().__init__()
        if pseudo_bags < 2 or phenotypes < 1 or alpha <= 0 or not 0 <= rate <= 1:
            raise SettingsError(
                f"fit.augment_options: psemix cannot mix with pseudo_bags = {pseudo_bags}, phenotypes = {phenotypes}, "
                f"alpha = {alpha}, rate = {rate}.",
                fix="Accepted: pseudo_bags from 2, phenotypes from 1, alpha over 0, rate from 0 to 1.",
            )
        self.pseudo_bags, self.phenotypes = pseudo_bags, phenotypes
        self.alpha, self.rate, self.otherwise = alpha, rate, otherwise
        self._kinds = PerBag(lambda bag: self._phenotype(self.measured(bag.x)).numpy().astype(np.int16))

    def __call__(self, batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
        bags = batch.bags.unpack()
        # min: a Beta may round to 1, which is all pseudo-bags already.
        taken = min(self.pseudo_bags, int(rng.beta(self.alpha, self.alpha) * (self.pseudo_bags + 1)))
        partners = _partners(len(bags), rng)
        dealt = [self._deal(bag, rng) for bag in bags]
        made, own, other, share = [], [], [], []
        for place, (bag, partner) in enumerate(zip(bags, partners)):
            mine = self._some(dealt[place], taken, rng)
            theirs = self._some(dealt[partner], self.pseudo_bags - taken, rng)
            mixed = rng.random() < self.rate and partner != place
            if mixed and len(mine) and len(theirs):
                part = len(mine) / len(bag.x), len(theirs) / len(bags[partner].x)
                made.append(beside(rows_of(bag, mine), rows_of(bags[partner], theirs)))
                lead = part[0] >= part[1]
                own.append(place if lead else partner)
                other.append(partner if lead else place)
                share.append(max(part) / sum(part))
            else:
                made.append(rows_of(bag, mine) if self.otherwise == "part" and len(mine) else bag)
                own.append(place)
                other.append(place)
                share.append(1.0)
        target = batch.target.take(torch.tensor(own))
        if own == other:
            return LabelledBags(pack(made), target)
        return LabelledBags(pack(made), target, Mixture(batch.target.take(torch.tensor(other)), torch.tensor(share)))

    def _deal(self, bag: Bags, rng: np.random.Generator) -> ndarray:
        """The pseudo-bag (n,) of each row of a bag."""
        kind = self._kinds(bag)
        dealt = np.empty(len(kind), np.int64)
        for one in np.unique(kind):
            rows = np.flatnonzero(kind == one)
            names = rng.permutation(self.pseudo_bags)
            dealt[rows] = names[rng.permutation(len(rows)) % self.pseudo_bags]
        return dealt

    def _phenotype(self, x: Float[Tensor, "n d"]) -> Int64[Tensor, n]:
        """The phenotype of each row: even shares along the cosine with the mean row, then refined."""
        unit = functional.normalize(x, dim=1)
        near = unit @ functional.normalize(x.mean(0), dim=0)
        kind = near.argsort().argsort() * self.phenotypes // len(x)
        for _ in range(_REFINEMENTS):
            means = torch.zeros(self.phenotypes, x.shape[1]).index_add_(0, kind, x)
            counts = torch.bincount(kind, minlength=self.phenotypes)
            likeness = unit @ functional.normalize(means, dim=1).T
            kind = likeness.masked_fill(counts == 0, -torch.inf).argmax(1)
        return kind

    def _some(self, dealt: ndarray, count: int, rng: np.random.Generator) -> Int64[Tensor, k]:
        """The rows of `count` of the pseudo-bags, in their order."""
        chosen = rng.permutation(self.pseudo_bags)[:count]
        return torch.from_numpy(np.flatnonzero(np.isin(dealt, chosen)))


# Times that rows move to the nearest phenotype.
_REFINEMENTS = 8


def _partners(count: int, rng: np.random.Generator) -> list[int]:
    """Another bag for each bag; its own for a single one."""
    order = rng.permutation(count)
    return [int(p) for p in order[(np.argsort(order) + 1) % count]]
