from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coverslip.base.errors import SplitError, TableError
from coverslip.base.study import SplitSettings, TaskSettings
from coverslip.cohort import (
    Targets,
    check_split,
    column_split,
    make_split,
    make_targets,
    read_split,
    resolve_split,
    write_split,
)

TASK = TaskSettings(column="y")


def _targets(num_patients: int = 8, slides: int = 1) -> Targets:
    rows = [
        (f"s{i}" if slides == 1 else f"s{i}{'abc'[k]}", f"p{i}", i % 2)
        for i in range(num_patients)
        for k in range(slides)
    ]
    return Targets("classification", "y", ("0", "1"), "patient", pd.DataFrame(rows, columns=["slide", "patient", "y"]))


def _write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_folder_of_folds_is_read_in_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "splits"
    for i in range(11):
        _write(folder, f"splits_{i}.csv", f",train,val,test\n0,s0,s2,s{3 + i % 4}\n1,s1,,s7\n")
        _write(folder, f"splits_{i}_descriptor.csv", ",train,val,test\nA,1,1,1\n")
        _write(folder, f"splits_{i}_bool.csv", f",train,val,test\ns0,True,False,False\ns{3 + i % 4},False,False,True\n")
    split = read_split(folder, _targets())
    assert [fold.test for fold in split.folds] == [(f"s{3 + i % 4}", "s7") for i in range(11)]
    assert split.folds[0].train == ("s0", "s1")
    assert split.folds[0].tune == ("s2",)
    assert split.leaks == ()
    assert split.overlapping
    assert any("22 test rows over 5 slides" in warning for warning in split.warnings)


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("1", "0"), ("true", "false")])
def test_a_table_of_true_and_false_is_read(tmp_path: Path, yes: str, no: str) -> None:
    text = f",train,val,test\ns0,{yes},{no},{no}\ns1,{yes},{no},{no}\ns3,{no},{yes},{no}\ns2,{no},{no},{yes}\n"
    split = read_split(_write(tmp_path / "f", "splits_0_bool.csv", text), _targets())
    fold = split.folds[0]
    assert (fold.train, fold.tune, fold.test) == (("s0", "s1"), ("s3",), ("s2",))


def test_listed_slides_without_a_target_are_dropped_and_counted(tmp_path: Path) -> None:
    folder = _write(tmp_path / "f", "0.csv", "train;test\ns0;s1\nzz;s2\nyy;s2\ns3;\n")
    split = read_split(folder, _targets())
    assert split.folds[0].train == ("s0", "s3")
    assert split.folds[0].test == ("s1", "s2")
    assert split.warnings[0].startswith("2 of 6 listed names are not among the slides with a target")
    assert split.warnings[1].startswith("4 of 8 slides of the cohort are in no fold")
    assert split.warnings[2].startswith("1 names stand twice in one set: s2")
    assert set(split.patients) == {"s0", "s1", "s2", "s3"}


def test_a_leaking_split_is_refused_and_names_patient_and_fold(tmp_path: Path) -> None:
    folder = _write(tmp_path / "f", "0.csv", "train,val,test\ns0a,s2a,s0b\ns1a,,s3a\n")
    targets = _targets(slides=2)
    with pytest.raises(SplitError, match=r"1 patient is on both sides.*p0 \(fold 0: train and test\).*allow_leaks"):
        read_split(folder, targets)
    split = read_split(folder, targets, allow_leaks=True)
    assert [(leak.kind, leak.name, leak.sets) for leak in split.leaks] == [("patient", "p0", ("train", "test"))]


