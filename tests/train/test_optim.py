"""Lookahead around RAdam beside the papers' recursions, and that it resumes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from coverslip.train import checkpoint
from coverslip.train.checkpoint import Counters
from coverslip.train.optim import LookaheadRAdam, lookahead_radam
from coverslip.train.selection import Selection


def step(optimiser: torch.optim.Optimizer, weight: nn.Parameter, at: int) -> torch.Tensor:
    target = torch.randn(3, generator=torch.Generator().manual_seed(at), dtype=torch.float64)
    optimiser.zero_grad()
    (weight - target).square().sum().backward()
    optimiser.step()
    assert weight.grad is not None
    return weight.grad.clone()


def test_lookahead_is_the_recursion_of_the_papers() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    optimiser = LookaheadRAdam([{"params": [weight], "lr": 0.1, "weight_decay": 0.01}], every=3, share=0.25)
    fast, slow = weight.detach().clone(), weight.detach().clone()
    first, second = torch.zeros_like(fast), torch.zeros_like(fast)
    longest = 2 / (1 - 0.999) - 1
    for t in range(1, 20):
        gradient = step(optimiser, weight, t)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        fast = fast * (1 - 0.1 * 0.01)
        length = longest - 2 * t * 0.999**t / (1 - 0.999**t)
        move = first / (1 - 0.9**t)
        if length > 5:
            above, below = (length - 4) * (length - 2) * longest, (longest - 4) * (longest - 2) * length
            move = move * (above / below) ** 0.5 * (1 - 0.999**t) ** 0.5 / (second.sqrt() + 1e-8)
        fast = fast - 0.1 * move
        if t % 3 == 0:
            slow = slow + 0.25 * (fast - slow)
            fast = slow.clone()
        assert torch.allclose(weight.detach(), fast, rtol=0, atol=1e-12), t


def test_a_share_of_one_is_radam() -> None:
    weights = [nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2)]
    groups = [[{"params": [w], "lr": 0.1, "weight_decay": 0.0}] for w in weights]
    optimisers = [LookaheadRAdam(groups[0], share=1.0), torch.optim.RAdam(groups[1])]
    for t in range(13):
        for optimiser, weight in zip(optimisers, weights):
            step(optimiser, weight, t)
    assert torch.equal(weights[0], weights[1])


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    used, unused = (nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    optimiser = lookahead_radam([{"params": [used, unused], "lr": 0.1, "weight_decay": 0.1}])
    for t in range(6):
        step(optimiser, used, t)
    assert torch.equal(unused, torch.ones(3, dtype=torch.float64))
    assert unused not in optimiser.state


def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"

    def fresh() -> tuple[nn.Parameter, torch.optim.Optimizer]:
        weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
        return weight, lookahead_radam([{"params": [weight], "lr": 0.1, "weight_decay": 0.1}])

    weight, optimiser = fresh()
    for t in range(8):
        step(optimiser, weight, t)
    checkpoint.save(
        path,
        key="k",
        counters=Counters(),
        objective={"weight": weight},
        kept=None,
        selection=Selection(),
        optimiser=optimiser.state_dict(),
    )
    other, resumed = fresh()
    found = checkpoint.load(path, key="k")
    assert found is not None
    with torch.no_grad():
        other.copy_(found.objective["weight"])
    resumed.load_state_dict(found.optimiser)
    for t in range(8, 21):
        step(optimiser, weight, t)
        step(resumed, other, t)
    assert torch.equal(weight, other)
