from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.base.errors import SplitError
from coverslip.base.study import SplitSettings
from coverslip.cohort import Fold, Targets, inner_folds, make_split


def _targets(classes: list[int], slides: int = 2) -> Targets:
    rows = [
        {"slide": f"s{i:03}_{k}", "patient": f"p{i:03}", "y": y} for i, y in enumerate(classes) for k in range(slides)
    ]
    return Targets("classification", "y", ("A", "B"), "patient", pd.DataFrame(rows))


@given(a=st.integers(6, 20), b=st.integers(6, 20), folds=st.integers(2, 4), seed=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_inner_folds_hold_the_training_patients_and_nobody_else(a: int, b: int, folds: int, seed: int) -> None:
    targets = _targets([0] * a + [1] * b)
    for outer in make_split(targets, SplitSettings(folds=3, seed=seed)).folds:
        inner = inner_folds(outer, targets, folds=folds, seed=seed)
        assert sorted(s for fold in inner for s in fold.test) == sorted((*outer.train, *outer.tune))
        for fold in inner:
            held = [set(names) for names in fold.sets().values()]
            assert not set.union(*held) & set(outer.test)
            whose = [{targets.patient_of[s] for s in names} for names in held]
            assert not (whose[0] & whose[2] or whose[0] & whose[1] or whose[1] & whose[2])
            assert {targets.y_of[s] for s in fold.test} == {0, 1}


def test_what_is_tested_does_not_change_what_is_chosen_on() -> None:
    targets = _targets([0, 1] * 12)
    outer = make_split(targets, SplitSettings(folds=3)).folds[0]
    turned = targets.frame.assign(y=targets.frame["y"].where(~targets.frame["slide"].isin(outer.test), 1))
    other = Targets("classification", "y", ("A", "B"), "patient", turned)
    assert inner_folds(outer, targets) == inner_folds(outer, other)


def test_a_patient_who_leaks_into_the_test_is_not_chosen_by() -> None:
    targets = _targets([0, 1] * 6)
    slides = targets.slides
    outer = Fold(0, 0, slides[:18], (), (*slides[17:], slides[0]))
    held = {s for fold in inner_folds(outer, targets) for names in fold.sets().values() for s in names}
    whose = {targets.patient_of[s] for s in held}
    assert not whose & {targets.patient_of[s] for s in outer.test}


def test_too_few_patients_are_told() -> None:
    targets = _targets([0, 0, 0, 0, 1, 1])
    outer = Fold(0, 0, tuple(s for s in targets.slides if s[:4] != "s005"), (), ("s005_0", "s005_1"))
    with pytest.raises(SplitError, match="5 training patients, 1 of the rarest class"):
        inner_folds(outer, targets)
