"""Steps for few and many bags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.base.study import FitSettings
from coverslip.train.sizing import rate_of, sized


@pytest.mark.parametrize(
    ("num_bags", "batch", "lr"),
    [(1, 1, 1e-3), (15, 1, 1e-3), (32, 2, 1e-3), (128, 8, 4.4721e-4), (512, 8, 2e-4), (9000, 8, 2e-4)],
)
def test_few_bags_are_taken_one_by_one_with_larger_steps(num_bags: int, batch: int, lr: float) -> None:
    settings = sized(FitSettings(), num_bags)
    assert settings.batch == batch
    assert settings.lr == pytest.approx(lr, rel=1e-4)


def test_what_the_user_says_stays() -> None:
    settings = sized(FitSettings(batch=3, lr=0.5), 15)
    assert (settings.batch, settings.lr) == (3, 0.5)


@given(st.integers(1, 10_000))
def test_more_bags_never_mean_larger_steps(num_bags: int) -> None:
    assert rate_of(num_bags + 1) <= rate_of(num_bags)
    assert sized(FitSettings(), num_bags + 1).batch >= sized(FitSettings(), num_bags).batch
