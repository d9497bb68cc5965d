"""The choice begins at the declared reference and never follows the largest figure."""

from __future__ import annotations

import numpy as np
import pytest

from coverslip.eval import FoldSize, compare_folds
from coverslip.eval.choice import Choice, Price, choose, mean_ranks, noise

SIZES = [FoldSize(fold, 80, 20) for fold in range(5)]
BASE = np.array([0.70, 0.72, 0.68, 0.71, 0.69])
WIGGLE = np.array([0.01, -0.01, 0.012, -0.008, 0.004])
PRICES = {
    "ref": Price(1000, 10.0),
    "small": Price(100, 1.0),
    "large": Price(9000, 50.0),
    "as_large": Price(1000, 9.0),
}


def chosen(margin: float = 0.02, **gaps: np.ndarray) -> Choice:
    values = {"ref": (BASE).tolist(), **{name: (BASE + gap).tolist() for name, gap in gaps.items()}}
    linear = {"linear": (BASE - 0.1 + WIGGLE).tolist(), **values}
    return choose(
        compare_folds("auroc", "ref", values, SIZES),
        compare_folds("auroc", "linear", linear, SIZES),
        PRICES,
        margin=margin,
        level="patient",
    )


def test_the_largest_figure_is_not_chosen_where_the_difference_is_noise() -> None:
    found = chosen(large=WIGGLE * 4 + 0.005)
    assert found.method == "ref"
    assert "no difference to ref is shown" in found.others[0]


def test_the_cheapest_of_those_not_shown_to_be_worse_is_chosen() -> None:
    found = chosen(small=WIGGLE - 0.002, large=WIGGLE * 4 + 0.005)
    assert found.method == "small"
    assert "cheapest" in found.reasons[0] and "100 parameters" in found.reasons[0]
    assert any("a loss of up to" in reason for reason in found.reasons)


def test_a_second_less_is_no_reason_to_leave_the_reference() -> None:
    assert chosen(as_large=WIGGLE + 0.002).method == "ref"


def test_a_mean_far_below_is_not_chosen_though_nothing_is_shown() -> None:
    gap = np.array([0.2, -0.3, 0.1, -0.4, 0.05])
    assert chosen(small=gap).method == "ref"
    assert "compare.margin" in chosen(small=gap).others[0]
    assert chosen(margin=0.2, small=gap).method == "small"


def test_what_is_shown_to_be_worse_is_never_chosen() -> None:
    found = chosen(margin=1.0, small=WIGGLE / 10 - 0.1)
    assert found.method == "ref"
    assert "shown to be worse" in found.others[0]


def test_of_those_shown_to_be_better_the_cheapest_is_chosen() -> None:
    found = chosen(small=WIGGLE / 10 + 0.1, large=WIGGLE / 10 + 0.15)
    assert found.method == "small"
    assert "shown to be better" in found.reasons[0]


def test_a_method_that_does_not_beat_the_baseline_is_chosen_with_that_said() -> None:
    values = {"ref": BASE.tolist(), "small": (BASE + WIGGLE).tolist()}
    linear = compare_folds("auroc", "linear", {"linear": (BASE + WIGGLE * 3).tolist(), **values}, SIZES)
    found = choose(compare_folds("auroc", "ref", values, SIZES), linear, PRICES, margin=0.02, level="patient")
    assert "not shown to beat the linear baseline" in found.reasons[-1]


def test_without_a_figure_of_the_reference_nothing_is_chosen() -> None:
    values = {"ref": [None] * 5, "small": BASE.tolist()}
    linear = {"linear": BASE.tolist(), **values}
    found = choose(
        compare_folds("auroc", "ref", values, SIZES),
        compare_folds("auroc", "linear", linear, SIZES),
        PRICES,
        margin=0.02,
        level="patient",
    )
    assert found.method is None and "nothing can be chosen" in found.reasons[0]


def test_one_fold_shows_nothing_and_the_reference_stands() -> None:
    values, size = {"ref": [0.6], "small": [0.9]}, SIZES[:1]
    linear = {"linear": [0.5], **values}
    comparison = compare_folds("auroc", "ref", values, size)
    found = choose(comparison, compare_folds("auroc", "linear", linear, size), PRICES, margin=0.02, level="patient")
    assert found.method == "ref"
    assert "could be tested" in noise(comparison)


def test_noise_counts_what_is_shown() -> None:
    values = {"ref": BASE.tolist(), "same": (BASE + WIGGLE).tolist(), "worse": (BASE + WIGGLE / 10 - 0.1).tolist()}
    said = noise(compare_folds("auroc", "ref", values, SIZES))
    assert "Of 2 methods tested against ref, 1 is shown to differ" in said
    assert f"within {abs(WIGGLE.mean()):.3f} auroc" in said


def test_mean_ranks_are_those_counted_by_hand() -> None:
    ranks = mean_ranks({"a": [0.9, 0.8, 0.7], "b": [0.8, 0.8, 0.9], "c": [0.1, 0.2, None]}, SIZES[:3])
    # The third fold has no figure of c and is left out for all.
    assert [ranks[name].value for name in "abc"] == [1.25, 1.75, 3.0]
    assert all(1 <= (rank.low or 1) <= (rank.high or 3) <= 3 for rank in ranks.values())


def test_ranks_of_folds_that_share_patients_are_wider_than_of_independent_rows() -> None:
    rng = np.random.default_rng(0)
    table = {name: rng.normal(size=5).tolist() for name in "abcd"}
    ranks = mean_ranks(table, SIZES)
    for name, rank in ranks.items():
        rows = [sorted(range(4), key=lambda k: -list(table.values())[k][fold]) for fold in range(5)]
        each = [rows[fold].index("abcd".index(name)) + 1 for fold in range(5)]
        assert rank.value == pytest.approx(np.mean(each))
        if rank.low is not None and rank.high is not None and rank.low > 1 and rank.high < 4:
            assert rank.high - rank.low > 2 * 2.776 * np.std(each, ddof=1) / np.sqrt(5)
