"""SMOTE on bags: a new bag of a class from the rows of two of its bags.

After Chawla, Bowyer, Hall, Kegelmeyer: SMOTE: synthetic minority over-sampling technique, JAIR 2002,
https://arxiv.org/abs/1106.1813, which puts new points between two points of a rare class. Between two bags lies a bag
with rows of both; its rows stay real.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from coverslip.base.errors import SettingsError
from coverslip.mil.augment.contract import Augment, beside, rows_of, same_class
from coverslip.mil.bags import Bags, pack
from coverslip.mil.source import LabelledBags

ENTRIES = {
    "smote": {
        "build": "Smote",
        "summary": "a bag of half the rows of two bags of one class",
        "origin": "after Chawla et al. 2002, arXiv:1106.1813",
        "licence": "Apache-2.0",
        "needs": "a target with classes",
    }
}


class Smote(Augment):
    """With probability `rate` (.5) a bag becomes half of its rows and half of those of another bag of its class.

    The halves are drawn evenly, and rounded up, so a bag of one row gives it. Rows stay in their order and keep their
    keys, and the second half's positions stand beside the first's. With `fit.sampling = "balanced"`, which draws the
    bags of a rare class several times, each time makes another bag: together they over-sample as the paper means it.

    Nothing public says how SMOTE should work on bags; the other way, a point between the embeddings of two bags, would
    need every method's classifier to stand apart from its pooling, which the contract of methods does not ask.

    Raises:
        SettingsError: a rate outside [0, 1].
    """

    least_bags: ClassVar[int] = 4
    needs_classes: ClassVar[bool] = True

    def __init__(self, *, rate: float = 0.5) -> None:
        super().__init__()
        if not 0 <= rate <= 1:
            raise SettingsError(f"fit.augment_options.rate = {rate}: accepted are numbers from 0 to 1.")
        self.rate = rate

    def __call__(self, batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
        bags = batch.bags.unpack()
        partners = same_class(batch.target.y, rng)
        made = [
            beside(_half(bag, rng), _half(bags[partner], rng))
            if partner is not None and rng.random() < self.rate
            else bag
            for bag, partner in zip(bags, partners)
        ]
        return LabelledBags(pack(made), batch.target)


def _half(bag: Bags, rng: np.random.Generator) -> Bags:
    count = len(bag.x)
    drawn: Int64[Tensor, k] = torch.from_numpy(np.sort(rng.choice(count, (count + 1) // 2, replace=False)))
    return rows_of(bag, drawn)
