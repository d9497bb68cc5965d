"""Hyperslides: several slides taken as one, what is then known of it, and the loss of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from coverslip.base.errors import SettingsError
from coverslip.mil.bags import Bags
from coverslip.mil.source import LabelledBags
from coverslip.mil.supervised import task_loss
from coverslip.mil.target import Mixture, Target
from coverslip.mil.tasks.classification import Classification
from coverslip.mil.tasks.contract import Task, weighted_mean
from coverslip.nn.segments import Segments, full, maximum, total

SURVIVAL = ("survival", "survival_cox", "survival_parametric", "competing_risks")
KINDS = ("classification", "multilabel", "ordinal", "regression", *SURVIVAL)

# The released code's; Lin et al. 2017, https://arxiv.org/abs/1708.02002.
_FOCAL_WEIGHT, _FOCAL_POWER = 0.25, 2.0


@dataclass(frozen=True)
class Members:
    """The slides of each hyperslide behind each other: what is known of them, and how much each counts."""

    target: Target
    rows: Float[Tensor, n]
    """Rows that the slide gives. A slide that is mixed of two stands here twice, with each one's share of the rows."""
    share: Float[Tensor, n]
    """1, or the share of a mixed slide."""
    segments: Segments

    @classmethod
    def of(cls, batch: LabelledBags, packs: Sequence[Sequence[int]], rows: Float[Tensor, b]) -> Members:
        """The members of packs of the bags of a batch; `rows` is how many rows each bag gives."""
        places = torch.tensor([place for pack in packs for place in pack], device=rows.device)
        lengths = [len(pack) for pack in packs]
        if batch.mixture is None:
            segments = Segments.of_lengths(lengths, rows.device)
            return cls(batch.target.take(places), rows[places], torch.ones_like(rows)[places], segments)
        twice = torch.stack([places, places + len(rows)], 1).flatten()
        share = torch.cat([batch.mixture.share, 1 - batch.mixture.share]).to(rows.dtype)
        both = _joined(batch.target, batch.mixture.other).take(twice)
        segments = Segments.of_lengths([2 * n for n in lengths], rows.device)
        return cls(both, (torch.cat([rows, rows]) * share)[twice], share[twice], segments)


def require_labels(task: Task, *, method: str) -> None:
    """Nothing, where it is defined what several slides taken as one are labelled with.

    Raises:
        SettingsError: the task is of another kind.
    """
    if task.kind not in KINDS:
        raise SettingsError(
            f"{method}: what several slides taken as one are labelled with is known for {', '.join(KINDS)}, "
            f"not for {task.kind!r}.",
            fix="Set aggregator.options.alpha = 0, or choose another method.",
        )


def hyperslide_loss(
    task: Task, logits: Float[Tensor, "p k"], bags: Bags, members: Members, *, labels: Literal["counts", "shares"]
) -> Float[Tensor, ""]:
    """The loss of P hyperslides, by the kind of the task.

    Classification: with "counts" each class's number of slides over the largest such number, against one sigmoid a
    class, by focal binary cross-entropy (weight .25, power 2); with "shares" each class's share of the slides, against
    the softmax, by cross-entropy with the task's class weights. All other kinds have the task's own loss, with this
    target: for labels, one that any slide has, unknown where no slide has it and one does not know; for values the mean
    over the known slides, weighted by their rows; for levels the same mean, shared between the two levels around it;
    for survival the first event where it comes before the first end of follow-up; else both count, the end of follow-up
    by the share of slides that are censored and the event by the others.
    """
    if isinstance(task, Classification):
        return _class_loss(task, full(logits), members, labels)
    joint = {"regression": _values, "multilabel": _any, "ordinal": _levels, **dict.fromkeys(SURVIVAL, _first)}
    target, mixture = joint[task.kind](members)
    return task_loss(task, logits, LabelledBags(bags, target, mixture))


def _class_loss(task: Classification, logits: Tensor, members: Members, labels: str) -> Tensor:
    one_hot = functional.one_hot(members.target.y, task.num_outputs).to(logits.dtype)
    counts = total(one_hot * members.share[:, None].to(logits.dtype), members.segments)  # (p, k)
    if labels == "counts":
        y = counts / counts.max(1, keepdim=True).values
        entropy = functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
        return (_FOCAL_WEIGHT * (1 - (-entropy).exp()) ** _FOCAL_POWER * entropy).mean()
    weights = counts / counts.sum(1, keepdim=True) * task.class_weights.to(logits.dtype)
    weight = weights.sum(1)
    return weighted_mean(-(weights * logits.log_softmax(1)).sum(1) / weight, weight)


def _values(members: Members) -> tuple[Target, None]:
    y = members.target.y
    known = torch.isfinite(y).to(members.rows.dtype)
    mean = _mean(torch.where(torch.isfinite(y), y, 0), members.rows * known, members.segments)
    return Target(torch.where(total(known, members.segments) > 0, mean, torch.nan)), None


def _levels(members: Members) -> tuple[Target, Mixture]:
    level = _mean(members.target.y.to(members.rows.dtype), members.rows, members.segments)
    low = level.floor()
    return Target(low.long()), Mixture(Target(level.ceil().long()), 1 - (level - low))


def _any(members: Members) -> tuple[Target, None]:
    y, here = members.target.y, members.share > 0
    known = torch.ones_like(y, dtype=torch.bool) if members.target.known is None else members.target.known
    has = maximum((known & (y > 0.5) & here[:, None]).float(), members.segments)
    ignorant = maximum((~known & here[:, None]).float(), members.segments)
    return Target(has, (has > 0) | (ignorant == 0)), None


def _first(members: Members) -> tuple[Target, Mixture]:
    time, event, segments = members.target.y, members.target.event, members.segments
    assert event is not None
    never = torch.finfo(time.dtype).max

    def earliest(which: Bool[Tensor, n]) -> Tensor:
        return -maximum(-torch.where(which & (members.share > 0), time, never), segments)

    ended, happened = earliest(event == 0), earliest(event > 0)
    # Of causes at the same time the one of the higher number stands for all.
    causes = torch.where(time == happened[segments.ids], event, 0)
    cause = maximum(causes.double(), segments).long()
    censored = total(members.share * (event == 0), segments) / total(members.share, segments)
    share = torch.where(happened <= ended, 0, censored)
    # The side that no slide is on has no share; its time only has to be a number.
    free = Target(torch.where(ended == never, happened, ended), None, torch.zeros_like(cause))
    hit = Target(torch.where(happened == never, ended, happened), None, cause)
    return free, Mixture(hit, share)


def _mean(values: Tensor, weights: Tensor, segments: Segments) -> Float[Tensor, p]:
    return total(values * weights, segments) / total(weights, segments).clamp(min=1e-12)


def _joined(a: Target, b: Target) -> Target:
    def both(x: Tensor | None, y: Tensor | None) -> Tensor | None:
        return None if x is None or y is None else torch.cat([x, y])

    known: Tensor | None = both(a.known, b.known)
    event: Int64[Tensor, n] | None = both(a.event, b.event)
    return Target(torch.cat([a.y, b.y]), known, event)
