"""Padded batches: which bags share one, and rows that come back as they were."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coverslip.nn.padded import Padded, batches
from coverslip.nn.segments import Segments, position

CPU = torch.device("cpu")
lengths_of_bags = st.lists(st.integers(1, 300), min_size=1, max_size=12)


@given(lengths=lengths_of_bags, most=st.integers(0, 200))
def test_batches_are_all_rows_in_their_order_with_little_padding(lengths: list[int], most: int) -> None:
    x = torch.arange(sum(lengths))
    found = list(batches(x, lengths, most=most))
    assert torch.equal(torch.cat([rows for rows, _ in found]), x)
    assert [rows for _, of_bags in found for rows in of_bags] == lengths
    for rows, of_bags in found:
        assert len(rows) == sum(of_bags)
        assert len(of_bags) == 1 or max(of_bags) <= most
        assert max(of_bags) <= max(32, 2 * min(of_bags))


def test_bags_in_order_of_length_have_few_batches() -> None:
    lengths = sorted([1, 200, 3, 90, 35, 60, 5000, 12, 28])
    found = [of_bags for _, of_bags in batches(torch.zeros(sum(lengths)), lengths, most=256)]
    assert found == [[1, 3, 12, 28], [35, 60], [90], [200], [5000]]


@pytest.mark.parametrize("columns", [(), (3,), (2, 4)])
@pytest.mark.parametrize("lengths", [[7], [4, 4], [1, 9, 4], [3, 1]])
def test_rows_laid_and_picked_are_the_rows(lengths: list[int], columns: tuple[int, ...]) -> None:
    x = torch.randn(sum(lengths), *columns, generator=torch.Generator().manual_seed(0))
    padded = Padded.of(lengths, CPU)
    laid = padded.lay(x)
    assert laid.shape == (len(lengths), max(lengths), *columns)
    assert torch.equal(padded.pick(laid), x)
    for bag, rows in zip(laid, x.split(lengths), strict=True):
        assert torch.equal(bag[: len(rows)], rows)
        assert not bag[len(rows) :].any()


def test_taken_are_the_places_with_a_row() -> None:
    assert Padded.of([4, 4], CPU).taken() is None
    taken = Padded.of([1, 3], CPU).taken()
    assert taken is not None
    assert taken.tolist() == [[True, False, False], [True, True, True]]


def test_rows_may_lie_at_places_of_their_own() -> None:
    segments = Segments.of_lengths([2, 3])
    backwards = Padded(2, 4, 4 * segments.ids + 3 - position(segments))
    x = torch.arange(1, 6)
    assert backwards.lay(x).tolist() == [[0, 0, 2, 1], [0, 5, 4, 3]]
    assert torch.equal(backwards.pick(backwards.lay(x)), x)
