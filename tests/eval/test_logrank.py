"""The log-rank statistic against lifelines and a published example."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.statistics import multivariate_logrank_test

from coverslip.base.errors import TableError
from coverslip.eval.logrank import logrank


def test_it_is_the_published_example_of_r() -> None:
    # 6-MP against placebo in leukaemia (Freireich et al. 1963); R's survdiff: 16.8 on 1 degree of freedom
    treated = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
    ended = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    placebo = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
    found = logrank(np.array(treated + placebo), np.array(ended + [1] * 21), np.array(["6-MP"] * 21 + ["placebo"] * 21))
    assert found.statistic == pytest.approx(16.79, abs=0.005)
    assert found.expected == pytest.approx((19.25, 10.75), abs=0.005)
    assert found.observed == (9, 21)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 15), st.booleans(), st.sampled_from(["a", "b", "c"])), min_size=6, max_size=60)
)
def test_it_is_that_of_lifelines(rows: list[tuple[int, bool, str]]) -> None:
    time, event, group = (np.array(column) for column in zip(*rows))
    found = logrank(time, event, group)
    if found.statistic is None or found.df < len(np.unique(group)) - 1:
        return
    theirs = multivariate_logrank_test(time, group, event)
    assert found.statistic == pytest.approx(theirs.test_statistic, abs=1e-9, rel=1e-9)
    assert found.p == pytest.approx(theirs.p_value, abs=1e-9)


def test_what_cannot_be_compared_is_null_with_a_reason() -> None:
    time = np.array([1.0, 2, 3, 4])
    assert logrank(time, np.zeros(4, bool), np.array(list("aabb"))).reason == "no event"
    assert logrank(time, np.ones(4, bool), np.array(list("aaaa"))).reason == "needs two groups"
    apart = logrank(np.array([1.0, 5, 5, 5]), np.array([0, 1, 1, 1], bool), np.array(list("abbb")))
    assert apart.reason == "the groups are never at risk together"
    with pytest.raises(TableError, match=r"row 1: -2\.0 is no time"):
        logrank(np.array([1.0, -2.0]), np.ones(2, bool), np.array(list("ab")))
