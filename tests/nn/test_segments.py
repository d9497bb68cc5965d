"""Segment operations against loops over bags that anyone can read, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coverslip.nn import segments as ops
from coverslip.nn.segments import Segments

K = 5
LENGTHS = [1, 2, K - 1, K, K + 1, 300]
lengths_of_bags = st.lists(st.integers(1, 20), min_size=1, max_size=8)


def example(lengths: list[int], *columns: int, seed: int = 0) -> tuple[torch.Tensor, Segments]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(sum(lengths), *columns, generator=generator, dtype=torch.float64)
    return values, Segments.of_lengths(lengths)


def by_bag(values: torch.Tensor, segments: Segments) -> list[torch.Tensor]:
    return list(values.split(segments.lengths.tolist()))


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=0, atol=1e-12))


REDUCTIONS = {
    "total": (ops.total, lambda bag: bag.sum(0)),
    "mean": (ops.mean, lambda bag: bag.mean(0)),
    "maximum": (ops.maximum, lambda bag: bag.max(0).values),
    "logsumexp": (ops.logsumexp, lambda bag: bag.logsumexp(0)),
    "entropy": (ops.entropy, lambda bag: torch.special.entr(bag.softmax(0)).sum(0)),
}


@pytest.mark.parametrize("columns", [(), (3,)])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_reduction_is_that_of_each_bag_alone(name: str, columns: tuple[int, ...]) -> None:
    packed, alone = REDUCTIONS[name]
    values, segments = example(LENGTHS, *columns)
    assert same(packed(values, segments), torch.stack([alone(bag) for bag in by_bag(values, segments)]))


@given(lengths=lengths_of_bags, seed=st.integers(0, 1000))
def test_softmax_is_that_of_each_bag_alone(lengths: list[int], seed: int) -> None:
    scores, segments = example(lengths, 2, seed=seed)
    weights = ops.softmax(scores, segments)
    assert same(weights, torch.cat([bag.softmax(0) for bag in by_bag(scores, segments)]))
    assert same(ops.total(weights, segments), torch.ones(len(lengths), 2, dtype=torch.float64))


@given(lengths=lengths_of_bags, k=st.integers(1, 6), levels=st.integers(1, 4), seed=st.integers(0, 1000))
def test_rank_and_top_are_those_of_a_stable_sort(lengths: list[int], k: int, levels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, levels, (sum(lengths),), generator=generator).double()
    segments = Segments.of_lengths(lengths)
    expected = []
    for bag in scores.split(lengths):
        rows = sorted(range(len(bag)), key=lambda row: -float(bag[row]))
        expected += [rows.index(row) for row in range(len(bag))]
    assert ops.rank(scores, segments).tolist() == expected
    assert ops.top(scores, segments, k).tolist() == [place < k for place in expected]


def test_columns_are_ranked_by_themselves() -> None:
    scores, segments = example(LENGTHS, 3)
    ranks = ops.rank(scores, segments)
    assert all(torch.equal(ranks[:, c], ops.rank(scores[:, c], segments)) for c in range(3))


def test_positions_count_up_in_each_bag() -> None:
    assert ops.position(Segments.of_lengths([2, 1, 3])).tolist() == [0, 1, 0, 0, 1, 2]


def test_random_ranks_are_a_permutation_of_each_bag_and_uniform() -> None:
    segments = Segments.of_lengths([3, 1, 5])
    generator = torch.Generator().manual_seed(0)
    first = torch.zeros(9)
    for _ in range(600):
        ranks = ops.random_rank(segments, generator)
        assert [sorted(bag.tolist()) for bag in ranks.split([3, 1, 5])] == [[0, 1, 2], [0], [0, 1, 2, 3, 4]]
        first += ranks == 0
    # 600 draws: the standard deviation of a share of 1/3 is .019, of 1/5 .016.
    assert (first[:3] / 600 - 1 / 3).abs().max() < 0.08
    assert (first[4:] / 600 - 1 / 5).abs().max() < 0.07


def test_the_same_generator_gives_the_same_random_ranks() -> None:
    segments = Segments.of_lengths([30, 4])
    draws = [ops.random_rank(segments, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_masked_row_counts_as_absent() -> None:
    scores, segments = example([4, 6], 2)
    mask = torch.tensor([1, 0, 1, 1, 0, 1, 1, 0, 1, 1], dtype=torch.bool).unsqueeze(1).expand(-1, 2)
    # What a masked row holds must not matter, not even where it is no number.
    scores[~mask] = torch.inf
    weights = ops.softmax(scores, segments, mask)
    assert (weights[~mask] == 0).all()
    kept = [bag[m].reshape(-1, 2) for bag, m in zip(by_bag(scores, segments), mask.split([4, 6]))]
    assert same(weights[mask].reshape(-1, 2), torch.cat([bag.softmax(0) for bag in kept]))
    assert same(ops.logsumexp(scores, segments, mask), torch.stack([bag.logsumexp(0) for bag in kept]))
    assert same(ops.maximum(scores, segments, mask), torch.stack([bag.max(0).values for bag in kept]))
    entropies = torch.stack([torch.special.entr(bag.softmax(0)).sum(0) for bag in kept])
    assert same(ops.entropy(scores, segments, mask), entropies)


def test_a_bag_that_is_masked_whole_gives_zeros_and_no_gradient() -> None:
    scores, segments = example([3, 4])
    scores.requires_grad_(True)
    mask = torch.tensor([False] * 3 + [True] * 4)
    for result in (
        ops.softmax(scores, segments, mask)[:3],
        ops.maximum(scores, segments, mask)[:1],
        ops.logsumexp(scores, segments, mask)[:1],
        ops.entropy(scores, segments, mask)[:1],
    ):
        assert (result == 0).all()
        (gradient,) = torch.autograd.grad(result.sum(), scores)
        assert torch.isfinite(gradient).all()
        assert (gradient[:3] == 0).all()


def test_entropy_is_log_n_for_equal_scores_and_zero_for_one_row() -> None:
    segments = Segments.of_lengths([1, 7])
    entropy = ops.entropy(torch.full((8,), 3.0, dtype=torch.float64), segments)
    assert entropy.tolist() == pytest.approx([0.0, math.log(7)], abs=1e-12)


def test_large_scores_do_not_overflow() -> None:
    scores = torch.tensor([1e4, 1e4 - 1, -1e4])
    weights = ops.softmax(scores, Segments.of_lengths([3]))
    assert weights.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e), 0.0], abs=1e-6)


def test_half_precision_is_summed_in_float32() -> None:
    ones = torch.ones(4096, dtype=torch.float16)
    segments = Segments.of_lengths([4095, 1])
    # A running float16 sum of ones stops at 2048.
    assert ops.total(ones, segments).tolist() == [4096.0, 1.0]  # 4095 rounds to the nearest float16
    assert ops.mean(ones, segments).tolist() == [1.0, 1.0]
    assert ops.mean(ones, segments).dtype == torch.float16


def test_weighted_sums_are_matrix_products_of_each_bag() -> None:
    rows, segments = example(LENGTHS, 7)
    weights, _ = example(LENGTHS, 3, seed=1)
    expected = torch.stack([w.T @ h for w, h in zip(by_bag(weights, segments), by_bag(rows, segments))])
    assert same(ops.weighted_sum(weights, rows, segments), expected)


@pytest.mark.parametrize("name", [*REDUCTIONS, "softmax", "softmax masked"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    values, segments = example([1, 2, 6], 2)
    mask = torch.rand(9, 2, generator=torch.Generator().manual_seed(0)) > 0.3
    operations = {
        **{key: packed for key, (packed, _) in REDUCTIONS.items()},
        "softmax": ops.softmax,
        "softmax masked": lambda x, s: ops.softmax(x, s, mask),
    }
    assert torch.autograd.gradcheck(lambda x: operations[name](x, segments), (values.requires_grad_(True),))


def test_equal_largest_rows_share_the_gradient() -> None:
    values = torch.tensor([2.0, 2.0, 1.0], requires_grad=True)
    ops.maximum(values, Segments.of_lengths([3])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.5, 0.5, 0.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", [*REDUCTIONS, "softmax", "rank"])
def test_a_gpu_gives_what_the_cpu_gives(name: str) -> None:
    values, segments = example(LENGTHS, 3)
    operations = {key: packed for key, (packed, _) in REDUCTIONS.items()} | {"softmax": ops.softmax, "rank": ops.rank}
    there = Segments(segments.offsets.cuda(), segments.num_rows)
    assert torch.allclose(operations[name](values, segments), operations[name](values.cuda(), there).cpu())


@pytest.mark.parametrize("columns", [(), (3,)])
def test_the_first_largest_row_is_that_of_a_loop(columns: tuple[int, ...]) -> None:
    scores, segments = example(LENGTHS, *columns)
    scores = scores.round()
    starts = segments.offsets[:-1].tolist()
    for values, start, bag in zip(ops.first_largest(scores, segments), starts, scores.split(LENGTHS)):
        first = (bag == bag.amax(0)).int().argsort(dim=0, descending=True, stable=True)[0]
        assert torch.equal(values, start + first)
