from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.base.errors import CoverslipError, SplitError
from coverslip.base.study import CohortSettings, SplitSettings, TaskSettings
from coverslip.cohort import Split, check_split, load_cohort, make_targets, resolve_split, temporal_split

from .conftest import Load


def _split(load: Load, times: list[Any], **chosen: Any) -> Split:
    rows = [{"slide": f"s{i}", "patient": f"p{i}", "y": i % 2, "when": time} for i, time in enumerate(times)]
    cohort = load(rows)
    settings = SplitSettings(design="temporal", time="when", **chosen)
    return resolve_split(cohort, make_targets(cohort, TaskSettings(column="y")), settings)


def test_earlier_patients_are_learnt_from_and_the_latest_fifth_is_tested(load: Load) -> None:
    split = _split(load, list(range(2001, 2021)))
    (fold,) = split.folds
    assert split.patients_of(fold.test) == ("p16", "p17", "p18", "p19")
    assert fold.label == "from 2017"
    assert split.source == "temporal, by 'when': trained before, tested from 2017 on"


def test_several_cuts_make_folds_that_train_on_all_before(load: Load) -> None:
    times = [f"20{i:02}-06-0{1 + i % 9}" for i in range(20)]
    split = _split(load, times, cuts=["2010-01-01", "2015-01-01"])
    first, second = split.folds
    assert [first.label, second.label] == ["from 2010-01-01 to before 2015-01-01", "from 2015-01-01"]
    assert split.patients_of(first.test) == tuple(sorted(f"p{i}" for i in range(10, 15)))
    assert len((*second.train, *second.tune)) == 15
    assert check_split(split) == []


def test_a_patient_counts_from_the_first_slide_and_is_told_where_slides_reach_over(load: Load) -> None:
    rows = [{"slide": f"s{i}", "patient": f"p{i % 10}", "y": i % 2, "when": 2000 + i} for i in range(20)]
    cohort = load(rows)
    settings = SplitSettings(design="temporal", time="when", cuts=[2005])
    split = temporal_split(cohort, make_targets(cohort, TaskSettings(column="y")), settings)
    assert split.patients_of(split.folds[0].test) == ("p5", "p6", "p7", "p8", "p9")
    assert check_split(split) == []
    assert any(re.match("5 training patients of fold 0 have slides from after", w) for w in split.warnings)


@given(times=st.lists(st.integers(1990, 2030), min_size=8, max_size=40), folds=st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_nobody_trained_on_is_later_than_the_tested(
    times: list[int], folds: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("t") / "c.csv"
    rows = "".join(f"s{i},p{i},{i % 2},{t}\n" for i, t in enumerate(times))
    path.write_text("slide,patient,y,when\n" + rows)
    cohort = load_cohort(CohortSettings(table=str(path)), need_paths=False)
    targets = make_targets(cohort, TaskSettings(column="y"))
    try:
        split = temporal_split(cohort, targets, SplitSettings(design="temporal", time="when", folds=folds))
    except SplitError as error:
        if error.code not in ("empty_side", "one_class"):
            raise
        return
    time_of = {f"s{i}": t for i, t in enumerate(times)}
    (fold,) = split.folds
    assert max(time_of[s] for s in (*fold.train, *fold.tune)) < min(time_of[s] for s in fold.test)


@pytest.mark.parametrize(
    ("times", "chosen", "told"),
    [
        (["2001-02-03"] * 8 + ["soon"], {}, "'soon' is no date"),
        ([2001] * 8 + [""], {}, "1 of 9 slides have no 'when' (s8)"),
        ([2001] * 8, {}, "All patients have the same time"),
        ([2001, 2002] * 4, {"cuts": [2005]}, "leaves 8 patients before it and 0 to test"),
        ([2001, 2002] * 4, {"cuts": [2002, 2001]}, "do not rise"),
        ([2001, 2002] * 4, {"cuts": ["2002-01-01"]}, "but the column holds numbers"),
        (["2001-01-01", "2002-01-01"] * 4, {"cuts": [2002]}, "but the column holds dates"),
    ],
)
def test_times_that_cannot_be_cut_are_told(load: Load, times: list[Any], chosen: dict[str, Any], told: str) -> None:
    with pytest.raises(CoverslipError) as caught:
        _split(load, times, **chosen)
    assert told in str(caught.value)
    assert caught.value.fix or "same time" in told


def test_a_missing_or_unnamed_column_is_told(load: Load) -> None:
    cohort = load([{"slide": f"s{i}", "patient": f"p{i}", "y": i % 2, "whne": i} for i in range(8)])
    targets = make_targets(cohort, TaskSettings(column="y"))
    with pytest.raises(SplitError, match=r"no column 'when'\. Did you mean 'whne'"):
        resolve_split(cohort, targets, SplitSettings(design="temporal", time="when"))
    with pytest.raises(CoverslipError, match=r"split\.time is not set"):
        resolve_split(cohort, targets, SplitSettings(design="temporal"))
    with pytest.raises(SplitError, match="no column 'site'"):
        resolve_split(cohort, targets, SplitSettings(design="site_preserved"))
