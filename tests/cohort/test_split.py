from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from coverslip.base.errors import SplitError
from coverslip.cohort import Fold, Leak, Split, check_split, write_split

PATIENTS = {"a1": "a", "a2": "a", "b": "b", "c": "c", "d": "d"}
CLEAN = Split(
    (Fold(0, 0, ("a1", "a2"), ("b",), ("c", "d")), Fold(1, 0, ("c", "d"), ("b",), ("a1", "a2"))), PATIENTS, "by hand"
)
TORN = Split((Fold(0, 0, ("a1", "b"), ("c",), ("a2", "d")),), PATIENTS, "by hand")


def test_clean_folds_have_no_leak() -> None:
    assert check_split(CLEAN) == []
    assert not CLEAN.overlapping
    assert CLEAN.by_patient


def test_a_patient_on_both_sides_is_found() -> None:
    assert check_split(TORN) == [Leak("patient", "a", ("train", "test"), 0, 0)]
    assert check_split(CLEAN, {**PATIENTS, "b": "c"}) == [
        Leak("patient", "c", ("tune", "test"), 0, 0),
        Leak("patient", "c", ("train", "tune"), 1, 0),
    ]


def test_a_slide_in_two_sets_is_found_with_its_patient() -> None:
    split = Split((Fold(2, 1, ("b", "c"), ("c",), ("d",)),), PATIENTS, "by hand")
    assert check_split(split) == [
        Leak("patient", "c", ("train", "tune"), 2, 1),
        Leak("slide", "c", ("train", "tune"), 2, 1),
    ]
    assert check_split(split)[0].where == "repeat 1, fold 2: train and tune"


def test_overlapping_test_sets_are_seen_within_a_repeat_only() -> None:
    twice = (Fold(0, 0, ("a1",), (), ("b",)), Fold(1, 0, ("a1",), (), ("b",)))
    repeated = (Fold(0, 0, ("a1",), (), ("b",)), Fold(0, 1, ("a1",), (), ("b",)))
    assert Split(twice, PATIENTS, "x").overlapping
    assert not Split(repeated, PATIENTS, "x").overlapping
    assert [fold.name for fold in repeated] == ["fold0", "repeat1_fold0"]
    assert Split(repeated, PATIENTS, "x").repeats == 2


def test_a_split_survives_the_disk(tmp_path: Path) -> None:
    write_split(CLEAN, tmp_path / "split.json")
    value = json.loads((tmp_path / "split.json").read_text())
    assert value["unit"] == "patient"
    assert value["folds"][0]["train"] == ["a"]
    read = Split.from_json(value, source="split.json")
    assert read == CLEAN
    assert read.digest == CLEAN.digest


def test_admitted_leaks_are_read_back_and_unadmitted_ones_refused() -> None:
    admitted = Split(TORN.folds, PATIENTS, "by hand", leaks=tuple(check_split(TORN)), warnings=("told",))
    value = json.loads(json.dumps(admitted.to_json()))
    assert value["unit"] == "slide"
    assert Split.from_json(value, source="x") == admitted
    with pytest.raises(SplitError, match=r"1 patient is on both sides of a fold.*a \(fold 0: train and test\)"):
        Split.from_json(TORN.to_json(), source="x")


def test_the_digest_is_of_the_folds_alone() -> None:
    assert Split(CLEAN.folds, PATIENTS, "elsewhere", warnings=("w",)).digest == CLEAN.digest
    assert Split(CLEAN.folds[:1], PATIENTS, "by hand").digest != CLEAN.digest


def test_a_changed_split_is_refused_by_name() -> None:
    value = CLEAN.to_json()
    value["folds"][0]["train"], value["folds"][0]["test"] = value["folds"][0]["test"], value["folds"][0]["train"]
    with pytest.raises(SplitError, match=r"runs/x/split.json has been changed"):
        Split.from_json(value, source="runs/x/split.json")


@pytest.mark.parametrize("key", ["format", "digest", "unit", "patients", "folds", "leaks", "warnings"])
def test_a_split_with_a_part_missing_is_refused(key: str) -> None:
    value = copy.deepcopy(CLEAN.to_json())
    del value[key]
    with pytest.raises(SplitError, match="x is not a"):
        Split.from_json(value, source="x")


@pytest.mark.parametrize("value", [None, [], "text", {}, {"format": "coverslip.split/1", "folds": 3}])
def test_what_is_no_split_is_refused(value: object) -> None:
    with pytest.raises(SplitError, match="x is not a"):
        Split.from_json(value, source="x")


def test_a_patient_unknown_to_the_split_is_refused() -> None:
    value = CLEAN.to_json()
    value["folds"][0]["train"] = ["nobody"]
    with pytest.raises(SplitError, match="nobody"):
        Split.from_json(value, source="x")
