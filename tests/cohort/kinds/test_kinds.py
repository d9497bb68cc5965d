"""Targets of every kind: what is read, what is left out, and what is refused with row and column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coverslip.base.errors import SettingsError, TableError
from coverslip.base.study import CohortSettings, TaskSettings
from coverslip.cohort import Targets, load_cohort, make_targets

REGRESSION = TaskSettings(kind="regression", column="age")
ORDINAL = TaskSettings(kind="ordinal", column="grade")
MULTILABEL = TaskSettings(kind="multilabel", columns=["er", "pr"])
SURVIVAL = TaskSettings(kind="survival", time="days", event="dead")
COMPETING = TaskSettings(kind="competing_risks", time="days", event="cause")


@pytest.fixture
def load(tmp_path: Any) -> Any:
    """Loads a cohort of one slide a patient from a header and rows: "age", "1", "2" ..."""

    def load(header: str, *rows: str, patients: str = "") -> Any:
        who = patients.split() or [f"p{i}" for i in range(len(rows))]
        lines = [f"slide,patient,{header}", *(f"s{i},{who[i]},{row}" for i, row in enumerate(rows))]
        (tmp_path / "cohort.csv").write_text("\n".join(lines) + "\n")
        return load_cohort(CohortSettings(table=str(tmp_path / "cohort.csv")), need_paths=False)

    return load


def test_a_number_is_read_and_a_missing_one_is_an_exclusion(load: Any) -> None:
    targets = make_targets(load("age", "50", "", "61.5", "70"), REGRESSION)
    assert targets.y.tolist() == [50.0, 61.5, 70.0]
    assert [(e.slide, e.reason) for e in targets.exclusions] == [("s1", "no value in 'age'")]
    assert targets.shown["age"].tolist() == [50.0, 61.5, 70.0]
    assert targets.description == {"kind": "regression", "column": "age", "classes": []}


def test_numbers_are_stratified_by_quantiles_of_patients(load: Any) -> None:
    targets = make_targets(load("age", *map(str, range(50))), REGRESSION)
    assert list(targets.counts.values()) == [10] * 5
    assert targets.strata[0] == "0 to 9.8"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("1", "old", "3"), r"row 3, column 'age': 'old' is not a number"),
        (("7", "7", "7"), "constant: every value is 7"),
        (("", "", ""), "no value in any of its 3 rows"),
    ],
)
def test_what_is_no_number_is_refused(load: Any, rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(TableError, match=message):
        make_targets(load("age", *rows), REGRESSION)


def test_levels_of_numbers_stand_in_their_order(load: Any) -> None:
    targets = make_targets(load("grade", "2", "10", "1", "1"), ORDINAL)
    assert targets.classes == ("1", "2", "10") and targets.y.tolist() == [1, 2, 0, 0]
    assert not targets.strict


def test_levels_of_text_need_an_order(load: Any) -> None:
    cohort = load("grade", "low", "high", "mid")
    with pytest.raises(SettingsError, match=r"order of the levels of column 'grade' is not known.*task.levels"):
        make_targets(cohort, ORDINAL)
    named = TaskSettings(kind="ordinal", column="grade", levels=["low", "mid", "high"])
    assert make_targets(cohort, named).y.tolist() == [0, 2, 1]
    grouped = make_targets(cohort, ORDINAL, {"first": ["low"], "later": ["mid", "high"]})
    assert grouped.classes == ("first", "later") and grouped.y.tolist() == [0, 1, 1]
    with pytest.raises(SettingsError, match="low twice"):
        make_targets(cohort, TaskSettings(kind="ordinal", column="grade", levels=["low", "low"]))


def test_one_level_is_refused(load: Any) -> None:
    with pytest.raises(TableError, match=r"all 2 slides with a level have '3'"):
        make_targets(load("grade", "3", "3"), ORDINAL)


def test_each_label_may_be_missing(load: Any) -> None:
    targets = make_targets(load("er,pr", "1,0", "0,", ",", "True,1"), MULTILABEL)
    assert targets.classes == ("er", "pr") and targets.column == "er, pr"
    assert np.array_equal(targets.y, [[1, 0], [0, np.nan], [1, 1]], equal_nan=True)
    assert [e.slide for e in targets.exclusions] == ["s2"]
    # pr is rarer than er: the last patient counts for it.
    assert targets.counts == {"no label positive": 1, "positive for er": 1, "positive for pr": 1}
    assert targets.digest != make_targets(load("er,pr", "1,0", "0,1", ",", "1,1"), MULTILABEL).digest


def test_a_label_holds_for_all_slides_of_the_patient(load: Any) -> None:
    targets = make_targets(load("er,pr", "1,", ",0", "0,1", patients="p p q"), MULTILABEL)
    assert targets.y.tolist() == [[1, 0], [1, 0], [0, 1]]
    with pytest.raises(TableError, match=r"patient 'p' has two outcomes in column 'er': 0 \(row 3\) and 1 \(row 2\)"):
        make_targets(load("er,pr", "1,0", "0,0", "0,1", patients="p p q"), MULTILABEL)


def test_labels_are_zero_or_one(load: Any) -> None:
    with pytest.raises(TableError, match=r"row 3, column 'er': 2 is neither 0 nor 1 \(rows 3, 4\)"):
        make_targets(load("er,pr", "1,0", "2,1", "2,0"), MULTILABEL)
    with pytest.raises(SettingsError, match=r"task.columns is not set"):
        make_targets(load("er", "1"), TaskSettings(kind="multilabel"))
    warned = make_targets(load("er,pr", "1,0", "1,1"), MULTILABEL).warnings
    assert warned == ("Label 'er': every known value is 1; its figures are null.",)


def test_times_and_events_are_read(load: Any) -> None:
    targets = make_targets(load("days,dead", "10,1", "20,0", "30,", ",1", "40,1"), SURVIVAL)
    assert targets.y.tolist() == [10, 20, 40] and targets.frame["event"].tolist() == [1, 0, 1]
    assert targets.counts == {"censored": 1, "event": 2}
    assert [e.slide for e in targets.exclusions] == ["s3", "s2"]
    assert targets.shown.loc["s1"].tolist() == [20.0, "0"]
    assert targets.description["columns"] == ["days", "dead"] and targets.description["column"] == "dead"
    assert targets.grid == ()  # which times are looked at is made with the folds


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("0,1", "5,0"), r"row 2, column 'days': 0 is not over 0.*days > 0"),
        (("5,1", "-3,0"), r"row 3, column 'days': -3 is not over 0"),
        (("5,2", "3,0"), r"row 2, column 'dead': 2 is neither 0 nor 1"),
        (("5,dead", "3,alive"), r"row 2, column 'dead': 'dead' is neither 0 nor 1 \(rows 2, 3\)"),
        (("soon,1", "3,0"), r"row 2, column 'days': 'soon' is not a number"),
        (("5,", ",0"), "no row has both a time"),
    ],
)
def test_wrong_outcomes_are_refused_with_their_row(load: Any, rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(TableError, match=message):
        make_targets(load("days,dead", *rows), SURVIVAL)


def test_a_patient_who_dies_twice_is_named(load: Any) -> None:
    with pytest.raises(TableError, match=r"'p' has two outcomes.*'10, event' \(row 2\) and '20, event' \(row 3\)"):
        make_targets(load("days,dead", "10,1", "20,1", "20,0", patients="p p q"), SURVIVAL)


@pytest.mark.parametrize(("event", "told"), [("0", "No patient has the event"), ("1", "One patient alone has")])
def test_few_events_are_told_and_no_error(load: Any, event: str, told: str) -> None:
    targets = make_targets(load("days,dead", f"5,{event}", "3,0", "4,0"), SURVIVAL)
    assert any(told in warning for warning in targets.warnings)
    assert targets.scarcest(targets.slides) == int(event)


def test_causes_are_what_is_not_zero(load: Any) -> None:
    targets = make_targets(load("days,cause", "5,2", "3,0", "4,1", "9,1"), COMPETING)
    assert targets.classes == ("1", "2") and targets.frame["event"].tolist() == [2, 0, 1, 1]
    assert targets.shown["cause"].tolist() == ["2", "0", "1", "1"]
    grouped = make_targets(load("days,cause", "5,cancer", "3,0", "4,heart"), COMPETING, {"other": ["heart"]})
    assert grouped.classes == ("cancer", "other")


def test_a_cohort_in_which_nobody_has_an_event_is_allowed_and_told(load: Any) -> None:
    targets = make_targets(load("days,cause", "5,0", "3,0"), COMPETING)
    assert targets.classes == ("1",) and targets.counts == {"censored": 2, "1": 0}
    assert "No patient has the event '1'" in targets.warnings[0]
    named = make_targets(load("days,cause", "5,0", "3,0"), COMPETING, {"cancer": [1], "heart": [2]})
    assert named.classes == ("cancer", "heart")


def test_columns_may_have_the_names_that_targets_use_themselves(load: Any) -> None:
    settings = TaskSettings(kind="survival", time="event", event="y")
    targets = make_targets(load("event,y", "5,1", "3,0"), settings)
    assert targets.y.tolist() == [5, 3] and targets.frame["event"].tolist() == [1, 0]


def test_times_of_curves_may_be_given(load: Any) -> None:
    cohort = load("days,dead", "5,1", "3,0")
    assert make_targets(cohort, SURVIVAL.model_copy(update={"times": [1.0, 2.0]})).grid == (1.0, 2.0)
    with pytest.raises(SettingsError, match=r"do not rise"):
        make_targets(cohort, SURVIVAL.model_copy(update={"times": [2.0, 1.0]}))
    with pytest.raises(SettingsError, match=r"task.time is not set"):
        make_targets(cohort, TaskSettings(kind="survival", event="dead"))


@pytest.mark.parametrize("settings", [REGRESSION, ORDINAL, MULTILABEL, SURVIVAL, COMPETING])
def test_slides_without_features_leave_any_kind(load: Any, settings: TaskSettings) -> None:
    cohort = load("age,grade,er,pr,days,dead,cause", "1,1,1,0,4,1,1", "2,2,0,1,5,0,0", "3,3,1,1,6,1,2")
    targets: Targets = make_targets(cohort, settings).without({"s0": "no file"})
    assert targets.slides == ("s1", "s2") and len(targets.y) == 2 and targets.exclusions[-1].slide == "s0"
