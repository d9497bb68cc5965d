"""What MIL methods get and give: packed `Bags` in, one `BagOutput` out, and the `Aggregator` contract between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

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
    µm, or None where the feature files keep no positions. One slide is a `Bags` of one.

    Raises:
        FeatureError: a bag without rows, named.
    """

    x: Float[Tensor, "m d"]
    offsets: Int64[Tensor, b + 1]
    xy_um: Float[Tensor, "m 2"] | None
    slides: tuple[str, ...]

    def __post_init__(self) -> None:
        assert self.x.ndim == 2 and self.x.is_floating_point(), (self.x.shape, self.x.dtype)
        assert self.offsets.dtype == torch.int64 and self.offsets.shape == (len(self.slides) + 1,), self.offsets
        assert self.xy_um is None or self.xy_um.shape == (len(self.x), 2), self.xy_um.shape
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
        xy_um = None if self.xy_um is None else self.xy_um.to(device, non_blocking=True)
        return Bags(
            self.x.to(device, non_blocking=True), self.offsets.to(device, non_blocking=True), xy_um, self.slides
        )

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
        offsets = torch.cat([kept.new_zeros(1), kept.cumsum(0)])
        return Bags(self.x[keep], offsets, None if self.xy_um is None else self.xy_um[keep], self.slides)

    def unpack(self) -> list[Bags]:
        """Each bag by itself."""
        ends = self.offsets.tolist()
        return [
            Bags(
                self.x[start:end],
                self.offsets.new_tensor([0, end - start]),
                None if self.xy_um is None else self.xy_um[start:end],
                (name,),
            )
            for name, start, end in zip(self.slides, ends, ends[1:])
        ]


def pack(bags: Sequence[Bags]) -> Bags:
    """All bags in one packed value, in this order; positions only where all have them.

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
    positions = [b.xy_um for b in bags if b.xy_um is not None]
    return Bags(
        torch.cat([b.x for b in bags]),
        offsets,
        torch.cat(positions) if len(positions) == len(bags) else None,
        tuple(name for b in bags for name in b.slides),
    )


@dataclass(frozen=True)
class BagOutput:
    """What a method says about B bags of M rows in all. At least one of `attention` and `evidence` is there.

    `attention` sums to 1 over each bag, per branch. `evidence` is what each row adds to the class scores of its bag;
    each method's docstring says how the two hang together. `losses` are extra terms the method brings, weighted.
    """

    logits: Float[Tensor, "b k"]
    embedding: Float[Tensor, "b e"]
    attention: Float[Tensor, "m c"] | None = None
    evidence: Float[Tensor, "m k"] | None = None
    losses: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


class Aggregator(nn.Module, ABC):
    """A MIL method: rows of features to one prediction a bag. Built as `build(dim, num_outputs, **options)`.

    A method that trains in its own way (a teacher, a queue, masks, parameter groups) returns its own `Objective` from
    `objective`; in evaluation only `forward` is called, so inference is that of the plain method by construction.
    """

    uses_positions: ClassVar[bool] = False
    """Needs `xy_um`; a method that only depends on the order of rows says False."""
    order_matters: ClassVar[bool] = False
    """The order of a bag's rows changes the output; most methods see a bag as a set."""

    @abstractmethod
    def forward(self, bags: Bags, target: Target | None = None) -> BagOutput:
        """The output for these bags. `target` is given in training alone, for methods whose extra losses need it."""

    def objective(self, network: nn.Module, task: Task) -> Objective | None:
        """How this method is trained, where the plain supervised step is not it.

        `network` is the whole model around this aggregator (bags in, `BagOutput` out); the objective owns it.
        """
        return None
