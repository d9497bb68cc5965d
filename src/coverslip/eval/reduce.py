"""From the rows of predictions.csv, one a slide and fold, to the units that metrics count: patients or slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from coverslip.base.errors import TableError
from coverslip.eval.truth import Task

__all__ = ["Rows", "Task", "UnitLevel", "Units", "overlapping", "read_rows", "reduce"]

UnitLevel = Literal["patient", "slide"]


@dataclass(frozen=True)
class Rows:
    """Checked rows: one prediction of one slide by the model of one fold. What `y` and `p` hold is the kind of task's:
    `coverslip.eval.truth` says it."""

    slide: ndarray
    patient: ndarray
    repeat: Int[ndarray, n]
    fold: Int[ndarray, n]
    y: Shaped[ndarray, "n ..."]
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
    """What is counted: patients, or slides with their patients. Each unit once.

    `stratum` (n,) numbers the fold that tested each unit: figures that rank compare units of one fold alone, since
    models of different folds have different scales. None: one model, or the mean of all, predicted every unit.
    For survival alone: `training` is what was known of the training units of each stratum, (n, 2) times and events;
    `over_cut` (n,) is by how much each unit's risk is over the median risk of its model's training units.
    """

    ids: ndarray
    patient: ndarray
    y: Shaped[ndarray, "n ..."]
    p: Float[ndarray, "n k"]
    stratum: Int[ndarray, n] | None = None
    training: Mapping[int, Float[ndarray, "t 2"]] = field(default_factory=dict)
    over_cut: Float[ndarray, n] | None = None

    def __len__(self) -> int:
        return len(self.y)

    def only(self, which: Bool[ndarray, n]) -> Units:
        stratum = None if self.stratum is None else self.stratum[which]
        over_cut = None if self.over_cut is None else self.over_cut[which]
        return replace(
            self,
            ids=self.ids[which],
            patient=self.patient[which],
            y=self.y[which],
            p=self.p[which],
            stratum=stratum,
            over_cut=over_cut,
        )

    def counts(self, classes: Sequence[str]) -> dict[str, int]:
        return {name: int((self.y == k).sum()) for k, name in enumerate(classes)}

    def strata(self) -> list[tuple[int, Int[ndarray, m]]]:
        """Each stratum and the places of its units."""
        if self.stratum is None:
            return [(0, np.arange(len(self)))]
        return [(int(s), np.flatnonzero(self.stratum == s)) for s in np.unique(self.stratum)]


def read_rows(frame: pd.DataFrame, task: Task, *, where: str) -> tuple[Rows, int]:
    """The rows with a label, checked, and how many had none.

    Raises:
        TableError: a column is missing, a label is no class, or a prediction is none; names slide and fold.
    """
    predicted = task.reader.predictions(task)
    columns = ["slide", "patient", "fold", *task.columns, *predicted]
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise TableError(
            f"{where}: no column {', '.join(map(repr, missing))}; there are {', '.join(map(repr, frame.columns))}."
        )
    labelled = task.reader.labelled(frame, task)
    frame, unlabelled = frame[labelled], int((~labelled).sum())
    y = task.reader.truth(frame, task, where)
    fold = frame["fold"].to_numpy(dtype=np.int64)
    p = frame[predicted].to_numpy(dtype=np.float64)
    task.reader.check(y, p, task, [f"slide {s}, fold {f}" for s, f in zip(frame["slide"], fold)])
    repeat = frame["repeat"].to_numpy(dtype=np.int64) if "repeat" in frame else np.zeros(len(frame), dtype=np.int64)
    slide, patient = (frame[c].astype(str).to_numpy(dtype=object) for c in ("slide", "patient"))
    return Rows(slide, patient, repeat, fold, y, p), unlabelled


def reduce(rows: Rows, level: UnitLevel) -> Units:
    """Each unit once, with the mean of its rows' predictions over slides and folds, sorted by id.

    Raises:
        TableError: the rows of one unit carry different labels.
    """
    ids, first, unit_of = np.unique(
        (rows.patient if level == "patient" else rows.slide).astype(str), return_index=True, return_inverse=True
    )
    y = rows.y[first]
    same = (rows.y == y[unit_of]) | ((rows.y != rows.y) & (y[unit_of] != y[unit_of]))
    torn = np.flatnonzero(~(same if same.ndim == 1 else same.all(axis=1)))
    if len(torn):
        raise TableError(
            f"{level.capitalize()} {ids[unit_of[torn[0]]]} has rows of different classes."
            if rows.y.dtype == np.int64
            else f"{level.capitalize()} {ids[unit_of[torn[0]]]} has rows of different outcomes.",
            fix='One outcome a patient is needed; where slides have outcomes of their own, set task.level = "slide".',
        )
    p = np.zeros((len(ids), rows.p.shape[1]))
    np.add.at(p, unit_of, rows.p)
    p /= np.bincount(unit_of, minlength=len(ids))[:, None]
    return Units(ids, rows.patient[first], y, p, _stratum(rows, unit_of, first))


def _stratum(rows: Rows, unit_of: Int[ndarray, n], first: Int[ndarray, u]) -> Int[ndarray, u] | None:
    """The fold of each unit, as its place in `rows.folds()`; None where a unit is of several folds."""
    number = {key: i for i, key in enumerate(rows.folds())}
    fold = np.array([number[key] for key in zip(rows.repeat.tolist(), rows.fold.tolist())], dtype=np.int64)
    return fold[first] if (fold == fold[first][unit_of]).all() else None


def overlapping(rows: Rows) -> list[str]:
    """Patients that were tested in more than one fold, sorted."""
    pairs = set(zip(rows.patient.tolist(), rows.repeat.tolist(), rows.fold.tolist()))
    patients, times = np.unique(np.array([patient for patient, _, _ in pairs], dtype=str), return_counts=True)
    return patients[times > 1].tolist()