def test_folds_that_name_patients_take_all_their_slides(tmp_path: Path) -> None:
    split = read_split(_write(tmp_path / "f", "0.csv", "train,val,test\np0,p2,p1\np3,,p4\n"), _targets(slides=2))
    assert split.folds[0].test == ("s1a", "s1b", "s4a", "s4b")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "train,tets\ns0,s1\n", "a.csv has no column 'test'.*Did you mean 'tets'"),
        ("a.csv", "train,test\nx,y\n", "none of the 2 names .such as x, y. is a slide or a patient.*such as s0, s1"),
        ("a.csv", "train,val,test\ns0,s1,zz\n", "fold 0: none of its 1 test names"),
        ("a.csv", "train,val,test\ns0,s1,\n", "fold 0: none of its 0 test names"),
        ("a.csv", "train,test\nTrue,False\n", "no column names the slides"),
        ("a.csv", "", "empty"),
        ("a.csv", "train,val,test\ns0,s1,s3\ns2,,s4\n", "fold0: the training set holds class '0' alone"),
        ("a.txt", "", "holds no folds"),
        ("split.json", "{", "cannot be read as JSON"),
        ("split.json", "{}", "is not a split"),
    ],
)
def test_what_is_no_fold_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(SplitError, match=said):
        read_split(_write(tmp_path / "f", name, text), _targets())


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="no folds at"):
        read_split(tmp_path / "none", _targets())


def test_a_split_json_follows_its_patients_into_the_cohort_of_today(tmp_path: Path) -> None:
    before = _targets(slides=2)
    split = make_split(before, SplitSettings(folds=2))
    write_split(split, tmp_path / "split.json")
    same = read_split(tmp_path / "split.json", before)
    assert same.folds == split.folds
    assert same.digest == split.digest
    # One patient is gone, another has one slide more.
    frame = before.frame[before.frame["patient"] != "p0"]
    more = pd.concat([frame, pd.DataFrame({"slide": ["new"], "patient": ["p1"], "y": [1]})])
    today = read_split(tmp_path / "split.json", Targets("classification", "y", ("0", "1"), "patient", more))
    assert "new" in {slide for fold in today.folds for slide in fold.test}
    assert "1 of 8 listed names" in today.warnings[-1]
    assert check_split(today) == []


def test_a_split_json_with_leaks_is_asked_about_again(tmp_path: Path) -> None:
    folder = _write(tmp_path / "f", "0.csv", "train,val,test\ns0a,s2a,s0b\ns1a,,s3a\n")
    targets = _targets(slides=2)
    write_split(read_split(folder, targets, allow_leaks=True), tmp_path / "split.json")
    with pytest.raises(SplitError, match="both sides"):
        read_split(tmp_path / "split.json", targets)
    assert len(read_split(tmp_path / "split.json", targets, allow_leaks=True).leaks) == 1


def test_a_patient_who_moved_since_is_a_leak(tmp_path: Path) -> None:
    folder = _write(tmp_path / "f", "0.csv", "train,val,test\ns0a,s2a,s0b\ns1a,,s3a\n")
    before = _targets(slides=2)
    apart = before.frame.assign(patient=before.frame["slide"])
    clean = read_split(folder, Targets("classification", "y", ("0", "1"), "slide", apart))
    write_split(clean, tmp_path / "split.json")
    # By patients who are no more, nothing can be resolved; by name of slide the leak shows.
    with pytest.raises(SplitError, match="both sides"):
        read_split(tmp_path / "split.json", before)


COLUMN = "slide,patient,y,split\na,p,0,train\nb,q,1,Train\nc,r,0,val\nd,s,1,tune\ne,t,0,test\nf,u,1,\ng,v,,test\n"


def test_the_split_column_is_one_fold(load: Any) -> None:
    cohort = load(COLUMN)
    targets = make_targets(cohort, TASK)
    split = resolve_split(cohort, targets, SplitSettings())
    fold = split.folds[0]
    assert (fold.train, fold.tune, fold.test) == (("a", "b"), ("c", "d"), ("e",))
    assert split.source == "column 'split' of cohort.csv"
    assert split.warnings == (
        "1 of 6 slides of the cohort are in no fold: f.",
        "fold0: the test set has no slide of class '1'.",
    )


def test_a_split_column_with_another_word_or_a_leak_is_refused(load: Any) -> None:
    cohort = load(COLUMN.replace("tune", "holdout"))
    with pytest.raises(TableError, match=r"row 5, column 'split': 'holdout'.*Accepted: train, tune"):
        column_split(cohort, make_targets(cohort, TASK))
    cohort = load(COLUMN.replace("c,r", "c,p"))
    with pytest.raises(SplitError, match=r"p \(fold 0: train and tune\)"):
        column_split(cohort, make_targets(cohort, TASK))


