"""Memories against lists and closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.mil.parts.memory import Confidence, FeatureQueue, Prototypes


@given(st.integers(0, 5), st.lists(st.integers(0, 8), max_size=8))
@settings(deadline=None, max_examples=60)
def test_the_queue_holds_the_last_that_came(size: int, pushes: list[int]) -> None:
    queue = FeatureQueue(size, 1, 1)
    came: list[float] = []
    for count in pushes:
        values = torch.arange(len(came), len(came) + count).float()[:, None] + 1
        queue.push(values, -values)
        came += values[:, 0].tolist()
    last = came[-size:] if size else []
    known = queue.known
    assert sorted(queue.vectors[known, 0].tolist()) == last
    assert torch.equal(queue.vectors, -queue.payloads)
    # After it has gone round, the newest lie where the oldest were.
    for age, value in enumerate(reversed(last)):
        assert queue.vectors[(len(came) - 1 - age) % size, 0] == value


def test_prototypes_have_length_one_and_follow_the_closed_form() -> None:
    prototypes = Prototypes(3, 4, momentum=0.9).double()
    torch.manual_seed(0)
    first, vectors = torch.randn(3, 4).double(), torch.randn(7, 4).double()
    prototypes.update(first, torch.tensor([0, 1, 1]))
    before = prototypes.vectors.clone()
    classes = torch.tensor([1, 0, 1, 1, 0, 1, 1])
    prototypes.update(vectors, classes)
    for k in (0, 1):
        own = vectors[classes == k]
        m = 0.9 ** len(own)
        expected = m * before[k] + (1 - m) * own.mean(0)
        assert torch.allclose(prototypes.vectors[k], expected / expected.norm(), atol=1e-12)
    assert torch.allclose(prototypes.vectors[:2].norm(dim=1), torch.ones(2).double(), atol=1e-12)
    assert (prototypes.vectors[2] == 0).all()


def test_alike_vectors_move_a_prototype_as_single_steps_would() -> None:
    at_once, one_by_one = Prototypes(1, 3, 0.8).double(), torch.tensor([1.0, 0.0, 0.0]).double()
    at_once.update(one_by_one[None], torch.tensor([0]))
    vector = torch.tensor([0.0, 1.0, 0.0]).double()
    at_once.update(vector.expand(5, -1), torch.zeros(5, dtype=torch.int64))
    for _ in range(5):
        one_by_one = 0.8 * one_by_one + 0.2 * vector
    assert torch.allclose(at_once.vectors[0], one_by_one / one_by_one.norm(), atol=1e-12)


def test_a_class_without_a_prototype_is_never_the_nearest() -> None:
    prototypes = Prototypes(2, 3, 0.9)
    prototypes.update(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0]))
    away = torch.tensor([[-1.0, 0.0, 0.0]])
    assert prototypes.similarity(away).argmax() == 0


def test_confidence_follows_the_closed_form() -> None:
    confidence = Confidence(6, 2).double()
    keys, start = torch.tensor([4, 1]), torch.tensor([[0.5, 0.5], [1.0, 0.0]]).double()
    found = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double()
    for n in range(1, 6):
        confidence.update(keys, start, found, 0.9)
        expected = 0.9**n * start + (1 - 0.9**n) * found
        assert torch.allclose(confidence.of(keys, torch.zeros(2, 2).double()), expected, atol=1e-12)
    other = torch.tensor([0, 2, 3, 5])
    assert torch.equal(confidence.of(other, start[[0]].expand(4, -1)), start[[0]].expand(4, -1))
    assert (confidence.shares[other] == 0).all()


def test_a_row_that_comes_twice_is_moved_twice() -> None:
    confidence = Confidence(3, 2).double()
    start, found = torch.tensor([[0.5, 0.5]] * 2).double(), torch.tensor([[0.0, 1.0], [0.0, 1.0]]).double()
    confidence.update(torch.tensor([1, 1]), start, found, 0.9)
    assert torch.allclose(confidence.shares[1], torch.tensor([0.4, 0.6]).double())


@pytest.mark.parametrize("memory", [FeatureQueue(4, 2, 1), Prototypes(2, 2, 0.9), Confidence(5, 2)])
def test_a_memory_is_in_the_state_and_learns_nothing(memory: torch.nn.Module) -> None:
    assert set(memory.state_dict()) == {name for name, _ in memory.named_buffers()} != set()
    assert not list(memory.parameters())
