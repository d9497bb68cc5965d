"""Attention without its matrix, and shares of logits, beside their plain formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coverslip.nn.attention import attend, logit_shares
from coverslip.nn.segments import Segments, total


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("e", "f"), [(5, 1), (8, 8), (3, 7)])
def test_attend_is_softmax_and_a_product(e: int, f: int) -> None:
    q, k, v = values(3, 2, 9, e, seed=1), values(3, 2, 6, e, seed=2), values(3, 2, 6, f, seed=3)
    assert torch.allclose(attend(q, k, v), (q @ k.mT).softmax(-1) @ v, atol=1e-12)


def test_places_not_taken_are_as_if_they_were_not_there() -> None:
    q, k, v = values(3, 2, 9, 5, seed=1), values(3, 2, 6, 5, seed=2), values(3, 2, 6, 7, seed=3)
    taken = torch.arange(6) < torch.tensor([6, 1, 4]).unsqueeze(1)
    found = attend(q, k, v, taken)
    for bag, num in enumerate((6, 1, 4)):
        alone = attend(q[[bag]], k[[bag], :, :num], v[[bag], :, :num])
        assert torch.allclose(found[[bag]], alone, atol=1e-12)


def test_attend_keeps_no_matrix_for_its_gradient() -> None:
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[rows] = kept.get(rows, 0) + tensor.numel()
        return tensor

    for rows in (300, 600):
        q, k, v = (values(1, 2, rows, 8, seed=s).float().requires_grad_() for s in (1, 2, 3))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            attend(q, k, v).sum().backward()
    assert kept[600] <= 2 * kept[300]


def test_shares_of_logits_add_up_to_them_but_for_the_biases() -> None:
    torch.manual_seed(0)
    norm, classifier, out = nn.LayerNorm(6).double(), nn.Linear(6, 3).double(), values(6, 4, seed=4)
    with torch.no_grad():
        norm.weight.copy_(values(6, seed=5))
        norm.bias.copy_(values(6, seed=6))
    segments = Segments.of_lengths([1, 5, 3])
    shares = values(9, 4, seed=7)
    c = total(shares, segments) @ out.T
    added = total(logit_shares(shares, out, c, norm, classifier, segments), segments)
    assert torch.allclose(added + classifier(norm.bias), classifier(norm(c)), atol=1e-12)
