from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.base.errors import SplitError
from coverslip.base.study import SplitSettings
from coverslip.cohort import Split, Targets, check_split, leave_site_out, site_preserved
from coverslip.cohort.split import Split as SplitValue

Cohort = tuple[Targets, dict[str, str | None]]


def _cohort(patients: list[tuple[str, int]], slides: int = 1) -> Cohort:
    """Patients given as (site, class)."""
    rows = [
        {"slide": f"s{i:03}_{k}", "patient": f"p{i:03}", "y": y, "site": site}
        for i, (site, y) in enumerate(patients)
        for k in range(slides)
    ]
    frame = pd.DataFrame(rows)
    targets = Targets("classification", "y", ("A", "B"), "patient", frame[["slide", "patient", "y"]])
    return targets, dict(zip(frame["slide"], frame["site"]))


@st.composite
def _cohorts(draw: st.DrawFn) -> Cohort:
    sites = draw(st.integers(3, 9))
    patients = [("x0", 0), ("x0", 1), ("x1", 0), ("x1", 1), ("x2", 0), ("x2", 1)]
    for site in range(sites):
        patients += [(f"x{site}", draw(st.integers(0, 1))) for _ in range(draw(st.integers(1, 12)))]
    return _cohort(patients, slides=draw(st.integers(1, 2)))


def _sites_of(split: Split, sites: dict[str, str | None], slides: tuple[str, ...]) -> set[str | None]:
    return {sites[slide] for slide in slides}


@given(_cohorts(), st.sampled_from(["leave_site_out", "site_preserved"]))
@settings(max_examples=40, deadline=None)
def test_no_site_stands_on_two_sides_and_everyone_is_tested_once(made: Cohort, design: str) -> None:
    targets, sites = made
    chosen = SplitSettings(folds=3, least_site=3)
    try:
        split = (leave_site_out if design == "leave_site_out" else site_preserved)(targets, sites, chosen)
    except SplitError as error:
        if error.code not in ("one_class", "too_few_sites"):  # all of a class may sit at one site
            raise
        return
    assert check_split(split) == []
    for fold in split.folds:
        assert not _sites_of(split, sites, fold.test) & _sites_of(split, sites, (*fold.train, *fold.tune))
    assert sorted(slide for fold in split.folds for slide in fold.test) == sorted(targets.slides)


def test_small_sites_are_tested_together_and_every_fold_is_named() -> None:
    patients = [(site, i % 2) for site, n in (("big", 12), ("mid", 10), ("tiny", 2), ("small", 3)) for i in range(n)]
    split = leave_site_out(*_cohort(patients), SplitSettings(least_site=10))
    assert [fold.label for fold in split.folds] == ["big", "mid", "small + tiny"]
    assert any("2 sites with under 10 patients" in warning for warning in split.warnings)
    assert SplitValue.from_json(split.to_json(), source="split.json") == split


def test_a_site_of_one_class_is_told_and_tested_all_the_same() -> None:
    patients = [("a", i % 2) for i in range(20)] + [("b", 0)] * 12
    split = leave_site_out(*_cohort(patients + [("c", i % 2) for i in range(12)]), SplitSettings())
    assert "fold1 (b): the test set has no slide of class 'B'." in split.warnings


def test_site_preserved_folds_share_out_every_class() -> None:
    patients = [(f"x{site}", i % 3 == 0) for site in range(20) for i in range(6)]
    split = site_preserved(*_cohort([(site, int(y)) for site, y in patients]), SplitSettings(folds=5, repeats=2))
    y_of = {f"p{i:03}": int(y) for i, (_, y) in enumerate(patients)}
    for fold in split.folds:
        assert Counter(y_of[p] for p in split.patients_of(fold.test)) == {0: 16, 1: 8}
    tested = [{frozenset(fold.test) for fold in split.folds if fold.repeat == r} for r in (0, 1)]
    assert tested[0] != tested[1]


def test_sites_that_share_a_patient_are_one() -> None:
    targets, sites = _cohort([(site, i % 2) for site in "abc" for i in range(12)], slides=2)
    sites["s000_1"] = "b"  # p000 was seen at a and at b
    split = leave_site_out(targets, sites, SplitSettings())
    assert [fold.label for fold in split.folds] == ["a + b", "c"]
    assert "Sites that share patients count as one: a + b." in split.warnings


@pytest.mark.parametrize(
    ("patients", "code"),
    [
        ([("a", 0), ("a", 1)] * 10, "one_site"),
        ([("a", 0), ("a", 1)] * 10 + [("", 1)], "no_site"),
        ([("a", 0), ("b", 1)] * 10, "one_class"),
        ([("a", 0), ("b", 1), ("a", 1), ("b", 0), ("c", 0)], "too_few_sites"),
    ],
)
def test_what_cannot_be_folded_by_site_says_why(patients: list[tuple[str, int]], code: str) -> None:
    with pytest.raises(SplitError) as caught:
        leave_site_out(*_cohort(patients), SplitSettings())
    assert caught.value.code == code
    assert caught.value.fix


def test_more_folds_than_sites_are_refused() -> None:
    with pytest.raises(SplitError, match="2 sites cannot fill 5 folds"):
        site_preserved(*_cohort([("a", 0), ("b", 1), ("a", 1), ("b", 0)]), SplitSettings())
