"""The classes of a batch, for terms that compare bags or rows of the same class."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from coverslip.base.errors import SettingsError
from coverslip.mil.bags import LearningSet
from coverslip.mil.source import LabelledBags
from coverslip.mil.tasks.contract import Task


def num_classes(method: str, task: Task, learns: LearningSet) -> int:
    """The number of classes that a method which compares classes learns from: those of the training bags.

    Raises:
        SettingsError: the target is a number, a time or several labels, so that bags have no class.
    """
    y = learns.target.y
    if y.dtype != torch.int64 or y.ndim != 1:
        raise SettingsError(
            f"aggregator.name = {method!r}: the method compares bags of the same class, and a {task.kind} target has "
            "no classes.",
            fix='Set task.kind to "classification" or "ordinal", or choose another method: '
            "`coverslip list aggregators`.",
        )
    return int(y.max()) + 1


def class_shares(batch: LabelledBags, num_classes: int) -> Float[Tensor, "b k"]:
    """The share of each class in each bag: 1 for a bag's own class; a mixed bag holds its two by their shares."""
    own = functional.one_hot(batch.target.y, num_classes).float()
    if batch.mixture is None:
        return own
    share = batch.mixture.share.float().unsqueeze(1)
    return share * own + (1 - share) * functional.one_hot(batch.mixture.other.y, num_classes)
