from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from coverslip.mil.parts.downsampling import AttentionDownsampling
from coverslip.testing.aggregators import DIM, example_bags

LENGTHS = (1, 2, 9, 40)


def build(ratio: int = 3, *, official: bool = False) -> AttentionDownsampling:
    torch.manual_seed(0)
    return AttentionDownsampling(DIM, ratio, hidden=8, official=official).double()


@pytest.mark.parametrize("official", [False, True])
def test_training_sees_one_row_for_each_group_and_evaluation_every_row(official: bool) -> None:
    downsampling, bags = build(official=official), example_bags(LENGTHS)
    assert downsampling(bags).x.shape == bags.x.shape
    grouped = downsampling.grouped(bags, LENGTHS)
    assert grouped.lengths.tolist() == [1, 1, 3, 14] == list(downsampling.grouped_lengths(LENGTHS, 0))
    assert downsampling.grouped(bags, LENGTHS, min_rows=9).lengths.tolist() == [1, 2, 9, 14]


@pytest.mark.parametrize("official", [False, True])
def test_a_seed_gives_the_same_groups(official: bool) -> None:
    downsampling, bags = build(official=official), example_bags(LENGTHS)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(downsampling.grouped(bags, LENGTHS).x)
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


@pytest.mark.parametrize("official", [False, True])
def test_short_bags_pass_as_in_evaluation_in_some_order(official: bool) -> None:
    downsampling, bags = build(official=official), example_bags((5, 7))
    grouped = downsampling.grouped(bags, (5, 7), min_rows=7)
    whole = downsampling(bags)
    for a, b in zip(grouped.unpack(), whole.unpack()):
        assert torch.allclose(a.x[a.x[:, 0].argsort()], b.x[b.x[:, 0].argsort()], atol=1e-12)


@pytest.mark.parametrize("official", [False, True])
def test_numbers_of_a_new_row_come_from_the_rows_of_its_group(official: bool) -> None:
    downsampling, bags = build(official=official), example_bags(LENGTHS)
    with torch.no_grad():  # the last map is switched off
        downsampling.out.weight.copy_(torch.eye(DIM))
        downsampling.out.bias.zero_()
    e = downsampling(bags).x.split(LENGTHS)
    grouped = downsampling.grouped(bags, LENGTHS).unpack()
    filled = functional.gelu(downsampling.embed.bias)
    for rows, bag in zip(e, grouped):
        for row in bag.x:
            for place, number in enumerate(row):
                if official:
                    near = torch.cat([rows.flatten(), filled])
                else:
                    near = rows[:, place]  # the meaning of a number is kept
                assert (near - number).abs().min() < 1e-12
    if not official:
        # No number is used more often than it is there: groups share no row.
        longest = grouped[-1].x
        assert all(len(set(longest[:, place].tolist())) == len(longest) for place in range(DIM))


def test_the_gradient_reaches_the_scores() -> None:
    downsampling, bags = build(), example_bags(LENGTHS)
    downsampling.grouped(bags, LENGTHS).x.square().sum().backward()
    weight = downsampling.scores.v.weight.grad
    assert weight is not None
    assert (weight != 0).any()


def test_one_row_is_no_group() -> None:
    with pytest.raises(ValueError, match="twos"):
        AttentionDownsampling(4, 1)
