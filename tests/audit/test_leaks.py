from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coverslip.audit import audit_cohorts, audit_split, content_digests, duplicate_pairs
from coverslip.cohort import Fold, Split

PATIENTS = {f"s{i}": f"p{i}" for i in range(6)}
FOLDS = (
    Fold(0, 0, ("s0", "s1"), ("s2",), ("s3", "s4")),
    Fold(1, 0, ("s3", "s4"), ("s2",), ("s0", "s1")),
)
CLEAN = Split(FOLDS, PATIENTS, "by hand")


def test_clean_folds_raise_no_finding() -> None:
    # s0 and s1 are the same image, but always on the same side; s5 is in no fold.
    contents = {"s0": "x", "s1": "x", "s2": "y", "s5": "y"}
    assert audit_split(CLEAN, contents=contents, near=[("s3", "s4"), ("s2", "s2"), ("s0", "s5")]) == ()


def test_a_shared_patient_and_slide_are_told_with_every_fold() -> None:
    split = Split(
        (Fold(0, 0, ("s0", "s1"), ("s1",), ("s3",)), Fold(0, 1, ("s0",), ("s2",), ("s1",))),
        {**PATIENTS, "s3": "p0"},
        "x",
    )
    patients, slides = audit_split(split)
    assert patients.code == "patient_leak"
    assert patients.message == "Patients on both sides of a fold: 2."
    assert patients.cases == ("p0 (fold 0: train and test)", "p1 (fold 0: train and tune)")
    assert (slides.code, slides.cases) == ("slide_leak", ("s1 (fold 0: train and tune)",))


def test_the_same_image_under_two_names_is_found_across_sets() -> None:
    same, alike = audit_split(CLEAN, contents={"s0": "x", "s3": "x"}, near=[("s0", "s3"), ("s2", "s4")])
    assert same.code == "content_leak"
    assert same.cases == ("s0 and s3 (fold 0: train and test; fold 1: test and train)",)
    # What is the same is not told again as looking alike.
    assert alike.cases == ("s2 and s4 (fold 0: tune and test; fold 1: tune and train)",)


@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_planted_content_is_found_and_nothing_else(contents: list[int], sides: list[int]) -> None:
    sets = [tuple(f"s{i}" for i in range(6) if sides[i] == k) for k in range(3)]
    found = audit_split(
        Split((Fold(0, 0, *sets),), PATIENTS, "x"), contents={f"s{i}": str(c) for i, c in enumerate(contents)}
    )
    planted = [(i, j) for i in range(6) for j in range(i + 1, 6) if contents[i] == contents[j] and sides[i] != sides[j]]
    assert [case.split(" (")[0] for finding in found for case in finding.cases] == [
        f"s{i} and s{j}" for i, j in planted
    ]


def test_a_new_cohort_is_compared_by_patient_slide_and_content() -> None:
    findings = audit_cohorts(
        {"a": "p", "b": "q"},
        {"a": "r", "c": "q", "d": "s"},
        known_contents={"a": "1", "b": "2"},
        new_contents={"c": "3", "d": "2"},
    )
    assert [(f.code, f.cases) for f in findings] == [
        ("shared_patient", ("q",)),
        ("shared_slide", ("a",)),
        ("shared_content", ("d is b",)),
    ]
    assert audit_cohorts({"a": "p"}, {"b": "q"}) == ()


def test_content_digests_ignore_the_order_of_rows_and_nothing_else() -> None:
    x = np.arange(12, dtype=np.float16).reshape(4, 3)
    digests = content_digests(
        {"a": x, "b": x[::-1], "c": x + 1, "d": x[:3], "e": x.astype(np.float32), "f": x[:, ::-1], "none": x[:0]}
    )
    assert digests["a"] == digests["b"]
    assert len(set(digests.values())) == 5
    assert "none" not in digests


def test_pairs_are_read_from_a_check_report() -> None:
    check = {
        "format": "coverslip.check/1",
        "slides": [],
        "duplicates": [
            {"slides": ["s3", "s0"], "kind": "exact"},
            {"slides": ["s3", "s0"], "kind": "near"},
            {"slides": ["s2", "s4"], "kind": "near"},
        ],
    }
    exact, near = duplicate_pairs(check)
    assert (exact, near) == ((("s0", "s3"),), (("s2", "s4"),))
    assert [finding.code for finding in audit_split(CLEAN, exact=exact, near=near)] == [
        "content_leak",
        "near_duplicate_leak",
    ]
    assert duplicate_pairs({"slides": []}) == ((), ())


def test_slides_that_look_like_a_training_slide_are_told_apart_from_those_that_are_it() -> None:
    found = audit_cohorts({"a": "p"}, {"b": "q"}, near=[("a", "b")])
    assert [(one.code, one.cases) for one in found] == [("shared_picture", ("b looks like a",))]
