"""Contrastive losses against double loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from coverslip.mil.parts.contrast import ContrastHead, key_contrast, supervised_contrast

T = 0.3


def unit(n: int, *, seed: int = 0, e: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(n, e, generator=generator, dtype=torch.float64), dim=1)


def by_loops(z: Tensor, others: Tensor, weight: Tensor, known: Tensor) -> tuple[float, int]:
    """The mean over anchors with a positive, and the number of those without."""
    everyone = [*z, *others]
    there = [True] * len(z) + known.tolist()
    losses, alone = [], 0
    for i, anchor in enumerate(z):
        mates = [j for j in range(len(everyone)) if j != i and there[j]]
        mass = sum(float(weight[i, j]) for j in mates)
        if mass == 0:
            alone += 1
            continue
        bottom = sum(math.exp(float(anchor @ everyone[k]) / T) for k in mates)
        terms = [float(weight[i, j]) * math.log(math.exp(float(anchor @ everyone[j]) / T) / bottom) for j in mates]
        losses.append(-sum(terms) / mass)
    return (sum(losses) / len(losses) if losses else 0.0), alone


def same(y: Tensor, others: Tensor) -> Tensor:
    return (y[:, None] == torch.cat([y, others])[None]).double()


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=6),
)
@settings(deadline=None, max_examples=60)
def test_the_contrast_is_the_double_loop(own: list[int], queue: list[tuple[int, bool]]) -> None:
    y, other = torch.tensor(own), torch.tensor([k for k, _ in queue], dtype=torch.int64)
    known = torch.tensor([there for _, there in queue], dtype=torch.bool)
    z, others = unit(len(y)), unit(len(queue), seed=1)
    expected, alone = by_loops(z, others, same(y, other), known)
    found = supervised_contrast(z, others, same(y, other), temperature=T, known=known)
    assert float(found.loss) == pytest.approx(expected, abs=1e-12)
    assert int(found.alone) == alone


def test_mixed_bags_agree_by_their_shares() -> None:
    z, others = unit(4), unit(3, seed=1)
    weight = torch.rand(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, _ = by_loops(z, others, weight, torch.ones(3, dtype=torch.bool))
    assert float(supervised_contrast(z, others, weight, temperature=T).loss) == pytest.approx(expected, abs=1e-12)


def test_anchors_without_a_positive_are_left_out_and_counted() -> None:
    z, none = unit(4), torch.zeros(0, 5, dtype=torch.float64)
    y = torch.tensor([0, 0, 1, 2])
    found = supervised_contrast(z, none, same(y, y[:0]), temperature=T)
    assert int(found.alone) == 2
    # The two that are alone still push the others away.
    without = supervised_contrast(z[:2], none, same(y[:2], y[:0]), temperature=T)
    assert float(without.loss) == pytest.approx(0.0)
    assert found.loss > 0.1


@pytest.mark.parametrize("n", [1, 3])
def test_where_nobody_has_a_positive_the_loss_is_zero_and_so_is_its_gradient(n: int) -> None:
    z = unit(n).requires_grad_()
    y = torch.arange(n)
    found = supervised_contrast(z, unit(0), same(y, y[:0]), temperature=T)
    found.loss.backward()
    assert found.loss == 0
    assert int(found.alone) == n
    assert z.grad is not None
    assert (z.grad == 0).all()


def test_the_order_of_a_batch_does_not_matter() -> None:
    z, y = unit(6), torch.tensor([0, 1, 0, 2, 1, 1])
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    one = supervised_contrast(z, unit(0), same(y, y[:0]), temperature=T)
    other = supervised_contrast(z[order], unit(0), same(y[order], y[:0]), temperature=T)
    assert torch.allclose(one.loss, other.loss, atol=1e-12)


def test_keys_are_found_among_negatives_as_written_by_hand() -> None:
    q, k, negatives = unit(3), unit(3, seed=1), unit(4, seed=2)
    known = torch.tensor([True, False, True, True])
    losses = []
    for i in range(3):
        own = math.exp(float(q[i] @ k[i]) / T)
        against = sum(math.exp(float(q[i] @ negatives[j]) / T) for j in range(4) if known[j])
        losses.append(-math.log(own / (own + against)))
    found = key_contrast(q, k, negatives, temperature=T, known=known)
    assert float(found) == pytest.approx(sum(losses) / 3, abs=1e-12)


def test_without_negatives_a_key_is_found_for_nothing() -> None:
    q = unit(3).requires_grad_()
    loss = key_contrast(q, unit(3), unit(2), temperature=T, known=torch.zeros(2, dtype=torch.bool))
    loss.backward()
    assert float(loss) == 0
    assert q.grad is not None
    assert torch.isfinite(q.grad).all()


def test_similarities_keep_full_precision_under_autocast() -> None:
    z, y = unit(8).float(), torch.arange(8) % 2
    exact = supervised_contrast(z, z, torch.cat([same(y, y)], 1).float(), temperature=0.01)
    with torch.autocast("cpu", torch.bfloat16):
        rough = supervised_contrast(z, z, torch.cat([same(y, y)], 1).float(), temperature=0.01)
    assert torch.equal(exact.loss, rough.loss)


def test_a_head_gives_unit_vectors_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        z = ContrastHead(6, 4)(torch.randn(5, 6))
    assert z.dtype == torch.float32
    assert torch.allclose(z.norm(dim=1), torch.ones(5), atol=1e-6)
