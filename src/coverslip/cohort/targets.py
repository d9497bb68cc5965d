"""What is predicted: the target of each slide, made by the task's kind (one file a kind in `kinds/`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

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

    `frame` has the columns slide, patient (text) and y (int64: the index in `classes`), sorted by slide whatever the
    order of the table. `level` is the unit of the target: where it is patient, all slides of a patient have the same y.
    `exclusions` are the slides of the cohort that have no target, each with the reason.
    """

    kind: str
    column: str
    classes: tuple[str, ...]
    level: str
    frame: pd.DataFrame
    exclusions: tuple[Exclusion, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def slides(self) -> tuple[str, ...]:
        return tuple(self.frame["slide"])

    @property
    def patient_of(self) -> dict[str, str]:
        """The patient of each slide."""
        return dict(zip(self.frame["slide"], self.frame["patient"]))

    @property
    def y_of(self) -> dict[str, int]:
        """The class index of each slide."""
        return {slide: int(y) for slide, y in zip(self.frame["slide"], self.frame["y"])}

    @property
    def counts(self) -> dict[str, int]:
        """How many units (patients, or slides where that is the level) each class has."""
        units = self.frame.drop_duplicates("patient") if self.level == "patient" else self.frame
        return {name: int((units["y"] == i).sum()) for i, name in enumerate(self.classes)}

    @property
    def digest(self) -> str:
        """16 hex digits over slides, patients, targets and classes."""
        rows = [self.frame[name].tolist() for name in ("slide", "patient", "y")]
        return digest([self.kind, self.column, self.level, self.classes, rows])

    def without(self, reasons: Mapping[str, str]) -> Targets:
        """The targets without these slides, each with the reason why (damaged, no features, ...).

        Raises:
            TableError: a class has no slide left.
        """
        gone = self.frame["slide"].isin(list(reasons))
        added = tuple(Exclusion(slide, reasons[slide]) for slide in self.frame.loc[gone, "slide"])
        frame = self.frame[~gone].reset_index(drop=True)
        lost = [
            name for i, name in enumerate(self.classes) if not (frame["y"] == i).any() and (self.frame["y"] == i).any()
        ]
        if lost:
            raise TableError(
                f"No slide of class {', '.join(map(repr, lost))} is left after {len(added)} were excluded "
                f"(the first, {added[0].slide}: {added[0].reason}).",
                fix="Look at what failed before; a model needs slides of each class.",
            )
        return replace(self, frame=frame, exclusions=self.exclusions + added)


def make_targets(
    cohort: Cohort, task: TaskSettings, classes: Groups | None = None, *, expected: Sequence[str] | None = None
) -> Targets:
    """The targets of the cohort.

    `classes` groups values of the column: {"pos": ["A", "B"], "neg": ["C"]}. `expected` are the classes of a finished
    run that is tested on a new cohort: they keep their order, other values are exclusions, and one class may be absent.

    Raises:
        SettingsError: the task's settings contradict each other, or its kind is not available yet.
        TableError: the column is missing, empty or constant, or a patient has two outcomes.
    """
    if task.kind not in KINDS.names():
        raise SettingsError(f"task.kind = {task.kind!r} is not available yet.", fix=suggest(task.kind, KINDS.names()))
    if task.bag == "patient" and task.level == "slide":
        raise SettingsError(
            "task.bag = 'patient' pools the slides of a patient, and task.level = 'slide' wants a prediction for each.",
            fix="Set task.level = 'patient' or task.bag = 'slide'.",
        )
    for column in (task.column, task.time, task.event):
        if column in _TAKEN:
            raise SettingsError(
                f"The target cannot be the column {column!r}, which has a meaning of its own.",
                fix="Copy it to a new name.",
            )
    made = KINDS.load(task.kind)(cohort, task, classes, expected)
    assert isinstance(made, Targets)
    return made
