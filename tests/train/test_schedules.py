from __future__ import annotations

import pytest

from coverslip.train.schedules import cosine, linear, rate_factor, warm_up


@pytest.mark.parametrize("schedule", [linear, cosine])
def test_a_schedule_meets_its_ends_and_stays_there(schedule: type(linear)) -> None:  # type: ignore[valid-type]
    assert schedule(2.0, 0.5, 0.0) == pytest.approx(2.0)
    assert schedule(2.0, 0.5, 0.5) == pytest.approx(1.25)
    assert schedule(2.0, 0.5, 1.0) == pytest.approx(0.5)
    assert schedule(2.0, 0.5, 3.0) == pytest.approx(0.5)


def test_the_warm_up_rises_to_one_and_starts_above_zero() -> None:
    assert [warm_up(step, 100, 0.05) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert warm_up(0, 100, 0.0) == 1.0


def test_the_rate_rises_then_falls_to_almost_nothing() -> None:
    factors = [rate_factor(step, 200, warmup=0.1, schedule="cosine") for step in range(200)]
    assert max(factors) == 1.0
    assert factors[:20] == sorted(factors[:20])
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert 0 < factors[-1] < 1e-3


def test_a_constant_rate_stays_after_the_warm_up() -> None:
    assert {rate_factor(step, 200, warmup=0.1, schedule="constant") for step in range(20, 200)} == {1.0}


def test_a_run_of_one_step_has_a_rate() -> None:
    assert rate_factor(0, 1, warmup=0.05, schedule="cosine") == 1.0
