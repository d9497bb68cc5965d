"""From the rows of predictions.csv, one a slide and fold, to the units that metrics count: patients or slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from coverslip.base.errors import SettingsError, TableError
from coverslip.eval.metrics import checked

UnitLevel = Literal["patient", "slide"]


@dataclass(frozen=True)
class Task:
    """What was predicted: the target's column and its classes in the order of the probabilities."""

    kind: str
    column: str
    classes: tuple[str, ...]

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> Task:
        """From the mapping that metrics.json shows.

        Raises:
            SettingsError: a kind that cannot be evaluated yet.
        """
        if task["kind"] != "classification":
            raise SettingsError(
                f"task.kind = {task['kind']!r} cannot be evaluated yet.", fix='Accepted: "classification".'
            )
        return cls(task["kind"], str(task["column"]), tuple(map(str, task["classes"])))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "column": self.column, "classes": list(self.classes)}


@dataclass(frozen=True)
class Rows:
    """Checked rows: one prediction of one slide by the model of one fold."""

    slide: ndarray
    patient: ndarray
    repeat: Int[ndarray, n]
    fold: Int[ndarray, n]
    y: Int[ndarray, n]
    p: Float[ndarray, "n k"]

    def __len__(self) -> int:
        return len(self.y)

    def only(self, which: Bool[ndarray, n]) -> Rows:
        return Rows(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def folds(self) -> list[tuple[int, int]]:
        """(repeat, fold) in order."""
        return sorted(set(zip(self.repeat.tolist(), self.fold.tolist())))


@dataclass(frozen=True)
class Units:
    """What is counted: patients, or slides with their patients. Each unit once."""

    ids: ndarray
    patient: ndarray
    y: Int[ndarray, n]
    p: Float[ndarray, "n k"]

    def __len__(self) -> int:
        return len(self.y)

    def only(self, which: Bool[ndarray, n]) -> Units:
        return Units(self.ids[which], self.patient[which], self.y[which], self.p[which])

    def counts(self, classes: Sequence[str]) -> dict[str, int]:
        return {name: int((self.y == k).sum()) for k, name in enumerate(classes)}


def read_rows(frame: pd.DataFrame, task: Task, *, where: str) -> tuple[Rows, int]:
    """The rows with a label, checked, and how many had none.

    Raises:
        TableError: a column is missing, a label is no class, or a probability is none; names slide and fold.
    """
    columns = ["slide", "patient", "fold", task.column, *(f"p_{c}" for c in task.classes)]
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise TableError(
            f"{where}: no column {', '.join(map(repr, missing))}; there are {', '.join(map(repr, frame.columns))}."
        )
    labelled = frame[task.column].notna()
    frame, unlabelled = frame[labelled], int((~labelled).sum())
    number = {name: k for k, name in enumerate(task.classes)}
    labels = [_class_name(v, number) for v in frame[task.column]]
    for slide, value, label in zip(frame["slide"], frame[task.column], labels):
        if label is None:
            raise TableError(
                f"{where}, slide {slide}: {task.column} is {value!r}, which is none of the classes.",
                fix=f"Accepted: {', '.join(task.classes)}.",
            )
    fold = frame["fold"].to_numpy(dtype=np.int64)
    names = [f"slide {s}, fold {f}" for s, f in zip(frame["slide"], fold)]
    p = frame[[f"p_{c}" for c in task.classes]].to_numpy(dtype=np.float64)
    y, p = checked(np.array([number[str(label)] for label in labels], dtype=np.int64), p, task.classes, names)
    repeat = frame["repeat"].to_numpy(dtype=np.int64) if "repeat" in frame else np.zeros(len(frame), dtype=np.int64)
    slide, patient = (frame[c].astype(str).to_numpy(dtype=object) for c in ("slide", "patient"))
    return Rows(slide, patient, repeat, fold, y, p), unlabelled


def reduce(rows: Rows, level: UnitLevel) -> Units:
    """Each unit once, with the mean of its rows' probabilities over slides and folds, sorted by id.

    Raises:
        TableError: the rows of one unit carry different labels.
    """
    ids, first, unit_of = np.unique(
        (rows.patient if level == "patient" else rows.slide).astype(str), return_index=True, return_inverse=True
    )
    y = rows.y[first]
    torn = np.flatnonzero(rows.y != y[unit_of])
    if len(torn):
        raise TableError(
            f"{level.capitalize()} {ids[unit_of[torn[0]]]} has rows of different classes.",
            fix='One outcome a patient is needed; where slides have outcomes of their own, set task.level = "slide".',
        )
    p = np.zeros((len(ids), rows.p.shape[1]))
    np.add.at(p, unit_of, rows.p)
    p /= np.bincount(unit_of, minlength=len(ids))[:, None]
    return Units(ids, rows.patient[first], y, p)


def overlapping(rows: Rows) -> list[str]:
    """Patients that were tested in more than one fold, sorted."""
    pairs = set(zip(rows.patient.tolist(), rows.repeat.tolist(), rows.fold.tolist()))
    patients, times = np.unique(np.array([patient for patient, _, _ in pairs], dtype=str), return_counts=True)
    return patients[times > 1].tolist()


def _class_name(value: Any, classes: Mapping[str, int]) -> str | None:
    """The class that a cell names: as text, or as the whole number that a CSV column with holes turned into 1.0."""
    names = [str(value).strip()]
    if isinstance(value, float) and value.is_integer():
        names.append(str(int(value)))
    return next((name for name in names if name in classes), None)
