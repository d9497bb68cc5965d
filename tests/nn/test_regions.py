"""Regions of a square, and attention inside and between them beside loops and torch's own attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from coverslip.nn.regions import CrossRegionAttention, GroupAttention, Regions


def rows(num: int, dim: int = 12, seed: int = 1) -> Tensor:
    return torch.randn(num, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 9))
def test_rows_cut_into_regions_and_joined_are_the_rows(num: int, across: int) -> None:
    x = torch.arange(1.0, num + 1).unsqueeze(1)
    for keep_empty in (False, True):
        regions = Regions.of(num, across, keep_empty=keep_empty)
        cut = regions.cut(x)
        taken = regions.taken(torch.device("cpu"))
        assert torch.equal(regions.join(cut), x)
        assert torch.equal(cut.squeeze(2) > 0, taken)
        assert int(taken.sum()) == num
        assert keep_empty or bool(taken.any(1).all())
        assert (across * regions.side) ** 2 >= num
        assert (across * (regions.side - 1)) ** 2 < num or regions.side == 1


def test_rows_lie_line_by_line() -> None:
    cut = Regions.of(16, 2).cut(torch.arange(16.0).unsqueeze(1)).squeeze(2)
    assert cut.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    # In lines of four the ninth row begins the second band, whose second region stays empty.
    assert Regions.of(9, 2).num == 3
    assert Regions.of(9, 2, keep_empty=True).num == 4


def test_one_region_without_positions_is_plain_multi_head_attention() -> None:
    torch.manual_seed(0)
    mine = GroupAttention(12, heads=3).double().eval()
    plain = nn.MultiheadAttention(12, 3, batch_first=True).double().eval()
    with torch.no_grad():
        plain.in_proj_weight.copy_(mine.qkv.weight)
        plain.in_proj_bias.copy_(mine.qkv.bias)
        plain.out_proj.load_state_dict(mine.out.state_dict())
    x = rows(10).unsqueeze(0)
    assert torch.allclose(mine(x), plain(x, x, x)[0], atol=1e-12)


def test_positions_of_width_one_only_scale_the_scores() -> None:
    torch.manual_seed(0)
    positions = GroupAttention(12, heads=3, kernel=1).double().eval()
    plain = GroupAttention(12, heads=3).double().eval()
    plain.load_state_dict({name: p for name, p in positions.state_dict().items() if "positions" not in name})
    with torch.no_grad():
        assert positions.positions is not None
        positions.positions.weight.fill_(1.0)
        plain.qkv.weight[:12] *= 2
        plain.qkv.bias[:12] *= 2
    x = rows(10).unsqueeze(0)
    assert torch.allclose(positions(x), plain(x), atol=1e-12)


def test_positions_are_a_convolution_of_scores_along_the_queries() -> None:
    torch.manual_seed(0)
    attention = GroupAttention(4, heads=1, kernel=3).double().eval()
    assert attention.positions is not None
    x = rows(5, 4)
    q, k, v = attention.qkv(x).detach().numpy().reshape(5, 3, 4).transpose(1, 0, 2)
    kernel = attention.positions.weight.detach().numpy().ravel()
    scores = q @ k.T / 2
    moved = scores.copy()
    for i in range(5):
        for shift in (-1, 0, 1):
            if 0 <= i + shift < 5:
                moved[i] += kernel[shift + 1] * scores[i + shift]
    weights = np.exp(moved) / np.exp(moved).sum(1, keepdims=True)
    expected = weights @ v @ attention.out.weight.detach().numpy().T + attention.out.bias.detach().numpy()
    assert np.allclose(attention(x.unsqueeze(0))[0].detach(), expected, atol=1e-12)


@pytest.mark.parametrize("kernel", [0, 5])
def test_places_without_a_row_change_nothing(kernel: int) -> None:
    torch.manual_seed(0)
    inside = GroupAttention(12, heads=3, kernel=kernel).double().eval()
    across = CrossRegionAttention(12, heads=3).double().eval()
    x = rows(14).reshape(2, 7, 12)
    taken = torch.ones(2, 9, dtype=torch.bool)
    taken[:, 7:] = False
    for filler in (0.0, 100.0):
        padded = torch.cat([x, torch.full((2, 2, 12), filler, dtype=x.dtype)], 1)
        assert torch.allclose(inside(padded, taken)[:, :7], inside(x), atol=1e-12)
        assert torch.allclose(across(padded, taken)[:, :7], across(x), atol=1e-12)


def test_what_regions_give_each_other_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    across = CrossRegionAttention(12, tokens=2, heads=3).double().eval()
    x = rows(12).reshape(3, 4, 12)
    scores = np.einsum("rpd,kd->rkp", x.numpy(), across.phi.weight.detach().numpy())
    found = across(x).detach().numpy()
    expected = np.zeros_like(found)
    for k in range(2):
        tokens = []
        for r in range(3):
            weights = np.exp(scores[r, k]) / np.exp(scores[r, k]).sum()
            tokens.append(sum(weights[p] * x[r, p].numpy() for p in range(4)))
        mixed = across.attention(torch.from_numpy(np.stack(tokens)).unsqueeze(0))[0].detach().numpy()
        for r in range(3):
            low, high = scores[r, k].min(), scores[r, k].max()
            for p in range(4):
                dispatch = np.exp(scores[r, k, p]) / np.exp(scores[r, :, p]).sum()
                expected[r, p] += (scores[r, k, p] - low) / (high - low + 1e-8) * dispatch * mixed[r]
    assert np.allclose(found, expected, atol=1e-10)


def test_a_region_of_one_row_gets_something_only_in_the_fixed_way() -> None:
    x = rows(3).unsqueeze(1)
    assert torch.equal(CrossRegionAttention(12, heads=3, released=True).double().eval()(x), torch.zeros_like(x))
    assert CrossRegionAttention(12, heads=3).double().eval()(x).abs().min() > 0
