"""How much each class counts in a loss, by how many patients it has."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from coverslip.base.errors import SettingsError
from coverslip.mil.tasks.contract import balanced

ClassWeights = Literal["balanced", "effective_number", "none"]


def check_beta(beta: float) -> float:
    """`beta`, where it can be one.

    Raises:
        SettingsError: it is not in [0, 1).
    """
    if not 0 <= beta < 1:
        raise SettingsError(f"task.options.beta = {beta}: accepted are numbers from 0 to below 1.")
    return beta


def class_weights(counts: Int64[Tensor, k], weights: ClassWeights, beta: float) -> Float[Tensor, k]:
    """Weights of K classes with these counts; over all counted they average 1.

    "balanced": n / (K n_c). "effective_number": in proportion to (1 - beta) / (1 - beta^n_c), one over the number of
    patients that still tell something new (Cui et al. 2019, https://arxiv.org/abs/1901.05555): beta 0 weighs nobody,
    beta towards 1 is balanced. A class that nobody has weighs 1.
    """
    if weights == "none":
        return torch.ones(len(counts))
    if weights == "balanced":
        return balanced(counts)
    present = counts > 0
    number = counts.clamp(min=1).double()
    raw = (1 - beta) / (1 - beta**number)
    scale = counts.sum() / (raw * counts).sum().clamp(min=1e-12)
    return torch.where(present, raw * scale, torch.ones_like(raw)).float()


def drawn_weights(counts: Int64[Tensor, k], weights: ClassWeights, beta: float) -> Float[Tensor, k]:
    """The weights for bags of which each class is drawn alike: what drawing has made up for already is taken back.

    Ones, but for "effective_number": there the ratio of its weights to balanced ones, so that drawing and weights
    together count classes as the weights alone would.
    """
    if weights != "effective_number":
        return torch.ones(len(counts))
    return class_weights(counts, weights, beta) / balanced(counts)
