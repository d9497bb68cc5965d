"""Deep embedded clustering against double loops, and that it finds clusters that are there."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.nn.clustering import memberships, sharpened, sharpening_loss
from coverslip.nn.segments import Segments


def example(lengths: list[int], k: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Segments]:
    generator = torch.Generator().manual_seed(seed)
    z, centres = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (sum(lengths), k))
    return z, centres, Segments.of_lengths(lengths)


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), k=st.integers(1, 4), seed=st.integers(0, 100))
def test_memberships_and_their_loss_are_their_definitions(lengths: list[int], k: int, seed: int) -> None:
    z, centres, segments = example(lengths, k, seed)
    q = memberships(z, centres)
    losses = []
    for rows in torch.arange(sum(lengths)).split(lengths):
        wanted = [[1 / (1 + sum((float(a) - float(b)) ** 2 for a, b in zip(z[i], c))) for c in centres] for i in rows]
        wanted = [[value / sum(row) for value in row] for row in wanted]
        size = [sum(row[j] for row in wanted) for j in range(k)]
        p = [[row[j] ** 2 / size[j] for j in range(k)] for row in wanted]
        p = [[value / sum(row) for value in row] for row in p]
        kl = [sum(b * math.log(b / a) for a, b in zip(*pair)) for pair in zip(wanted, p)]
        losses.append(sum(kl) / len(rows))
        assert torch.allclose(q[rows], torch.tensor(wanted, dtype=torch.float64), atol=1e-12)
        assert torch.allclose(sharpened(q, segments)[rows], torch.tensor(p, dtype=torch.float64), atol=1e-12)
    found = sharpening_loss(q, segments)
    assert torch.allclose(found, torch.tensor(losses, dtype=torch.float64), atol=1e-12)
    assert (found >= -1e-12).all()


def test_what_memberships_are_to_become_has_no_gradient() -> None:
    z, centres, segments = example([6], 3)
    q = memberships(z.requires_grad_(), centres)
    assert not sharpened(q, segments).requires_grad
    fixed = sharpened(q, segments)
    expected = torch.autograd.grad(-(fixed * q.log()).sum() / 6, z, retain_graph=True)[0]
    assert torch.allclose(torch.autograd.grad(sharpening_loss(q, segments).sum(), z)[0], expected, atol=1e-12)


def test_a_bag_of_one_row_has_nothing_to_sharpen() -> None:
    z, centres, segments = example([1], 4)
    assert sharpening_loss(memberships(z, centres), segments).abs().max() < 1e-12


def test_a_row_on_a_centre_is_finite_and_far_rows_too() -> None:
    centres = torch.eye(3)
    z = torch.cat([centres, 1e4 * centres]).requires_grad_()
    loss = sharpening_loss(memberships(z, centres), Segments.of_lengths([6])).sum()
    loss.backward()
    assert torch.isfinite(loss) and z.grad is not None and torch.isfinite(z.grad).all()


def test_three_separated_blobs_are_recovered() -> None:
    generator = torch.Generator().manual_seed(0)
    middles = 4.0 * torch.eye(3)
    z = (middles[:, None] + 0.5 * torch.randn(3, 40, 3, generator=generator)).flatten(0, 1)
    # Centres begin at a row of each blob pulled half of the way to the middle of all.
    centres = torch.nn.Parameter((z[[0, 40, 80]] + z.mean(0)) / 2)
    segments = Segments.of_lengths([120])
    optimiser = torch.optim.Adam([centres], lr=0.05)
    first = float(sharpening_loss(memberships(z, centres), segments).sum().detach())
    for _ in range(150):
        optimiser.zero_grad()
        loss = sharpening_loss(memberships(z, centres), segments).sum()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < first
    assert memberships(z, centres).argmax(1).tolist() == [0] * 40 + [1] * 40 + [2] * 40
    blobs = torch.stack([blob.mean(0) for blob in z.split(40)])
    assert (centres - blobs).norm(dim=1).max() < 0.3
