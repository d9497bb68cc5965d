from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coverslip.mil.parts import masking
from coverslip.nn.segments import Segments

LENGTHS = [1, 2, 3, 17, 40]
SEGMENTS = Segments.of_lengths(LENGTHS)
ratios = st.integers(0, 100).map(lambda percent: percent / 100)


def scores(*columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(sum(LENGTHS), *columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def counts(mask: torch.Tensor) -> list[int]:
    return [int(bag.sum()) for bag in mask.split(LENGTHS)]


def ceil(ratio: float, rows: int) -> int:
    return math.ceil(round(ratio * rows, 9))


@given(ratios, st.integers(1, 2_000_000))
def test_a_share_is_rounded_up_exactly(ratio: float, rows: int) -> None:
    percent = round(ratio * 100)
    assert int(masking.share(torch.tensor([rows]), ratio)) == -(-rows * percent // 100)


@given(ratios)
def test_random_rows_are_as_many_as_asked(ratio: float) -> None:
    assert counts(masking.random_rows(SEGMENTS, ratio)) == [ceil(ratio, rows) for rows in LENGTHS]


def test_random_rows_are_drawn_evenly_and_anew() -> None:
    torch.manual_seed(0)
    drawn = torch.stack([masking.random_rows(Segments.of_lengths([10, 4]), 0.5) for _ in range(800)]).double()
    # 800 draws: the standard deviation of a share of a half is .018.
    assert (drawn.mean(0) - 0.5).abs().max() < 0.075
    assert len(drawn.unique(dim=0)) > 400


@given(ratios)
def test_the_largest_and_the_smallest_are_those_of_a_sort(ratio: float) -> None:
    values = scores()
    for sign in (1, -1):
        marked = masking.largest_rows(sign * values, SEGMENTS, ratio)
        for bag, mask in zip((sign * values).split(LENGTHS), marked.split(LENGTHS)):
            expected = set(sorted(range(len(bag)), key=lambda i: -float(bag[i]))[: ceil(ratio, len(bag))])
            assert set(torch.nonzero(mask).flatten().tolist()) == expected


@pytest.mark.parametrize(("ratio", "pick"), [(0.1, 0.5), (0.02, 0.5), (0.3, 0.3), (0.2, 0.7)])
def test_a_share_of_the_largest_is_drawn(ratio: float, pick: float) -> None:
    torch.manual_seed(0)
    values = scores()
    pool = masking.largest_rows(values, SEGMENTS, ratio / pick)
    draws = torch.stack([masking.largest_rows(values, SEGMENTS, ratio, pick=pick) for _ in range(60)])
    assert not (draws & ~pool).any()
    assert draws.any(0)[pool].all()
    assert {tuple(counts(mask)) for mask in draws} == {tuple(ceil(pick, rows) for rows in counts(pool))}


def test_where_more_is_asked_than_there_is_all_rows_are_the_pool() -> None:
    marked = masking.largest_rows(scores(), SEGMENTS, 0.8, pick=0.5)
    assert counts(marked) == [ceil(0.8, rows) for rows in LENGTHS]


@given(st.integers(1, 5), ratios, st.integers(0, 99), st.booleans())
def test_votes_are_those_of_a_loop_over_heads(heads: int, ratio: float, seed: int, ties: bool) -> None:
    values = scores(heads, seed=seed)
    values = values.round() if ties else values
    marked = masking.largest_rows(values, SEGMENTS, ratio)
    for bag, mask in zip(values.split(LENGTHS), marked.split(LENGTHS)):
        k = ceil(ratio, len(bag))
        polls = [0] * len(bag)
        for head in range(heads):
            for row in sorted(range(len(bag)), key=lambda i: -float(bag[i, head]))[:k]:
                polls[row] += 1
        mean = bag.mean(1)
        best = sorted(range(len(bag)), key=lambda i: (-polls[i], -float(mean[i])))[:k]
        if heads == 1:
            best = sorted(range(len(bag)), key=lambda i: -float(bag[i, 0]))[:k]
        assert set(torch.nonzero(mask).flatten().tolist()) == set(best)


def test_no_bag_loses_its_last_row() -> None:
    everything = torch.ones(sum(LENGTHS), dtype=torch.bool)
    spared = masking.spare_one(everything, SEGMENTS)
    assert counts(~spared) == [1] * len(LENGTHS)
    some = masking.largest_rows(scores(), SEGMENTS, 0.4)
    some[0] = False
    assert torch.equal(masking.spare_one(some, SEGMENTS), some)


@given(ratios, ratios)
def test_rows_set_aside_and_rows_that_stay_are_the_kept_ones(ratio: float, keep: float) -> None:
    kept = ~masking.spare_one(masking.largest_rows(scores(), SEGMENTS, ratio), SEGMENTS)
    stay, aside = masking.set_aside(kept, SEGMENTS, keep)
    assert torch.equal(stay | aside, kept)
    assert not (stay & aside).any()
    assert counts(stay) == [max(1, math.floor(round(keep * rows, 9))) for rows in counts(kept)]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_class_score_has_the_order_of_the_softmax_where_single_precision_has_lost_it(classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(10_000, classes, generator=generator, dtype=torch.float64) / 10_000
    reference = u.softmax(1).amax(1).argsort(stable=True)
    found = masking.class_score(u.float())
    assert len(found.unique()) > 9_900
    assert len(u.float().softmax(1).amax(1).unique()) < 5_000
    places = torch.empty(10_000, dtype=torch.int64)
    places[found.argsort(stable=True)] = torch.arange(10_000)
    # Rounding u itself to float32 may swap neighbours.
    assert (places[reference] - torch.arange(10_000)).abs().max() <= 2
    assert torch.equal(masking.class_score(u).argsort(stable=True), reference)


def test_a_number_added_to_all_classes_changes_no_class_score() -> None:
    u = scores(3)
    assert torch.allclose(masking.class_score(u), masking.class_score(u + 7.0), atol=1e-12)


def test_with_one_output_the_class_score_orders_by_size() -> None:
    u = scores(1)
    assert torch.equal(masking.class_score(u).argsort(), u[:, 0].abs().argsort())
