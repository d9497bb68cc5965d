"""Slides become patients by the mean of their rows, and rows that make no sense are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from coverslip.base.errors import SettingsError, TableError
from coverslip.eval.reduce import Task, overlapping, read_rows, reduce

TASK = Task("classification", "cancer", ("0", "1"))


def frame(**changes: list) -> pd.DataFrame:
    columns = {
        "slide": ["a1", "a2", "b1"],
        "patient": ["a", "a", "b"],
        "fold": [0, 0, 1],
        "set": ["test"] * 3,
        "cancer": ["1", "1", "0"],
        "p_0": [0.2, 0.4, 0.9],
        "p_1": [0.8, 0.6, 0.1],
    }
    return pd.DataFrame(columns | changes)


def test_a_patient_counts_once_with_the_mean_of_its_rows() -> None:
    rows, _ = read_rows(frame(), TASK, where="Predictions")
    units = reduce(rows, "patient")
    assert units.ids.tolist() == ["a", "b"]
    assert units.y.tolist() == [1, 0]
    assert units.p == pytest.approx(np.array([[0.3, 0.7], [0.9, 0.1]]))


def test_a_slide_tested_in_two_folds_counts_once() -> None:
    rows, _ = read_rows(frame(slide=["a", "a", "b"], fold=[0, 1, 1]), TASK, where="Predictions")
    units = reduce(rows, "slide")
    assert units.ids.tolist() == ["a", "b"]
    assert units.p[0] == pytest.approx([0.3, 0.7])
    assert overlapping(rows) == ["a"]


def test_slides_of_a_patient_in_one_fold_are_no_overlap() -> None:
    rows, _ = read_rows(frame(), TASK, where="Predictions")
    assert overlapping(rows) == []


def test_the_same_fold_number_in_another_repeat_is_another_fold() -> None:
    rows, _ = read_rows(frame(repeat=[0, 1, 0]), TASK, where="Predictions")
    assert overlapping(rows) == ["a"]
    assert rows.folds() == [(0, 0), (0, 1), (1, 0)]


@pytest.mark.parametrize("labels", [["1", "1", "0"], [1, 1, 0], [1.0, 1.0, 0.0], [" 1", "1 ", "0"]])
def test_a_class_may_be_text_or_the_number_a_csv_made_of_it(labels: list) -> None:
    rows, _ = read_rows(frame(cancer=labels), TASK, where="Predictions")
    assert rows.y.tolist() == [1, 1, 0]


def test_rows_without_a_label_are_counted_and_left_out() -> None:
    rows, unlabelled = read_rows(frame(cancer=["1", None, "0"]), TASK, where="Predictions")
    assert (len(rows), unlabelled) == (2, 1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cancer": ["1", "2", "0"]}, r"slide a2: cancer is '2'.*Accepted: 0, 1"),
        ({"p_1": [0.8, float("nan"), 0.1]}, "slide a2, fold 0: a probability is not a number"),
        ({"p_1": [0.8, 0.9, 0.1]}, "slide a2, fold 0: a probability does not add up to 1"),
    ],
)
def test_wrong_cells_are_refused_with_the_slide(changes: dict, says: str) -> None:
    with pytest.raises(TableError, match=says):
        read_rows(frame(**changes), TASK, where="Predictions")


def test_a_missing_column_is_named() -> None:
    with pytest.raises(TableError, match="no column 'p_1'"):
        read_rows(frame().drop(columns="p_1"), TASK, where="Predictions")


def test_a_patient_with_two_outcomes_is_refused_at_patient_level_and_fine_at_slide_level() -> None:
    rows, _ = read_rows(frame(cancer=["1", "0", "0"]), TASK, where="Predictions")
    with pytest.raises(TableError, match=r"Patient a has rows of different classes.*slide"):
        reduce(rows, "patient")
    assert reduce(rows, "slide").y.tolist() == [1, 0, 0]


def test_a_kind_that_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'survivl'.*Did you mean 'survival'"):
        Task.of({"kind": "survivl", "column": "os", "classes": []})
