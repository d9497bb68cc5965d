"""SMOTE on bags: a new bag of a class from the rows of two of its bags, or a point between their embeddings.

After Chawla, Bowyer, Hall, Kegelmeyer: SMOTE: synthetic minority over-sampling technique, JAIR 2002,
https://arxiv.org/abs/1106.1813, which puts new points between two points of a rare class. Between two bags lies a bag
with rows of both, whose rows stay real; between their embeddings lies a point as in the paper.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from coverslip.base.errors import SettingsError
from coverslip.mil.augment.contract import Augment, beside, rows_of, same_class
from coverslip.mil.bags import Bags, pack
from coverslip.mil.parts.embedding_smote import EmbeddingSmote
from coverslip.mil.source import LabelledBags
from coverslip.mil.tasks.contract import Task
from coverslip.train import Objective

ENTRIES = {
    "smote": {
        "build": "Smote",
        "summary": "half the rows of two bags of one class, or points between their embeddings",
        "origin": "after Chawla et al. 2002, arXiv:1106.1813",
        "licence": "Apache-2.0",
        "needs": "a target with classes",
    }
}


class Smote(Augment):
    """In `space` "rows" (default): with probability `rate` (.5) a bag becomes half of its rows and half of those of
    another bag of its class.

    The halves are drawn evenly, and rounded up, so a bag of one row gives it. Rows stay in their order and keep their
    keys, and the second half's positions stand beside the first's. With `fit.sampling = "balanced"`, which draws the
    bags of a rare class several times, each time makes another bag: together they over-sample as the paper means it.

    In `space` "embeddings": bags stay as they are, and the classifier is also trained on points between a bag's
    embedding and one of the `k` (5) nearest of its class, with `weight` (1): `parts.embedding_smote.EmbeddingSmote`.
    For methods that have `classify`, which max, ins and weakstil cannot have.

    Nothing public says how SMOTE should work on bags.

    Raises:
        SettingsError: a rate outside [0, 1], k below 1, a weight not over 0, or an option of the other space.
    """

    least_bags: ClassVar[int] = 4
    needs_classes: ClassVar[bool] = True

    def __init__(
        self,
        *,
        space: Literal["rows", "embeddings"] = "rows",
        rate: float | None = None,
        k: int | None = None,
        weight: float | None = None,
    ) -> None:
        super().__init__()
        others = {"k": k, "weight": weight} if space == "rows" else {"rate": rate}
        for name, value in others.items():
            if value is not None:
                raise SettingsError(
                    f"fit.augment_options.{name} = {value}: it means nothing in space {space!r}.",
                    fix="Leave it out, or set the other space: rows has rate, embeddings has k and weight.",
                )
        self.space = space
        self.rate = 0.5 if rate is None else rate
        self.k = 5 if k is None else k
        self.weight = 1.0 if weight is None else weight
        if not 0 <= self.rate <= 1:
            raise SettingsError(f"fit.augment_options.rate = {rate}: accepted are numbers from 0 to 1.")
        if self.k < 1:
            raise SettingsError(f"fit.augment_options.k = {k}: accepted are whole numbers from 1.")
        if self.weight <= 0:
            raise SettingsError(f"fit.augment_options.weight = {weight}: accepted are numbers over 0.")

    def around(self, objective: Objective, task: Task) -> Objective:
        if self.space == "rows":
            return objective
        return EmbeddingSmote(objective, task, k=self.k, weight=self.weight)

    def __call__(self, batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
        if self.space == "embeddings":
            return batch
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
