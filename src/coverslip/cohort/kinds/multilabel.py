"""Several labels at once, a column each: 0, 1, or empty where it is not known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from coverslip.base.errors import SettingsError
from coverslip.base.study import TaskSettings
from coverslip.cohort.cohort import Cohort
from coverslip.cohort.kinds._columns import one_outcome, rows_of, without_missing, zero_or_one
from coverslip.cohort.table import some
from coverslip.cohort.targets import Groups, Targets

ENTRIES = {
    "multilabel": {
        "build": "multilabel_targets",
        "summary": "several labels, a column each; each may be missing",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


def multilabel_targets(
    cohort: Cohort, task: TaskSettings, groups: Groups | None, expected: Sequence[str] | None
) -> Targets:
    """The labels of each slide, 0, 1 or NaN; `classes` are the labels in the order of `task.columns`.

    A label that one slide of a patient has holds for all slides of that patient (level = patient). A slide without any
    label is an exclusion. Folds get their share of patients by the rarest label they are positive for.

    Raises:
        SettingsError: no columns are named, or one is named twice.
        TableError: a column is missing or empty, a value is neither 0 nor 1, a patient has two values of a label.
    """
    labels = list(expected) if expected is not None else list(task.columns)
    if not labels:
        raise SettingsError("task.columns is not set.", fix='Name the labels\' columns: task.columns = ["er", "pr"].')
    if twice := sorted({name for name in labels if labels.count(name) > 1}):
        raise SettingsError(f"task.columns names {some(twice)} twice.", fix="Name each label once.")
    source = cohort.source
    rows = rows_of(cohort, labels, fix="task.columns names the labels.")
    for i, label in enumerate(labels):
        values = zero_or_one(rows, label, source=source, fix="A label is 0, 1 or empty (unknown).")
        if task.level == "patient":
            one_outcome(rows, values, f"column {label!r}", source)
            values = values.fillna(values.groupby(rows["patient"]).transform("max"))
        rows[f"y{i}"] = values
    y = [f"y{i}" for i in range(len(labels))]
    unknown = rows[y].isna().all(axis=1)
    rows, gone = without_missing(rows, unknown, f"no value in {some([repr(name) for name in labels])}")
    units = rows.drop_duplicates("patient") if task.level == "patient" else rows
    positive, known = (units[y] == 1).sum(), units[y].notna().sum()
    warnings = [
        f"Label {label!r}: every known value is {'1' if positive.iloc[i] else '0'}; its figures are null."
        for i, label in enumerate(labels)
        if positive.iloc[i] in (0, known.iloc[i])
    ]
    rows["stratum"] = _rarest(rows[y], positive.to_numpy())
    frame = rows[["slide", "patient", *y, "stratum"]]
    strata = ("no label positive", *(f"positive for {label}" for label in labels))
    return Targets(
        "multilabel", ", ".join(labels), tuple(labels), task.level, frame, gone, tuple(warnings),
        columns=tuple(labels), strata=strata, strict=False,
    )  # fmt: skip


def _rarest(values: pd.DataFrame, positive: np.ndarray) -> pd.Series:
    """1 + the place of the rarest label that a row is positive for; 0 where it is positive for none."""
    rarity = np.where(values.to_numpy() == 1, positive[None, :].astype(float), np.inf)
    place = np.where(np.isfinite(rarity).any(axis=1), 1 + rarity.argmin(axis=1), 0)
    return pd.Series(place, index=values.index, dtype=np.int64)
