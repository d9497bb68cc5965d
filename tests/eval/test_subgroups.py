from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.eval.auroc_interval import auroc_interval
from coverslip.eval.concordance import Concordance, Contrast
from coverslip.eval.fold_rows import FoldRows, concordance_interval, fold_rows
from coverslip.eval.subgroups import make_levels, subgroups
from coverslip.eval.truth import Task


def _tested(score: np.ndarray, y: np.ndarray, folds: int = 2) -> FoldRows:
    names = np.array([f"p{i}" for i in range(len(y))], dtype=object)
    fold = np.arange(len(y)) // 2 % folds
    return FoldRows(names, names, fold, y, ("0", "1"), (0, 1), (Contrast(score, y.astype(float)),))


def _slow(score: np.ndarray, truth: np.ndarray, strata: np.ndarray, w: np.ndarray) -> float:
    right = total = 0.0
    for i in range(len(score)):
        for j in range(len(score)):
            if strata[i] == strata[j] and truth[i] > truth[j]:
                pair = w[i] * w[j]
                total += pair
                right += pair * (1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0)
    return right / total if total else float("nan")


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=14
    )
)
@settings(max_examples=80, deadline=None)
def test_concordance_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[int, int, int, int]]) -> None:
    score, truth, strata, w = (np.array(column, dtype=float) for column in zip(*rows))
    found = Concordance([Contrast(score, truth)], strata.astype(int))(w[None, :])[0]
    assert found == pytest.approx(_slow(score, truth, strata, w), nan_ok=True)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(1, 5)), min_size=2, max_size=14))
@settings(max_examples=80, deadline=None)
def test_with_times_it_is_harrells_c_index(rows: list[tuple[int, int, int]]) -> None:
    risk, event, time = (np.array(column, dtype=float) for column in zip(*rows))
    right = total = 0.0
    for i in range(len(risk)):
        for j in range(len(risk)):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                total += 1
                right += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    found = Concordance([Contrast(risk, event, time)], np.zeros(len(risk), int))(np.ones((1, len(risk))))[0]
    assert found == pytest.approx(right / total if total else float("nan"), nan_ok=True)


def test_a_subgroup_in_which_the_model_fails_is_found_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 120)
    bad = np.repeat([True, False], [80, 160])
    score = np.where(bad, rng.normal(size=240), y * 2 + rng.normal(size=240))
    scanner = np.where(bad, "old", "new")
    found = subgroups(_tested(score, y), {"scanner": scanner, "sex": rng.choice(["F", "M"], 240)})
    by_name = {one["attribute"]: one["levels"] for one in found["attributes"]}
    old = next(level for level in by_name["scanner"] if level["level"] == "old")
    assert old["difference"]["p_holm"] < 0.01
    assert old["difference"]["high"] < 0
    assert old["counts"] == {"0": 40, "1": 40}
    assert all(level["difference"]["p_holm"] > 0.05 for level in by_name["sex"])
    assert found["tests"] == 2  # an attribute of two levels is one test


def test_nothing_is_claimed_under_ten_events_and_a_subgroup_of_one_is_no_crash() -> None:
    rng = np.random.default_rng(1)
    y = np.tile([0, 1], 60)
    level = np.array(["many"] * 100 + ["few"] * 19 + ["one"], dtype=object)
    (found,) = subgroups(_tested(rng.normal(size=120), y), {"a": level})["attributes"]
    told = {one["level"]: one for one in found["levels"]}
    assert told["few"]["figure"] is None and told["few"]["reason"] == "too few: 9 of class 1, under 10"
    assert told["one"]["units"] == 1 and told["one"]["figure"] is None
    assert told["many"]["figure"] is not None


