from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.base.geometry import Size
from coverslip.slide.levels import best_level, downsample_of, same_picture


@given(st.integers(64, 200_000), st.integers(64, 200_000), st.integers(0, 6))
def test_halving_again_and_again_is_a_whole_factor(width: int, height: int, times: int) -> None:
    level = Size(max(1, width >> times), max(1, height >> times))
    if min(level) > 2**times:  # below, sizes are too small to tell factors apart
        assert downsample_of(level, Size(width, height)) == 2**times


def test_a_dropped_row_does_not_bend_the_factor() -> None:
    assert downsample_of(Size(2738, 2577), Size(5477, 5154)) == 2.0
    assert downsample_of(Size(342, 322), Size(5477, 5154)) == 16.0
    assert downsample_of(Size(37, 31), Size(300, 250)) == 8.0


def test_a_level_that_was_rounded_up_has_the_whole_factor_too() -> None:
    assert downsample_of(Size(2739, 2577), Size(5477, 5154)) == 2.0


def test_a_ratio_that_is_not_whole_is_kept() -> None:
    assert downsample_of(Size(4000, 3000), Size(10000, 7500)) == 2.5


@pytest.mark.parametrize(
    ("wanted", "level"),
    [(0.5, 0), (1, 0), (1.9, 0), (1.985, 1), (2, 1), (3.9, 1), (4, 2), (16, 2), (1000, 2)],
)
def test_the_coarsest_level_that_is_fine_enough_is_taken(wanted: float, level: int) -> None:
    assert best_level([1.0, 2.0, 4.0], wanted) == level


@given(st.lists(st.floats(1, 64), min_size=1, max_size=6), st.floats(0.1, 100))
def test_a_finer_level_than_the_one_taken_is_never_needed(downsamples: list[float], wanted: float) -> None:
    chosen = downsamples[best_level(downsamples, wanted)]
    assert chosen <= wanted * 1.01 or chosen == min(downsamples)
    assert not any(chosen < d <= wanted for d in downsamples)


def test_a_picture_of_other_proportions_is_no_level() -> None:
    base = Size(46000, 32914)
    assert same_picture(Size(11500, 8228), base)
    assert not same_picture(Size(1280, 431), base)
    assert not same_picture(Size(387, 463), base)
    assert not same_picture(Size(50000, 35000), base)
