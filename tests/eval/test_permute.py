"""Permutations of patients: who gets what, the p-value, and the log-rank of a whole cross-validation."""

from __future__ import annotations

import numpy as np
import pytest

from coverslip.base.errors import SettingsError
from coverslip.eval.logrank import logrank
from coverslip.eval.permute import control, permuted_logrank, permuted_outcomes

OUTCOMES = {f"p{i}": (i * 10, i % 3 == 0) for i in range(30)}


def test_every_outcome_is_dealt_once_and_stays_whole() -> None:
    dealt = list(permuted_outcomes(OUTCOMES))
    assert len(dealt) == 20
    for outcomes in dealt:
        assert list(outcomes) == list(OUTCOMES)
        assert sorted(outcomes.values()) == sorted(OUTCOMES.values())
    assert len({tuple(outcomes.values()) for outcomes in dealt}) == 20
    assert dealt == list(permuted_outcomes(OUTCOMES))
    assert dealt != list(permuted_outcomes(OUTCOMES, seed=1))


def test_the_order_of_patients_does_not_matter() -> None:
    turned = dict(reversed(OUTCOMES.items()))
    assert next(permuted_outcomes(turned)) == next(permuted_outcomes(OUTCOMES))


def test_outcomes_stay_within_their_site() -> None:
    site = {patient: "a" if int(patient[1:]) < 10 else "b" for patient in OUTCOMES}
    for outcomes in permuted_outcomes(OUTCOMES, within=site):
        assert sorted(outcomes[p] for p in site if site[p] == "a") == sorted(
            OUTCOMES[p] for p in site if site[p] == "a"
        )


def test_p_counts_the_figure_itself() -> None:
    assert control(0.9, [0.5] * 20).p == pytest.approx(1 / 21)
    assert control(0.5, [0.5] * 20).p == 1.0
    assert control(0.1, [0.5] * 19 + [0.05], lower_is_better=True).p == pytest.approx(2 / 21)
    found = control(0.9, [None, *[0.5, 0.6] * 10])
    assert (found.undefined, found.to_json()["permutations"]) == (1, 21)
    assert found.to_json()["permuted"]["mean"] == pytest.approx(0.55)


def test_too_few_permutations_are_refused_or_told() -> None:
    with pytest.raises(SettingsError, match="At least 20"):
        permuted_outcomes(OUTCOMES, 19)
    with pytest.raises(SettingsError, match="control of 5 permutations"):
        control(0.9, [0.5] * 5)
    assert control(0.9, [None] * 10 + [0.5] * 10).p is None
    assert control(None, [0.5] * 20).reason


def test_groups_made_by_cross_validation_keep_their_error_rate_by_permutation_only() -> None:
    """A marker of pure noise, its direction chosen on the other fold: the usual p is wrong, the permuted one is not."""
    rng = np.random.default_rng(0)
    usual, permuted = [], []
    for _ in range(60):
        time, event = rng.exponential(1, 40), rng.random(40) < 0.7
        marker = rng.normal(size=(40, 10))

        def grouped(t: np.ndarray, e: np.ndarray, marker: np.ndarray = marker) -> np.ndarray:
            group = np.empty(40, dtype=object)
            for fold in (0, 1):
                train, test = np.arange(40) % 2 != fold, np.arange(40) % 2 == fold
                weights = (marker[train] * (e[train] - t[train])[:, None]).mean(axis=0)
                risk = marker[test] @ weights
                group[test] = np.where(risk > np.median(risk), "high", "low")
            return group

        usual.append(logrank(time, event, grouped(time, event)).p)
        permuted.append(permuted_logrank(time, event, grouped, 20).p)
    assert np.mean(np.array(permuted) <= 0.0477) <= 0.13
    assert all(0 < p <= 1 for p in permuted)
