"""Regions of a square, and attention inside and between them beside loops and torch's own attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from coverslip.nn.regions import _SPARE_PLACES, CrossRegionAttention, GroupAttention, Groups, PackedRegions, Regions


def rows(num: int, dim: int = 12, seed: int = 1) -> Tensor:
    return torch.randn(num, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def equal_regions(num: int, size: int) -> PackedRegions:
    """One bag of rows that lie behind each other in regions of `size` rows."""
    return PackedRegions(Groups.of_lengths([size] * num), Groups.of_lengths([num]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 9)), min_size=1, max_size=6), st.booleans())
def test_rows_cut_into_regions_and_joined_are_the_rows(bags: list[tuple[int, int]], keep_empty: bool) -> None:
    regions = [Regions.of(num, across, keep_empty=keep_empty) for num, across in bags]
    packed = PackedRegions.of(regions)
    num = packed.inside.num_rows
    x = torch.arange(1.0, num + 1).unsqueeze(1)
    cut = packed.inside.cut(torch.cat([x, torch.zeros(1, 1)]))
    assert torch.equal(packed.inside.join(cut), x)
    assert sum(int((batch > 0).sum()) for batch in cut) == num
    counted = sum(int(taken.sum()) for taken in packed.inside.taken)
    assert counted == (sum((r.across * r.side) ** 2 for r in regions) if keep_empty else num)
    for batch, taken in zip(cut, packed.inside.taken):
        assert bool(taken.any(1).all())
        assert keep_empty or torch.equal(batch.squeeze(2) > 0, taken)
    assert packed.across.num_rows == sum(r.num for r in regions)
    for r in regions:
        assert (r.across * r.side) ** 2 >= r.rows
        assert (r.across * (r.side - 1)) ** 2 < r.rows or r.side == 1


def test_rows_lie_line_by_line() -> None:
    (places,) = PackedRegions.of([Regions.of(16, 2)]).inside.places
    assert places.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    # In lines of four the ninth row begins the second band, whose second region stays empty.
    assert Regions.of(9, 2).num == 3
    assert Regions.of(9, 2, keep_empty=True).num == 4


def test_regions_of_several_bags_are_padded_side_by_side() -> None:
    packed = PackedRegions.of([Regions.of(4, 1), Regions.of(2, 2)])
    # The second bag, whose regions have one place, comes first; 6 stands for no row.
    assert [places.tolist() for places in packed.inside.places] == [[[4, 6, 6, 6], [5, 6, 6, 6], [0, 1, 2, 3]]]
    assert [places.tolist() for places in packed.across.places] == [[[2, 3], [0, 1]]]
    assert [places.tolist() for places in packed.across.each(2).places] == [[[4, 6], [5, 6], [0, 2], [1, 3]]]
    assert [taken.tolist() for taken in packed.across.taken] == [[[True, False], [True, True]]]


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=40))
def test_padding_is_bounded(lengths: list[int]) -> None:
    groups = Groups.of_lengths(lengths)
    for places in groups.places:
        assert int((places == groups.num_rows).sum()) <= _SPARE_PLACES


def test_short_groups_and_equal_ones_share_a_batch() -> None:
    assert len(Groups.of_lengths([35, 28, 41, 33, 36, 30, 47, 31]).places) == 1
    assert len(Groups.of_lengths([5000] * 3).places) == 1
    assert [places.shape for places in Groups.of_lengths([1, 5000, 2]).places] == [(2, 2), (1, 5000)]


def test_one_region_without_positions_is_plain_multi_head_attention() -> None:
    torch.manual_seed(0)
    mine = GroupAttention(12, heads=3).double().eval()
    plain = nn.MultiheadAttention(12, 3, batch_first=True).double().eval()
    with torch.no_grad():
        plain.in_proj_weight.copy_(mine.qkv.weight)
        plain.in_proj_bias.copy_(mine.qkv.bias)
        plain.out_proj.load_state_dict(mine.out.state_dict())
    x = rows(10)
    assert torch.allclose(mine(x, Groups.of_lengths([10])), plain(x, x, x)[0], atol=1e-12)


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
    x, groups = rows(10), Groups.of_lengths([10])
    assert torch.allclose(positions(x, groups), plain(x, groups), atol=1e-12)


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
    assert np.allclose(attention(x, Groups.of_lengths([5])).detach(), expected, atol=1e-12)


@pytest.mark.parametrize("kernel", [0, 5])
def test_a_group_sees_nothing_of_the_groups_and_the_padding_beside_it(kernel: int) -> None:
    torch.manual_seed(0)
    attention = GroupAttention(12, heads=3, kernel=kernel).double().eval()
    lengths = [7, 1, 9, 2, 2]
    x = rows(sum(lengths))
    together = attention(x, Groups.of_lengths(lengths))
    alone = torch.cat([attention(part, Groups.of_lengths([len(part)])) for part in x.split(lengths)])
    _same_with_gradients(attention, together, alone)


@pytest.mark.parametrize("released", [False, True])
def test_a_bag_sees_nothing_of_the_bags_and_the_padding_beside_it(released: bool) -> None:
    torch.manual_seed(0)
    across = CrossRegionAttention(12, heads=3, released=released).double().eval()
    bags = [Regions.of(num, side, keep_empty=released) for num, side in ((40, 2), (1, 1), (30, 4), (3, 2), (3000, 5))]
    assert len(PackedRegions.of(bags).inside.places) > 1
    x = rows(sum(bag.rows for bag in bags))
    together = across(x, PackedRegions.of(bags))
    parts = x.split([bag.rows for bag in bags])
    alone = torch.cat([across(part, PackedRegions.of([bag])) for part, bag in zip(parts, bags)])
    _same_with_gradients(across, together, alone)


def _same_with_gradients(module: nn.Module, together: Tensor, alone: Tensor) -> None:
    assert torch.allclose(together, alone, rtol=0, atol=1e-12)
    weights = rows(len(alone), seed=2)
    parameters = list(module.parameters())
    for found, expected in zip(*(torch.autograd.grad((y * weights).sum(), parameters) for y in (together, alone))):
        assert torch.allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kernel", [0, 5])
def test_empty_places_that_are_kept_are_rows_of_zeros(kernel: int) -> None:
    torch.manual_seed(0)
    attention = GroupAttention(12, heads=3, kernel=kernel).double().eval()
    x = rows(5 + 16)
    # Five rows in a region of nine places beside a full one of sixteen.
    packed = PackedRegions.of([Regions.of(num, 1, keep_empty=True) for num in (5, 16)])
    filled = torch.cat([x[:5], x.new_zeros(4, 12)])
    assert torch.allclose(attention(x, packed.inside)[:5], attention(filled, Groups.of_lengths([9]))[:5], atol=1e-12)


def test_what_regions_give_each_other_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    across = CrossRegionAttention(12, tokens=2, heads=3).double().eval()
    packed = rows(12)
    x = packed.reshape(3, 4, 12)
    scores = np.einsum("rpd,kd->rkp", x.numpy(), across.phi.weight.detach().numpy())
    found = across(packed, equal_regions(3, 4)).detach().reshape(3, 4, 12).numpy()
    expected = np.zeros_like(found)
    for k in range(2):
        tokens = []
        for r in range(3):
            weights = np.exp(scores[r, k]) / np.exp(scores[r, k]).sum()
            tokens.append(sum(weights[p] * x[r, p].numpy() for p in range(4)))
        mixed = across.attention(torch.from_numpy(np.stack(tokens)), Groups.of_lengths([3])).detach().numpy()
        for r in range(3):
            low, high = scores[r, k].min(), scores[r, k].max()
            for p in range(4):
                dispatch = np.exp(scores[r, k, p]) / np.exp(scores[r, :, p]).sum()
                expected[r, p] += (scores[r, k, p] - low) / (high - low + 1e-8) * dispatch * mixed[r]
    assert np.allclose(found, expected, atol=1e-10)


def test_a_region_of_one_row_gets_something_only_in_the_fixed_way() -> None:
    x, regions = rows(3), equal_regions(3, 1)
    released = CrossRegionAttention(12, heads=3, released=True).double().eval()
    assert torch.equal(released(x, regions), torch.zeros_like(x))
    assert CrossRegionAttention(12, heads=3).double().eval()(x, regions).abs().min() > 0
