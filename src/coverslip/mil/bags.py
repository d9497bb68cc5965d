"""What MIL methods get and give: packed `Bags` in, one `BagOutput` out, and the `Aggregator` contract between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from coverslip.base.errors import FeatureError
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task
from coverslip.nn.segments import Segments, total
from coverslip.train.objective import Objective


@dataclass(frozen=True)
class Bags:
    """B bags of rows, packed: bag b has the rows offsets[b] to offsets[b+1] of `x`, and is named slides[b].

    `x` may be float16 as it lies on disk; statistics and networks compute in float32. `xy_um` is each tile's centre in
    µm, or None where the feature files keep no positions. `keys` is each row's place among all rows of the source it
    comes from, for methods that remember something of single rows; None for rows that come from nowhere, such as
    synthetic ones. One slide is a `Bags` of one.

    Raises:
        FeatureError: a bag without rows, named.
    """

    x: Float[Tensor, "m d"]
    offsets: Int64[Tensor, b + 1]
    xy_um: Float[Tensor, "m 2"] | None
    slides: tuple[str, ...]
    keys: Int64[Tensor, m] | None = None

    def __post_init__(self) -> None:
        assert self.x.ndim == 2 and self.x.is_floating_point(), (self.x.shape, self.x.dtype)
        assert self.offsets.dtype == torch.int64 and self.offsets.shape == (len(self.slides) + 1,), self.offsets
        assert self.xy_um is None or self.xy_um.shape == (len(self.x), 2), self.xy_um.shape
        assert self.keys is None or self.keys.shape == (len(self.x),), self.keys.shape
        # Looking at values on a GPU would stall it; bags are made on the CPU and looked at there.
        if self.offsets.device.type == "cpu":
            assert self.offsets[0] == 0 and self.offsets[-1] == len(self.x), (self.offsets, len(self.x))
            lengths = self.offsets.diff()
            assert bool((lengths >= 0).all()), self.offsets
            if bool((lengths == 0).any()):
                empty = self.slides[int(torch.nonzero(lengths == 0)[0])]
                raise FeatureError("has no rows of features.", slide=empty, fix="Leave it out, or lower min_tissue.")

    def __len__(self) -> int:
        return len(self.slides)

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.x.shape[1]

    @cached_property
    def segments(self) -> Segments:
        """Which rows are whose, for the operations of `coverslip.nn.segments`."""
        return Segments(self.offsets, len(self.x))

    @property
    def seg(self) -> Int64[Tensor, m]:
        """The bag of each row."""
        return self.segments.ids

    @property
    def lengths(self) -> Int64[Tensor, b]:
        """Rows of each bag."""
        return self.segments.lengths

    def to(self, device: torch.device | str) -> Bags:
        """The same bags on a device."""
        x, xy_um, keys = self._rows(lambda values: values.to(device, non_blocking=True))
        return Bags(x, self.offsets.to(device, non_blocking=True), xy_um, self.slides, keys)

    def with_x(self, x: Float[Tensor, "m e"]) -> Bags:
        """The same bags with other rows of the same number: what a projection or a standardiser makes."""
        assert len(x) == len(self.x)
        return replace(self, x=x)

    def take(self, keep: Bool[Tensor, m]) -> Bags:
        """The bags with only the rows where `keep` is True.

        Raises:
            FeatureError: a bag would be left without rows.
        """
        kept = total(keep.to(torch.int64), self.segments)
        x, xy_um, keys = self._rows(lambda values: values[keep])
        return Bags(x, torch.cat([kept.new_zeros(1), kept.cumsum(0)]), xy_um, self.slides, keys)

    def unpack(self) -> list[Bags]:
        """Each bag by itself."""
        ends = self.offsets.tolist()
        return [self._part(name, start, end) for name, start, end in zip(self.slides, ends, ends[1:])]

    def _part(self, name: str, start: int, end: int) -> Bags:
        x, xy_um, keys = self._rows(lambda values: values[start:end])
        return Bags(x, self.offsets.new_tensor([0, end - start]), xy_um, (name,), keys)

    def _rows(self, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What is known of rows, changed alike: x, xy_um, keys."""
        xy_um = None if self.xy_um is None else change(self.xy_um)
        return change(self.x), xy_um, None if self.keys is None else change(self.keys)


