from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.base.errors import SplitError
from coverslip.base.random import stream
from coverslip.base.study import SplitSettings
from coverslip.cohort import Split, Targets, check_split, make_split
from coverslip.cohort.folds import draw_tune


def _targets(patients: list[tuple[int, int]], level: str = "patient") -> Targets:
    """Targets of patients given as (class, number of slides)."""
    rows = [
        {"slide": f"s{i}_{k}", "patient": f"p{i}", "y": y}
        for i, (y, slides) in enumerate(patients)
        for k in range(slides)
    ]
    frame = pd.DataFrame(rows).sort_values("slide", ignore_index=True)
    return Targets("classification", "y", tuple("ABC")[: 1 + max(y for y, _ in patients)], level, frame)


@st.composite
def _cohorts(draw: st.DrawFn) -> tuple[Targets, SplitSettings]:
    folds = draw(st.integers(2, 6))
    classes = draw(st.integers(2, 3))
    counts = [draw(st.integers(folds, folds * 4)) for _ in range(classes)]
    patients = [(c, draw(st.integers(1, 4))) for c, n in enumerate(counts) for _ in range(n)]
    chosen = SplitSettings(
        folds=folds,
        repeats=draw(st.integers(1, 2)),
        seed=draw(st.integers(0, 5)),
        tune=draw(st.sampled_from([0.1, 0.2, 0.4])),
    )
    return _targets(patients), chosen


def _tested(split: Split, repeat: int) -> list[str]:
    return [patient for fold in split.folds if fold.repeat == repeat for patient in split.patients_of(fold.test)]


@given(_cohorts())
@settings(max_examples=60, deadline=None)
def test_every_patient_is_tested_once_a_repeat_and_none_leaks(made: tuple[Targets, SplitSettings]) -> None:
    targets, chosen = made
    split = make_split(targets, chosen)
    patients = sorted(targets.frame["patient"].unique())
    assert check_split(split) == []
    assert split.by_patient
    assert not split.overlapping
    assert len(split.folds) == chosen.folds * chosen.repeats
    for repeat in range(chosen.repeats):
        assert sorted(_tested(split, repeat)) == patients
    for fold in split.folds:
        assert sorted((*fold.train, *fold.tune, *fold.test)) == sorted(targets.slides)


@given(_cohorts())
@settings(max_examples=60, deadline=None)
def test_classes_and_sizes_are_within_one_of_the_ideal(made: tuple[Targets, SplitSettings]) -> None:
    targets, chosen = made
    y_of = dict(zip(targets.frame["patient"], targets.frame["y"]))
    whole = Counter(y_of.values())
    for fold in make_split(targets, chosen).folds:
        test = {targets.patient_of[slide] for slide in fold.test}
        assert abs(len(test) - len(y_of) / chosen.folds) < 1
        for c, count in whole.items():
            assert abs(sum(y_of[p] == c for p in test) - count / chosen.folds) < 1


@given(_cohorts())
@settings(max_examples=60, deadline=None)
def test_tuning_has_its_share_of_every_class_and_training_too(made: tuple[Targets, SplitSettings]) -> None:
    targets, chosen = made
    y_of = dict(zip(targets.frame["patient"], targets.frame["y"]))
    split = make_split(targets, chosen)
    for fold in split.folds:
        tune = Counter(y_of[p] for p in split.patients_of(fold.tune))
        train = Counter(y_of[p] for p in split.patients_of(fold.train))
        for c in set(y_of.values()):
            rest = tune[c] + train[c]
            assert train[c] >= 1
            assert tune[c] >= 1 or rest < 2
            assert abs(tune[c] - chosen.tune * rest) < 1 or tune[c] == 1


@given(_cohorts(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_changes_nothing(made: tuple[Targets, SplitSettings], shuffle: object) -> None:
    targets, chosen = made
    order = list(range(len(targets.frame)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    moved = Targets("classification", "y", targets.classes, "patient", targets.frame.iloc[order])
    assert make_split(moved, chosen) == make_split(targets, chosen)


def test_a_seed_gives_the_same_folds_for_ever() -> None:
    targets = _targets([(i % 2, 1 + i % 3) for i in range(20)])
    split = make_split(targets, SplitSettings(folds=4, seed=3))
    assert split.patients_of(split.folds[0].test) == ("p10", "p15", "p16", "p17", "p18")
    assert split.digest == "15b60cd78094e12f"


def test_seeds_and_repeats_draw_anew() -> None:
    targets = _targets([(i % 2, 1 + i) for i in range(16)])
    split = make_split(targets, SplitSettings(folds=4, repeats=3, seed=0))
    drawn = {frozenset(fold.test for fold in split.folds if fold.repeat == r) for r in range(3)}
    drawn.add(frozenset(fold.test for fold in make_split(targets, SplitSettings(folds=4, seed=1)).folds))
    assert len(drawn) == 4
    # Another number of repeats leaves the first as it was.
    assert make_split(targets, SplitSettings(folds=4, seed=0)).folds == split.folds[:4]


def test_patients_of_many_slides_are_spread() -> None:
    targets = _targets([(0, 9)] * 4 + [(0, 1)] * 8 + [(1, 1)] * 8)
    sizes = []
    for seed in range(30):
        sizes += [len(fold.test) for fold in make_split(targets, SplitSettings(folds=4, seed=seed)).folds]
    # Dealt blindly, the same patients give folds with a spread of about 8 slides.
    assert np.std(sizes) < 6


def test_too_few_patients_say_how_many_folds_there_can_be() -> None:
    with pytest.raises(SplitError, match=r"3 patients cannot fill 5 folds. Set split.folds = 3 or less"):
        make_split(_targets([(0, 2), (1, 2), (0, 2)]), SplitSettings())
    with pytest.raises(SplitError, match=r"'B' has 3. Set split.folds = 3 or less"):
        make_split(_targets([(0, 1)] * 10 + [(1, 5)] * 3), SplitSettings())
    with pytest.raises(SplitError, match=r"'B' has 1. Leave that class out"):
        make_split(_targets([(0, 1)] * 10 + [(1, 5)]), SplitSettings())


def test_two_patients_a_class_leave_nobody_to_tune_on_and_say_so() -> None:
    split = make_split(_targets([(0, 1), (0, 1), (1, 1), (1, 1)]), SplitSettings(folds=2))
    assert all(fold.tune == () and len(fold.train) == 2 for fold in split.folds)
    assert len(split.warnings) == 4
    assert "fold0: no patient of class 'A' to tune on" in split.warnings[0]


def test_slides_of_one_patient_may_differ_at_slide_level() -> None:
    rows = [{"slide": f"{p}_{k}", "patient": f"p{p}", "y": int(k == 0 and p < 6)} for p in range(20) for k in range(4)]
    targets = Targets("classification", "y", ("0", "1"), "slide", pd.DataFrame(rows))
    split = make_split(targets, SplitSettings(folds=3))
    assert check_split(split) == []
    y_of = targets.y_of
    # The 6 patients with a rare slide are spread evenly, though most of their slides are of the other class.
    assert [sum(y_of[slide] for slide in fold.test) for fold in split.folds] == [2, 2, 2]


def test_the_tuning_draw_has_the_size_that_was_asked_for() -> None:
    stratum = {f"p{i:02}": i % 3 for i in range(30)}
    assert len(draw_tune(stratum, 0.2, stream(0))) == 6
    assert draw_tune({}, 0.2, stream(0)) == []
    assert draw_tune({"a": 0}, 0.2, stream(0)) == []
    assert len(draw_tune({"a": 0, "b": 0}, 0.4, stream(0))) == 1
