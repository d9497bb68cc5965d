"""Which slides move the weights and which choose the epoch; test slides do neither."""

from __future__ import annotations

import pandas as pd
import pytest

from coverslip.cohort import Fold, Targets
from coverslip.recipes.training_data import TrainingData


def _data(labels: dict[str, int]) -> TrainingData:
    frame = pd.DataFrame({"slide": list(labels), "patient": [s[:2] for s in labels], "y": list(labels.values())})
    targets = Targets("classification", "y", ("0", "1"), "patient", frame)
    return TrainingData(targets, None, None, {}, {}, ())  # type: ignore[arg-type]


# Slides are named by patient and number: a1x and a1y are of patient a1.
LABELS = {"a1x": 0, "a1y": 0, "a2x": 0, "b1x": 1, "b2x": 1, "b2y": 1, "t1x": 0, "t2x": 1, "r1x": 0, "r2x": 1}
FOLD = Fold(0, 0, train=("r1x", "r2x"), tune=("a1x", "a1y", "a2x", "b1x", "b2x", "b2y"), test=("t1x", "t2x"))


@pytest.mark.parametrize(("least", "tuned"), [(0, True), (1, True), (2, True), (3, False)])
def test_patients_and_not_slides_are_counted(least: int, tuned: bool) -> None:
    train, tune = _data(LABELS).learning_sets(FOLD, least)
    if tuned:
        assert (train, tune) == (FOLD.train, FOLD.tune)
    else:
        assert (set(train), tune) == ({*FOLD.train, *FOLD.tune}, ())
    assert not set(FOLD.test) & {*train, *tune}


def test_a_tuning_set_without_a_class_chooses_nothing() -> None:
    fold = Fold(0, 0, train=("r1x", "r2x"), tune=("a1x", "a2x"), test=("t1x",))
    assert _data(LABELS).learning_sets(fold, 0) == (("a1x", "a2x", "r1x", "r2x"), ())


def test_no_tuning_set_trains_on_the_rest() -> None:
    fold = Fold(0, 0, train=("r1x", "r2x"), tune=(), test=("t1x",))
    assert _data(LABELS).learning_sets(fold, 0) == (("r1x", "r2x"), ())