def pack(bags: Sequence[Bags]) -> Bags:
    """All bags in one packed value, in this order; positions and keys only where all have them.

    Raises:
        FeatureError: bags whose rows differ in width, both named.
    """
    first = bags[0]
    for other in bags:
        if other.dim != first.dim:
            raise FeatureError(
                f"has rows of width {other.dim}, but {first.slides[0]} has {first.dim}.",
                slide=other.slides[0],
                fix="Features of one study come from one encoder: embed again or remove the odd file.",
                code="width",
            )
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cat([b.lengths for b in bags]).cumsum(0)])
    return Bags(
        torch.cat([b.x for b in bags]),
        offsets,
        _joined([b.xy_um for b in bags]),
        tuple(name for b in bags for name in b.slides),
        _joined([b.keys for b in bags]),
    )


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if len(known) == len(parts) else None


@dataclass(frozen=True)
class BagOutput:
    """What a method says about B bags of M rows in all. At least one of `attention` and `evidence` is there.

    `attention` sums to 1 over each bag, per branch. `evidence` is what each row adds to the class scores of its bag;
    each method's docstring says how the two hang together. `losses` are extra terms the method brings, weighted.
    `branches` are further logits of the bags by name: training may judge them too, evaluation never sees them.
    """

    logits: Float[Tensor, "b k"]
    embedding: Float[Tensor, "b e"]
    attention: Float[Tensor, "m c"] | None = None
    evidence: Float[Tensor, "m k"] | None = None
    losses: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    branches: Mapping[str, Float[Tensor, "b k"]] = field(default_factory=dict)


@dataclass(frozen=True)
class LearningSet:
    """What a method may know of the bags it is going to learn from, before the first step."""

    num_bags: int
    num_rows: int
    """Rows of all bags; the keys of `Bags.keys` are below it."""
    target: Target
    """Of every bag."""


class Aggregator(nn.Module, ABC):
    """A MIL method: rows of features to one prediction a bag. Built as `build(dim, num_outputs, **options)`.

    A method that trains in its own way (a teacher, a queue, masks, parameter groups) returns its own `Objective` from
    `objective`; in evaluation only `forward` is called, so inference is that of the plain method by construction.
    A method around another one, its `host`, has an option of that name and takes the host's options as its own.
    """

    uses_positions: bool = False
    """Needs `xy_um`; a method that only depends on the order of rows says False."""
    order_matters: bool = False
    """The order of a bag's rows changes the output; most methods see a bag as a set."""
    least_bags: int = 1
    """Bags that a training step needs; more than 1 where the method compares bags."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """How the method wants its training bags drawn where the user does not say: each once, or classes alike."""

    @abstractmethod
    def forward(self, bags: Bags, target: Target | None = None) -> BagOutput:
        """The output for these bags. `target` is given in training alone, for methods whose extra losses need it."""

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"] | None:
        """The logits of bag embeddings, where `BagOutput.logits` depend on `BagOutput.embedding` alone; None where they
        do not. With it training can judge embeddings that no bag has."""
        return None

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective | None:
        """How this method is trained, where the plain supervised step is not it.

        `network` is the whole model around this aggregator (bags in, `BagOutput` out; its parts are `standardise` and
        `aggregator`); the objective owns it.
        """
        return None


class StagedAggregator(Aggregator):
    """A method in two stages: rows one by one, then bags. What masks, mixes or adds projected rows works between them.

    `width` is the width of a projected row.
    """

    width: int

    @abstractmethod
    def project(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m width"]:
        """Projected rows; a row does not see the others."""

    @abstractmethod
    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        """The output for bags of projected rows."""

    def forward(self, bags: Bags, target: Target | None = None) -> BagOutput:
        return self.aggregate(bags.with_x(self.project(bags.x)), target)
