from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.eval.concordance import Concordance, Contrast
from coverslip.eval.subgroups import FoldRows, make_levels, subgroups


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
    found = subgroups(_tested(score, y), {"scanner": scanner, "sex": rng.choice(["F", "M"], 240)}, resamples=200)
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
    (found,) = subgroups(_tested(rng.normal(size=120), y), {"a": level}, resamples=100)["attributes"]
    told = {one["level"]: one for one in found["levels"]}
    assert told["few"]["figure"] is None and told["few"]["reason"] == "too few: 9 events, under 10"
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
    found = subgroups(_tested(rng.normal(size=n), rng.integers(0, classes, n)), {"c": column}, resamples=100)
    for attribute in found["attributes"]:
        assert sum(level["units"] for level in attribute["levels"]) == n


def test_chance_differences_are_rarely_claimed() -> None:
    claims = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        y = np.tile([0, 1], 60)
        columns = {f"c{i}": rng.choice(["a", "b", "c"], 120) for i in range(3)}
        found = subgroups(_tested(y + rng.normal(0, 1.2, 120), y), columns, resamples=100, seed=seed)
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
