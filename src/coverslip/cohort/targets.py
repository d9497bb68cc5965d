"""What is predicted: the target of each slide, made by the task's kind (one file a kind in `kinds/`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Shaped
from numpy import ndarray

from coverslip.base.errors import SettingsError, TableError
from coverslip.base.fingerprint import digest
from coverslip.base.registry import Registry, suggest
from coverslip.base.study import TaskSettings
from coverslip.cohort.cohort import Cohort, Exclusion

Groups = Mapping[str, Sequence[str | int | float | bool]]

KINDS = Registry("targets", "coverslip.cohort.kinds")

# Columns of predictions.csv and of the table that cannot hold a target beside their own meaning.
_TAKEN = frozenset({"slide", "patient", "path", "split", "fold", "repeat", "set"})


@dataclass(frozen=True)
class Targets:
    """The target of each slide that has one.

    `frame` has the columns slide, patient (text), what is known, and stratum, sorted by slide whatever the order of the
    table. What is known is `y`: the place in `classes` (int64) for classes and levels, a number (float64) for
    regression, a time for survival, which has `event` (int64) beside it: 0 censored, 1 the event, or 1 + the place in
    `classes` of the cause. Several labels are y0, y1 ... (0, 1, NaN). `stratum` (int64) is what folds are balanced by
    and `strata` names its values; where the frame has none, it is y. `strict` says that no fold can do without one.

    `level` is the unit of the target: where it is patient, all slides of a patient have the same. `columns` are the
    table's columns it was read from, `column` is how people call it; `grid` are the times of survival curves,
    empty until the folds are known where the settings name none (`cohort.curve_times`).
    `exclusions` are the slides of the cohort that have no target, each with the reason.
    """

    kind: str
    column: str
    classes: tuple[str, ...]
    level: str
    frame: pd.DataFrame
    exclusions: tuple[Exclusion, ...] = ()
    warnings: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    strata: tuple[str, ...] = ()
    strict: bool = True
    grid: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.columns:
            object.__setattr__(self, "columns", (self.column,))
        if not self.strata:
            object.__setattr__(self, "strata", self.classes)

    @property
    def slides(self) -> tuple[str, ...]:
        return tuple(self.frame["slide"])

    @property
    def patient_of(self) -> dict[str, str]:
        """The patient of each slide."""
        return dict(zip(self.frame["slide"], self.frame["patient"]))

    @property
    def y(self) -> Shaped[ndarray, "n ..."]:
        """What is known of each slide, in their order: (n,), or (n, labels) with NaN where a label is missing."""
        names = [name for name in self.frame if re.fullmatch(r"y\d+", str(name))]
        return self.frame[names or "y"].to_numpy()

    @property
    def y_of(self) -> dict[str, int]:
        """The class index of each slide, or where the target has no classes its stratum."""
        return {slide: int(y) for slide, y in zip(self.frame["slide"], self._stratum)}

    @property
    def counts(self) -> dict[str, int]:
        """How many units (patients, or slides where that is the level) each stratum has: each class, event or not."""
        units = self._stratum[~self.frame["patient"].duplicated()] if self.level == "patient" else self._stratum
        return {name: int((units == i).sum()) for i, name in enumerate(self.strata)}

    @property
    def digest(self) -> str:
        """16 hex digits over slides, patients, targets and classes."""
        known = [name for name in self.frame if name != "stratum"]
        rows = [self.frame[name].astype(object).where(self.frame[name].notna(), None).tolist() for name in known]
        return digest([self.kind, self.column, self.level, self.classes, *([self.grid] if self.grid else []), rows])

    @property
    def shown(self) -> pd.DataFrame:
        """What predictions.csv repeats of the target, by slide, under the names of the table's columns."""
        y = self.y
        if y.ndim == 2:
            values = dict(zip(self.columns, y.T))
        elif "event" in self.frame:
            names = np.array(["0", *(self.classes or ["1"])], dtype=object)
            values = dict(zip(self.columns, (y, names[self.frame["event"]])))
        elif self.classes:
            values = {self.column: np.array(self.classes, dtype=object)[y]}
        else:
            values = {self.column: y}
        return pd.DataFrame(values, index=pd.Index(self.frame["slide"], name="slide"))

    @property
    def description(self) -> dict[str, Any]:
        """What metrics.json says of the target."""
        several = {"columns": list(self.columns)} if self.columns != (self.column,) else {}
        grid = {"grid": list(self.grid)} if self.grid else {}
        return {"kind": self.kind, "column": self.column, "classes": list(self.classes), **several, **grid}

    def scarcest(self, slides: Iterable[str]) -> int:
        """How many patients among these slides the scarcest class has: what a tuning set can be judged by.

        For times it is the scarcest event; where nothing is scarce (numbers, levels, labels), half of all patients.
        """
        rows = self.frame["slide"].isin(list(slides))
        patients = self.frame.loc[rows, "patient"]
        if "event" in self.frame or self.strict:
            first = 1 if "event" in self.frame else 0
            return min(
                (patients[self._stratum[rows] == i].nunique() for i in range(first, len(self.strata))), default=0
            )
        return patients.nunique() // 2

    def without(self, reasons: Mapping[str, str]) -> Targets:
        """The targets without these slides, each with the reason why (damaged, no features, ...).

        Raises:
            TableError: a class has no slide left, or nothing is left.
        """
        gone = self.frame["slide"].isin(list(reasons))
        added = tuple(Exclusion(slide, reasons[slide]) for slide in self.frame.loc[gone, "slide"])
        left = set(self._stratum[~gone])
        lost = [name for i, name in enumerate(self.strata) if i in set(self._stratum) and i not in left]
        if lost and (self.strict or not left):
            what = f"slide of class {', '.join(map(repr, lost))}" if self.strict else "slide"
            raise TableError(
                f"No {what} is left after {len(added)} were excluded (the first, {added[0].slide}: {added[0].reason}).",
                fix="Look at what failed before; a model needs slides of each class.",
            )
        return replace(self, frame=self.frame[~gone].reset_index(drop=True), exclusions=self.exclusions + added)

    @property
    def _stratum(self) -> pd.Series:
        return self.frame["stratum" if "stratum" in self.frame else "y"]


def make_targets(
    cohort: Cohort, task: TaskSettings, classes: Groups | None = None, *, expected: Sequence[str] | None = None
) -> Targets:
    """The targets of the cohort, of the kind that the task's settings name.

    `classes` groups values of the column: {"pos": ["A", "B"], "neg": ["C"]}. `expected` are the classes of a finished
    run that is tested on a new cohort: they keep their order, other values are exclusions, and one class may be absent.

    Raises:
        SettingsError: the task's settings contradict each other, or no kind has that name.
        TableError: the column is missing, empty or constant, or a patient has two outcomes.
    """
    if task.kind not in KINDS.names():
        raise SettingsError(f"task.kind = {task.kind!r} is not available.", fix=suggest(task.kind, KINDS.names()))
    if task.bag == "patient" and task.level == "slide":
        raise SettingsError(
            "task.bag = 'patient' pools the slides of a patient, and task.level = 'slide' wants a prediction for each.",
            fix="Set task.level = 'patient' or task.bag = 'slide'.",
        )
    for column in (task.column, task.time, task.event, *task.columns):
        if column in _TAKEN:
            raise SettingsError(
                f"The target cannot be the column {column!r}, which has a meaning of its own.",
                fix="Copy it to a new name.",
            )
    made = KINDS.load(task.kind)(cohort, task, classes, expected)
    assert isinstance(made, Targets)
    return made
