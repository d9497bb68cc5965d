"""What an augment is: a training batch in, another one out, on the CPU and before any network sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from coverslip.mil.bags import Bags, pack
from coverslip.mil.source import SLIDE_GAP_UM, LabelledBags
from coverslip.mil.tasks.contract import Task
from coverslip.nn.segments import full
from coverslip.train import Objective

T = TypeVar("T")


class Augment(ABC):
    """Mixes the bags of a training batch; evaluation never meets it. Built as `build(**options)`.

    It gets rows as they lie in the feature files, float16 mostly, and gives as many bags, each with a row at least.
    Real rows keep their bits, keys and positions; where a bag holds a row that lies in no file, no row of the batch has
    a key. Where targets mix, the batch has a `Mixture`, whose share is that of the content. A bag without a partner
    stays as it is. Chance comes from the generator alone. One that mixes what the method makes of bags changes the
    training step in place of the batch (`around`).
    """

    least_bags: ClassVar[int] = 2
    """Bags of a step that it needs to find partners."""
    needs_classes: ClassVar[bool] = False
    """Whether partners are of the same class, so that the target must have classes."""

    def __init__(self) -> None:
        self._mean: Tensor | None = None
        self._sd: Tensor | None = None

    @abstractmethod
    def __call__(self, batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
        """The batch to train on instead of this one."""

    def around(self, objective: Objective, task: Task) -> Objective:
        """The training step with what the augment adds to it; most add nothing. Its network is a `SlideModel`.

        Raises:
            SettingsError: the method does not go with it.
        """
        return objective

    def learn(self, mean: Float[Tensor, d], sd: Float[Tensor, d]) -> None:
        """Takes over the mean and spread of the training rows, in whose units distances between rows are measured."""
        self._mean, self._sd = mean, torch.where(sd > 0, sd, torch.ones_like(sd))

    def measured(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Rows in float32 as distances between them are measured."""
        return full(x) if self._mean is None or self._sd is None else (full(x) - self._mean) / self._sd


class PerBag(Generic[T]):
    """What depends on a bag's rows alone, worked out once for a bag that comes again with the same rows."""

    def __init__(self, work: Callable[[Bags], T]) -> None:
        self._work = work
        self._kept: dict[str, tuple[Tensor, T]] = {}

    def __call__(self, bag: Bags) -> T:
        (name,) = bag.slides
        if bag.keys is None:
            return self._work(bag)
        kept = self._kept.get(name)
        if kept is None or not torch.equal(kept[0], bag.keys):
            # Rows are kept under their keys, not by their values; a source gives each row one key.
            kept = self._kept[name] = (bag.keys, self._work(bag))
        return kept[1]


def rows_of(bag: Bags, rows: Int64[Tensor, k]) -> Bags:
    """The bag with these of its rows, in this order."""
    keys = None if bag.keys is None else bag.keys[rows]
    xy_um = None if bag.xy_um is None else bag.xy_um[rows]
    return Bags(bag.x[rows], bag.offsets.new_tensor([0, len(rows)]), xy_um, bag.slides, keys)


def beside(a: Bags, b: Bags) -> Bags:
    """The rows of two bags in one: those of `b` behind those of `a`, their positions to the right of them."""
    if a.xy_um is not None and b.xy_um is not None:
        edge = a.xy_um[:, 0].max() + SLIDE_GAP_UM
        b = Bags(b.x, b.offsets, b.xy_um + torch.stack([edge, edge.new_zeros(())]), b.slides, b.keys)
    both = pack([a, b])
    name = a.slides[0] if a.slides == b.slides else f"{a.slides[0]}+{b.slides[0]}"
    return Bags(both.x, both.offsets[[0, 2]], both.xy_um, (name,), both.keys)


def same_class(y: Int64[Tensor, b], rng: np.random.Generator) -> list[int | None]:
    """Another bag of the same class for each bag, drawn evenly; None for one that is alone in its class."""
    classes = y.numpy()
    others = [np.setdiff1d(np.flatnonzero(classes == own), [place]) for place, own in enumerate(classes)]
    return [int(rng.choice(found)) if len(found) else None for found in others]