def test_folds_without_a_tuning_set_get_one_from_their_training_patients(load: Any, tmp_path: Path) -> None:
    folder = _write(tmp_path / "f", "0.csv", "train,test\n" + "".join(f"s{i}a,s{i + 10}a\ns{i}b,\n" for i in range(10)))
    targets = _targets(20, slides=2)
    cohort = load("slide,patient,y\na,p,0\n")
    split = resolve_split(cohort, targets, SplitSettings(file=str(folder)))
    fold = split.folds[0]
    assert len(split.patients_of(fold.tune)) == 2
    assert len(fold.tune) == 4
    assert not set(split.patients_of(fold.tune)) & set(split.patients_of((*fold.train, *fold.test)))
    assert "20 % of their training patients were drawn" in split.warnings[-1]
    assert resolve_split(cohort, targets, SplitSettings(file=str(folder))) == split


def test_a_leaking_patient_is_not_drawn_for_tuning_too(load: Any, tmp_path: Path) -> None:
    # Patients 0 to 3 are trained on and tested; only 4 to 7 may be drawn.
    train = [f"s{i}a" for i in range(8)]
    rows = zip(train, [*(f"s{i}b" for i in range(4)), "", "", "", ""])
    folder = _write(tmp_path / "f", "0.csv", "train,test\n" + "".join(f"{a},{b}\n" for a, b in rows))
    cohort = load("slide,patient,y\na,p,0\n")
    for seed in range(5):
        chosen = SplitSettings(file=str(folder), allow_leaks=True, tune=0.4, seed=seed)
        split = resolve_split(cohort, _targets(slides=2), chosen)
        assert list(split.leaks) == check_split(split)
        assert set(split.patients_of(split.folds[0].tune)) < {"p4", "p5", "p6", "p7"}
        assert split.folds[0].tune


def test_without_file_or_column_folds_are_made(load: Any) -> None:
    targets = _targets()
    assert resolve_split(load("slide,patient\na,p\n"), targets, SplitSettings(folds=2)) == make_split(
        targets, SplitSettings(folds=2)
    )


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "rows", "slides", "patients", "missing"), [("brca", 822, 569, 35, 166), ("lung", 864, 576, 30, 75)]
)
def test_published_folds_are_read_and_their_shared_patients_named(
    test_data: Path, load: Any, name: str, rows: int, slides: int, patients: int, missing: int
) -> None:
    with np.load(test_data / "tcga_features" / f"tcga_{name}.npz", allow_pickle=False) as file:
        ids, cases, y = file["slide_ids"], file["case_ids"], file["labels"]
    table = pd.DataFrame({"slide": ids, "patient": cases, "y": y}).to_csv(index=False)
    targets = make_targets(load(table), TASK)
    folder = test_data / "tcga_features" / "splits" / f"tcga_{name}"
    with pytest.raises(SplitError, match=f"{patients} patients are on both sides of a fold"):
        read_split(folder, targets)
    split = read_split(folder, targets, allow_leaks=True)
    tested = [slide for fold in split.folds for slide in fold.test]
    assert (len(split.folds), len(tested), len(set(tested))) == (10, rows, slides)
    assert {leak.kind for leak in split.leaks} == {"patient"}
    assert split.warnings[0].startswith(f"{missing} of ")
    # The same, by a slow loop over the files themselves.
    case_of = dict(zip(ids.tolist(), cases.tolist()))
    shared = set()
    for i in range(10):
        raw = pd.read_csv(folder / f"splits_{i}.csv", index_col=0)
        sides = [{case_of[s] for s in raw[c].dropna() if s in case_of} for c in ("train", "val", "test")]
        shared |= (sides[0] & sides[1]) | (sides[0] & sides[2]) | (sides[1] & sides[2])
    assert {leak.name for leak in split.leaks} == shared
    assert len(shared) == patients
