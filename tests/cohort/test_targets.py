from __future__ import annotations

from typing import Any

import pytest

from coverslip.base.errors import SettingsError, TableError
from coverslip.base.study import TaskSettings
from coverslip.cohort import make_targets

TASK = TaskSettings(column="y")
SLIDE = TaskSettings(column="y", level="slide")


def _table(*values: str) -> str:
    return "slide,patient,y\n" + "".join(f"s{i},p{i},{value}\n" for i, value in enumerate(values))


def test_numbers_are_classes_without_a_point(load: Any) -> None:
    targets = make_targets(load(_table("1.0", "0", "", "1")), TASK)
    assert targets.classes == ("0", "1")
    assert targets.frame["y"].tolist() == [1, 0, 1]
    assert targets.slides == ("s0", "s1", "s3")
    assert [(e.slide, e.reason) for e in targets.exclusions] == [("s2", "no value in 'y'")]
    assert targets.counts == {"0": 1, "1": 2}


def test_classes_stand_in_natural_order(load: Any) -> None:
    assert make_targets(load(_table("10", "9", "2")), TASK).classes == ("2", "9", "10")
    assert make_targets(load(_table("LUSC", "LUAD")), TASK).classes == ("LUAD", "LUSC")
    assert make_targets(load(_table("grade 10", "grade 9")), TASK).classes == ("grade 9", "grade 10")


def test_the_order_of_the_table_changes_nothing(load: Any) -> None:
    one = make_targets(load("slide,patient,y\na,p,1\nb,q,0\nc,q,0\n"), TASK)
    other = make_targets(load("slide,patient,y\nc,q,0\nb,q,0\na,p,1\n"), TASK)
    assert one.frame.equals(other.frame)
    assert one.digest == other.digest


def test_a_column_may_have_any_name(load: Any) -> None:
    for name in ("label", "row", "value", "y", "my column"):
        table = _table("A", "B").replace(",y", f",{name}")
        assert make_targets(load(table), TaskSettings(column=name)).classes == ("A", "B")


def test_classes_group_values_and_count_the_rest(load: Any) -> None:
    targets = make_targets(load(_table("3", "4.0", "5", "1", "")), TASK, {"low": [1], "high": [4, "5", 9]})
    assert targets.classes == ("high", "low")
    assert [targets.classes[y] for y in targets.frame["y"]] == ["high", "high", "low"]
    assert [e.reason for e in targets.exclusions] == ["'y' = '3' is in no class", "no value in 'y'"]
    assert targets.warnings == ("cohort.classes names values that 'y' does not hold: 9.",)


def test_truth_values_group_too(load: Any) -> None:
    assert make_targets(load(_table("TRUE", "false")), TASK, {"neg": [False], "pos": [True]}).y_of == {"s0": 1, "s1": 0}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("1", "1", ""), "constant: all 2 slides with a value have '1'"),
        (("", "NA"), "no value in any of its 2 rows"),
        (("0.5", "1.5", "2"), r"measurements \(such as 0.5\)"),
        (tuple(map(str, range(21))), "21 different values"),
        (tuple(f"c{i}" for i in range(30)), "30 different values"),
    ],
)
def test_a_column_that_is_no_target_is_refused(load: Any, values: tuple[str, ...], said: str) -> None:
    with pytest.raises(TableError, match=said):
        make_targets(load(_table(*values)), TASK)


def test_twenty_classes_are_still_classes(load: Any) -> None:
    assert len(make_targets(load(_table(*map(str, range(20)))), TASK).classes) == 20


def test_wrong_settings_say_what_is_accepted(load: Any) -> None:
    cohort = load(_table("0", "1").replace(",y", ",cancer"))
    with pytest.raises(TableError, match=r"no column 'cancr'.*Did you mean 'cancer'"):
        make_targets(cohort, TaskSettings(column="cancr"))
    with pytest.raises(SettingsError, match=r"task.column is not set"):
        make_targets(cohort, TaskSettings())
    with pytest.raises(SettingsError, match=r"'survivl' is not available.*Did you mean 'survival'"):
        make_targets(cohort, TaskSettings(kind="survivl", time="t", event="e"))
    with pytest.raises(SettingsError, match="meaning of its own"):
        make_targets(cohort, TaskSettings(column="patient"))
    with pytest.raises(SettingsError, match=r"bag = 'patient'.*level = 'slide'"):
        make_targets(cohort, TaskSettings(column="cancer", bag="patient", level="slide"))
    with pytest.raises(SettingsError, match="puts '1' into both 'a' and 'b'"):
        make_targets(cohort, TaskSettings(column="cancer"), {"a": [1], "b": ["1", 0]})
    with pytest.raises(TableError, match=r"belongs to class 'b'.*The column holds: '0', '1'"):
        make_targets(cohort, TaskSettings(column="cancer"), {"a": [1], "b": ["x"], "c": [0]})


def test_a_patient_with_two_outcomes_is_named_with_both(load: Any) -> None:
    cohort = load("slide,patient,y\na,p,1\nb,p,0\nc,q,0\nd,q,1\ne,r,1\n")
    with pytest.raises(TableError, match=r"patient 'p'.*'0' \(row 3\) and '1' \(row 2\), and 1 more") as error:
        make_targets(cohort, TASK)
    assert "task.level = 'slide'" in str(error.value)
    targets = make_targets(cohort, SLIDE)
    assert targets.y_of == {"a": 1, "b": 0, "c": 0, "d": 1, "e": 1}
    assert targets.counts == {"0": 2, "1": 3}


def test_an_unlabelled_slide_does_not_contradict_its_patient(load: Any) -> None:
    assert make_targets(load("slide,patient,y\na,p,1\nb,p,\nc,q,0\n"), TASK).slides == ("a", "c")


def test_a_finished_run_keeps_its_classes_on_a_new_cohort(load: Any) -> None:
    targets = make_targets(load(_table("pos", "pos", "unsure", "")), TASK, expected=("pos", "neg"))
    assert targets.classes == ("pos", "neg")
    assert targets.y_of == {"s0": 0, "s1": 0}
    assert "no class for: unsure" in targets.warnings[0]
    with pytest.raises(TableError, match="no value of column 'y' is one of the classes 'a', 'b'"):
        make_targets(load(_table("pos", "neg")), TASK, expected=("a", "b"))


def test_targets_can_lose_slides_but_no_class(load: Any) -> None:
    targets = make_targets(load(_table("0", "0", "1")), TASK)
    less = targets.without({"s0": "truncated"})
    assert less.slides == ("s1", "s2")
    assert less.exclusions[-1].reason == "truncated"
    with pytest.raises(TableError, match=r"No slide of class '1' is left after 1.*s2: no tissue"):
        targets.without({"s2": "no tissue"})
