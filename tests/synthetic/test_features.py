"""Planted bags: the answer is in the witnesses and only there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.synthetic import make_bags


@settings(max_examples=30, deadline=None)
@given(
    bags=st.integers(1, 20),
    low=st.integers(1, 10),
    more=st.integers(0, 20),
    classes=st.integers(2, 4),
    rate=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_shapes_fit_and_every_positive_bag_has_a_witness(
    bags: int, low: int, more: int, classes: int, rate: float, seed: int
) -> None:
    data = make_bags(bags, rows=(low, low + more), dim=8, classes=classes, witness_rate=rate, seed=seed)
    sizes = np.diff(data.offsets)
    assert data.offsets[0] == 0
    assert data.offsets[-1] == len(data.x) == len(data.witness) == len(data.xy)
    assert sizes.min() >= low
    assert sizes.max() <= low + more
    for i in range(bags):
        part = slice(data.offsets[i], data.offsets[i + 1])
        assert data.witness[part].any() == (data.y[i] > 0)
        assert len(np.unique(data.xy[part], axis=0)) == sizes[i]


def test_rows_that_are_no_witness_know_nothing_of_the_class() -> None:
    data = make_bags(200, seed=1)
    labels = np.repeat(data.y, np.diff(data.offsets))
    plain = data.x[~data.witness]
    gap = plain[labels[~data.witness] == 1].mean(0) - plain[labels[~data.witness] == 0].mean(0)
    assert np.abs(gap).max() < 0.1
    assert np.linalg.norm(data.x[data.witness].mean(0)) == pytest.approx(2.0, abs=0.3)


def test_the_seed_decides() -> None:
    one, same, other = make_bags(5, seed=1), make_bags(5, seed=1), make_bags(5, seed=2)
    assert np.array_equal(one.x, same.x)
    assert one.x.shape != other.x.shape or not np.array_equal(one.x, other.x)


def test_more_classes_than_directions_are_refused() -> None:
    with pytest.raises(ValueError, match="dim"):
        make_bags(4, dim=2, classes=4)
