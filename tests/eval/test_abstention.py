"""Risk over coverage by a slow loop, and what folds' models agree on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.eval.abstention import fold_spread, risk_coverage


def test_without_ties_it_is_what_a_loop_gives() -> None:
    rng = np.random.default_rng(0)
    confidence, wrong = rng.random(40), rng.random(40) < 0.3
    found = risk_coverage(confidence, wrong)
    order = np.argsort(-confidence)
    risks = [wrong[order][: i + 1].mean() for i in range(40)]
    assert found["risk"] == pytest.approx(risks)
    assert found["coverage"] == pytest.approx([(i + 1) / 40 for i in range(40)])
    assert found["aurc"] == pytest.approx(np.mean(risks))


def test_perfect_and_useless_confidence() -> None:
    wrong = np.array([False] * 6 + [True] * 4)
    assert risk_coverage(np.arange(10)[::-1], wrong)["aurc"] == pytest.approx(
        risk_coverage(np.ones(10), wrong)["aurc_at_best"]
    )
    constant = risk_coverage(np.ones(10), wrong)
    assert constant["aurc"] == pytest.approx(constant["aurc_by_chance"]) == 0.4
    assert (constant["coverage"], constant["risk"]) == ([1.0], [0.4])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=50))
def test_all_decided_gives_the_error_and_rank_alone_counts(pairs: list[tuple[int, bool]]) -> None:
    confidence, wrong = np.array([c for c, _ in pairs], float), np.array([w for _, w in pairs])
    found = risk_coverage(confidence, wrong)
    assert found["risk"][-1] == pytest.approx(wrong.mean())
    assert found["aurc_at_best"] - 1e-12 <= found["aurc"]
    assert risk_coverage(np.exp(confidence), wrong) == found
    assert all(low <= risk <= high for low, risk, high in zip(found["low"], found["risk"], found["high"]))


def test_nobody_is_no_crash() -> None:
    assert risk_coverage(np.array([]), np.array([], bool)) is None
    assert len(fold_spread(np.zeros((3, 0, 2)))["p_sd"]) == 0


def test_models_that_disagree_are_told() -> None:
    p = np.array([[[0.9, 0.1], [0.6, 0.4]], [[0.9, 0.1], [0.3, 0.7]], [[0.9, 0.1], [0.2, 0.8]]])
    found = fold_spread(p)
    assert found["p_sd"] == pytest.approx([0.0, np.std([0.4, 0.7, 0.8], ddof=1)])
    assert found["disagreement"] == pytest.approx([0.0, 1 / 3])
    assert np.isnan(fold_spread(p[:1])["p_sd"]).all()
