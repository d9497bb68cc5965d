from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.mil import Bags
from coverslip.mil.parts.packing import first_fit_decreasing, next_fit, split_rows, without_boundaries
from coverslip.testing.aggregators import example_bags

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


@pytest.mark.parametrize("fit", [first_fit_decreasing, next_fit])
@given(lengths=LENGTHS, capacity=st.integers(1, 80))
def test_every_slide_is_in_one_pack_and_no_pack_is_too_full(fit, lengths: list[int], capacity: int) -> None:  # type: ignore[no-untyped-def]
    packs = fit(lengths, capacity)
    assert sorted(place for pack in packs for place in pack) == list(range(len(lengths)))
    for pack in packs:
        rows = sum(lengths[place] for place in pack)
        assert rows <= capacity or len(pack) == 1


def fewest(lengths: list[int], capacity: int, rooms: tuple[int, ...] = ()) -> int:
    """The fewest packs, by trying all."""
    if not lengths:
        return len(rooms)
    first, rest = lengths[0], lengths[1:]
    found = [fewest(rest, capacity, (*rooms, capacity - first))]
    for i, room in enumerate(rooms):
        if first <= room:
            found.append(fewest(rest, capacity, (*rooms[:i], room - first, *rooms[i + 1 :])))
    return min(found)


@settings(max_examples=50)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=7))
def test_first_fit_decreasing_is_near_the_fewest_packs(lengths: list[int]) -> None:
    assert 9 * len(first_fit_decreasing(lengths, 20)) <= 11 * fewest(lengths, 20) + 6


def test_first_fit_decreasing_wastes_no_more_than_next_fit_on_lengths_of_slides() -> None:
    generator = np.random.default_rng(0)
    less = 0
    for _ in range(200):
        lengths = np.exp(generator.uniform(np.log(50), np.log(4000), 32)).astype(int).tolist()
        ours, theirs = len(first_fit_decreasing(lengths, 4000)), len(next_fit(lengths, 4000))
        assert ours <= theirs
        less += ours < theirs
    assert less > 150


def test_next_fit_keeps_the_order_and_closes_packs() -> None:
    assert next_fit([3, 3, 5, 1, 9, 1], 6) == [[0, 1], [2, 3], [4], [5]]
    assert first_fit_decreasing([3, 3, 5, 1, 9, 1], 6) == [[4], [2, 3], [0, 1], [5]]


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    keep=st.floats(0.05, 1.0),
    min_rows=st.integers(0, 8),
    seed=st.integers(0, 5),
)
def test_the_two_parts_hold_every_row_once_except_of_short_slides(
    lengths: list[int], keep: float, min_rows: int, seed: int
) -> None:
    bags = example_bags(tuple(lengths))
    torch.manual_seed(seed)
    halves = split_rows(bags, lengths, keep, min_rows=min_rows)
    assert bags.keys is not None
    assert halves.main.keys is not None
    assert tuple(halves.main.lengths.tolist()) == halves.main_lengths
    assert halves.main.slides == bags.slides
    found = {name: [[], []] for name in bags.slides}
    for side, part in enumerate((halves.main, halves.residual)):
        if part is not None:
            for bag in part.unpack():
                assert bag.keys is not None
                found[bag.slides[0]][side] = bag.keys.tolist()
                assert torch.equal(bag.x, bags.x[bag.keys])
    for name, n, keys in zip(bags.slides, lengths, bags.keys.split(lengths)):
        main, residual = found[name]
        assert main == sorted(main)  # rows stay in their order
        if n < min_rows:
            assert main == residual == keys.tolist()
        else:
            assert len(main) == max(1, int(n * keep))
            assert sorted(main + residual) == keys.tolist()
    if halves.residual is not None:
        assert [bags.slides[place] for place in halves.owners] == list(halves.residual.slides)
        assert tuple(halves.residual.lengths.tolist()) == halves.residual_lengths


def test_every_row_is_as_likely_to_stay() -> None:
    bags = example_bags((20,))
    torch.manual_seed(0)
    counts = torch.zeros(20)
    for _ in range(500):
        counts[split_rows(bags, (20,), 0.4).main.keys] += 1
    # 200 of 500 draws, with a standard deviation of 11.
    assert (counts - 200).abs().max() < 50


def test_parts_are_cut_to_what_a_pack_holds() -> None:
    bags = example_bags((40, 3))
    halves = split_rows(bags, (40, 3), 0.5, most=7)
    assert (halves.main_lengths, halves.residual_lengths) == ((7, 1), (7, 2))
    assert halves.residual is not None
    assert not set(halves.main.keys.tolist()) & set(halves.residual.keys.tolist())  # type: ignore[union-attr]


def test_a_pack_without_boundaries_has_the_rows_of_its_slides_in_order() -> None:
    bags = example_bags((2, 3, 1, 4))
    packs = [[3, 0], [1], [2]]
    joined = without_boundaries(bags, packs)
    parts = bags.unpack()
    for pack, bag in zip(packs, joined.unpack()):
        assert torch.equal(bag.x, torch.cat([parts[place].x for place in pack]))
        assert torch.equal(bag.keys, torch.cat([parts[place].keys for place in pack]))  # type: ignore[arg-type]
        assert bag.slides == ("+".join(bags.slides[place] for place in pack),)


def test_slides_of_one_pack_lie_side_by_side() -> None:
    bags = example_bags((20, 30))
    joined = without_boundaries(bags, [[1, 0]])
    assert joined.xy_um is not None
    assert bags.xy_um is not None
    second, first = joined.xy_um.split([30, 20])
    inside = torch.cdist(bags.xy_um[20:], bags.xy_um[20:])
    assert torch.allclose(torch.cdist(second, second), inside, atol=1e-2)
    assert torch.cdist(second, first).min() > 5000


def test_one_bag_a_pack_is_the_bags_themselves() -> None:
    bags = example_bags()
    plain = Bags(bags.x, bags.offsets, None, bags.slides)
    alone = without_boundaries(plain, [[0], [1], [2], [3]])
    assert torch.equal(alone.x, bags.x)
    assert torch.equal(alone.offsets, bags.offsets)
    assert alone.slides == bags.slides