@given(
    n=st.integers(1, 30),
    values=st.sampled_from(["numbers", "nan", "text", "mixed", "one", "ids"]),
    classes=st.integers(1, 2),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_odd_covariates_never_crash(n: int, values: str, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    column: list[Any] = {
        "numbers": rng.normal(size=n).tolist(),
        "nan": [float("nan")] * n,
        "text": rng.choice(["a", "b", None], n).tolist(),
        "mixed": [("x", 1.5, None, True)[i % 4] for i in range(n)],
        "one": ["same"] * n,
        "ids": [f"id{i}" for i in range(n)],
    }[values]
    found = subgroups(_tested(rng.normal(size=n), rng.integers(0, classes, n)), {"c": column})
    for attribute in found["attributes"]:
        assert sum(level["units"] for level in attribute["levels"]) == n


def test_chance_differences_are_rarely_claimed() -> None:
    claims = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        y = np.tile([0, 1], 60)
        columns = {f"c{i}": rng.choice(["a", "b", "c"], 120) for i in range(3)}
        found = subgroups(_tested(y + rng.normal(0, 1.2, 120), y), columns, seed=seed)
        gaps = [lv["difference"] for one in found["attributes"] for lv in one["levels"] if lv["difference"]]
        claims += any(gap["p_holm"] < 0.05 for gap in gaps)
    assert claims <= 3  # 5 % of 12 is 1 at most


def test_numbers_are_cut_at_the_median_or_as_told() -> None:
    ages = list(range(20, 40))
    halves = make_levels(ages)
    assert not isinstance(halves, str) and halves.names == ("under 29.5", "29.5 or more")
    thirds = make_levels([*ages, None], [25, 35])
    assert not isinstance(thirds, str)
    assert thirds.names == ("under 25", "25 to under 35", "35 or more", "not given")
    assert np.bincount(thirds.level).tolist() == [5, 10, 5, 1]
    grades = make_levels([1.0, 2.0, 3.0] * 5)
    assert not isinstance(grades, str) and grades.names == ("1", "2", "3")
    assert make_levels([f"p{i}" for i in range(20)]) == "20 values in 20 rows: names, not groups"


def _task_rows(kind: str, y: np.ndarray, p: np.ndarray, classes: tuple[str, ...], patient: np.ndarray | None = None):  # type: ignore[no-untyped-def]
    names = np.array([f"u{i}" for i in range(len(y))], dtype=object)
    who = names if patient is None else patient
    return fold_rows(names, who, np.zeros(len(y), np.int64), y, p, Task(kind, "t", classes))


def test_each_kind_counts_what_its_figure_hangs_on() -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([np.arange(40) % 2, np.arange(40) < 1], axis=1).astype(float)
    labels[20:, 0] = np.nan
    rows = _task_rows("multilabel", labels, rng.random((40, 2)), ("a", "b"))
    assert rows.scarcest() == (1, "with b")
    assert rows.counts() == {"without a": 10, "with a": 10, "without b": 39, "with b": 1}
    times = np.stack([rng.exponential(size=40), np.r_[np.ones(20), [2] * 3, np.zeros(17)]], axis=1)
    rows = _task_rows("competing_risks", times, rng.random((40, 2)), ("relapse", "death"))
    assert rows.scarcest() == (3, "with the event death")
    levels = np.r_[np.zeros(30, int), [1] * 4, [2] * 6]
    rows = _task_rows("ordinal", levels, rng.dirichlet(np.ones(3), 40), ("low", "mid", "high"))
    assert rows.scarcest() == (10, "not low, the commonest level")
    assert rows.too_few() is None and rows.only(np.arange(40) < 39).too_few() is not None
    numbers = rng.normal(size=40)
    rows = _task_rows("regression", numbers, rng.random((40, 1)), ())
    assert len(set(rows.group.tolist())) == 4  # shuffles stay among numbers of like size
    assert rows.scarcest() == (40, "patients")


def test_slides_of_one_patient_are_not_so_many_events() -> None:
    y = np.repeat([0, 1], 30)
    one = np.where(y == 1, "same", [f"p{i}" for i in range(60)]).astype(object)
    rows = _task_rows("classification", y, np.random.default_rng(0).dirichlet(np.ones(2), 60), ("no", "yes"), one)
    assert rows.too_few() == "too few: 1 of class yes, under 10"


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30))
@settings(max_examples=80, deadline=None)
def test_in_one_fold_the_interval_is_that_of_a_fixed_cohort(rows: list[tuple[int, bool, int]]) -> None:
    score, positive, patient = (np.array(column) for column in zip(*rows))
    if positive.all() or not positive.any():
        return
    who = np.array([f"{patient[i]}{positive[i]}" for i in range(len(rows))], dtype=object)  # of one class each
    mine = FoldRows(
        np.arange(len(rows)).astype(str), who, np.zeros(len(rows), np.int64), positive.astype(int), ("0", "1"), (0, 1),
        (Contrast(score.astype(float), positive.astype(float)),),
    )  # fmt: skip
    found, fixed = concordance_interval(mine), auroc_interval(positive, score.astype(float), who)
    assert (found.value, found.low, found.high) == pytest.approx((fixed.value, fixed.low, fixed.high), abs=1e-5)


def test_repeats_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(3)
    y = np.tile([0, 1], 20)
    score = y + rng.normal(size=40)
    once = _tested(score, y)
    names = np.tile(np.asarray(once.unit), 4)
    again = FoldRows(names, names, np.concatenate([once.fold + 2 * k for k in range(4)]), np.tile(y, 4), ("0", "1"),
                     (0, 1), (Contrast(np.tile(score, 4), np.tile(y, 4).astype(float)),))  # fmt: skip
    one, four = concordance_interval(once), concordance_interval(again)
    assert (four.value, four.low, four.high) == pytest.approx((one.value, one.low, one.high), abs=1e-6)


def test_within_folds_intervals_cover_where_the_rarer_class_scatters_more() -> None:
    """Unstretched, 20 against 80 with twice the scatter covers 88 to 91 %."""
    rng = np.random.default_rng(0)
    truth, runs, hit = 0.75, 400, 0
    y = np.repeat([1, 0], [20, 80])
    names = np.arange(100).astype(str)
    for _ in range(runs):
        score = np.r_[rng.normal(0.6744897501960817 * np.sqrt(5), 2, 20), rng.normal(size=80)]
        rows = FoldRows(names, names, np.arange(100) % 5, y, ("0", "1"), (0, 1), (Contrast(score, y.astype(float)),))
        found = concordance_interval(rows)
        assert found.low is not None and found.high is not None
        hit += found.low <= truth <= found.high
    assert hit / runs > 0.93
