"""What is true of RRT beside the contract: its regions, its pooling, what the released way does to short bags."""

from __future__ import annotations

import pytest
import torch

from coverslip.base.errors import SettingsError
from coverslip.mil import build_aggregator
from coverslip.mil.methods.rrt import Rrt
from coverslip.nn.regions import PackedRegions
from coverslip.nn.segments import softmax, total, weighted_sum
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags


def build(**options: int | float | bool | str) -> Rrt:
    torch.manual_seed(0)
    method = build_aggregator("rrt", DIM, 3, {"hidden": 16, "heads": 2, **options})
    assert isinstance(method, Rrt)
    return method.double().eval()


@pytest.mark.parametrize(
    "options",
    [
        {"least_rows": 1, "regions": 3, "positions": 3},
        {"preset": "official", "regions": 2},
        {"positions": 0, "most_rows": 16, "tokens": 1, "shortcut": False},
    ],
)
def test_every_kind_keeps_the_contract(options: dict[str, int | bool | str]) -> None:
    check_aggregator("rrt", **{"hidden": 16, "heads": 2, **options})


@pytest.mark.parametrize("preset", ["fixed", "official"])
def test_evidence_adds_up_to_the_logits_without_their_bias(preset: str) -> None:
    method = build(preset=preset)
    bags = example_bags()
    output = method(bags)
    assert output.evidence is not None
    assert torch.allclose(total(output.evidence, bags.segments) + method.classifier.bias, output.logits, atol=1e-12)


def test_regions_that_give_nothing_leave_attention_pooling() -> None:
    method = build(shortcut=False)
    with torch.no_grad():
        for attention in (method.inside, method.across.attention):
            attention.out.weight.zero_()
            attention.out.bias.zero_()
    bags = example_bags()
    x = method.norm_out(method.project(bags.x))
    z = weighted_sum(softmax(method.scores(x), bags.segments), x, bags.segments).flatten(1)
    assert torch.allclose(method(bags).logits, method.classifier(z), atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "across"), [(1, 1), (16, 1), (64, 2), (1024, 8), (10_000, 8), (100_000, 20), (1_000_000, 63)]
)
def test_short_bags_have_fewer_regions_and_long_ones_more(rows: int, across: int) -> None:
    square = Rrt(DIM, 2)._square(rows)
    assert square.across == across
    assert square.side**2 <= 256
    assert square.side**2 >= 16 or across == 1


def test_the_released_way_has_eight_regions_a_side_at_any_length() -> None:
    method = Rrt(DIM, 2, preset="official")
    assert [method._square(rows).side for rows in (1, 64, 65, 90_000)] == [1, 1, 2, 38]
    assert {method._square(rows).num for rows in (1, 64, 65, 90_000)} == {64}


def test_a_row_sees_the_others_of_its_region_and_through_tokens_those_of_other_regions() -> None:
    method = build(regions=2, least_rows=4, most_rows=64, positions=0)
    (bag,) = example_bags((64,)).unpack()
    h = method.project(bag.x).detach().requires_grad_()
    regions = PackedRegions.of([method._square(64)])
    (seen,) = torch.autograd.grad(method._embedded(h, regions)[0].square().sum(), h)
    assert (seen.abs().sum(1) > 0).all()
    with torch.no_grad():
        method.across.attention.out.weight.zero_()
    (seen,) = torch.autograd.grad(method._embedded(h, regions)[0].square().sum(), h)
    line, column = torch.arange(64) // 8, torch.arange(64) % 8
    assert torch.equal(seen.abs().sum(1) > 0, (line < 4) & (column < 4))


@pytest.mark.parametrize("preset", ["fixed", "official"])
def test_short_bags_beside_a_long_one_keep_their_logits(preset: str) -> None:
    method = build(preset=preset)
    bags = example_bags((1, 35, 2500, 17, 64, 300))
    alone = torch.cat([method(bag).logits for bag in bags.unpack()])
    assert torch.allclose(method(bags).logits, alone, rtol=0, atol=1e-12)


def test_impossible_regions_are_refused() -> None:
    with pytest.raises(SettingsError, match="least_rows"):
        build_aggregator("rrt", DIM, 2, {"least_rows": 300})
