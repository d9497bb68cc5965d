"""What a table of predictions says was true, and what was predicted, as checked arrays: one reader a kind of task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray

from coverslip.base.errors import SettingsError, TableError
from coverslip.base.registry import suggest
from coverslip.eval.metrics import checked


@dataclass(frozen=True)
class Task:
    """What was predicted: the kind, the target's column as people call it, and its classes (labels, levels, causes) in
    the order of the predictions. `columns` are the table's columns of the target, `grid` the times of curves."""

    kind: str
    column: str
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()
    grid: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.columns:
            object.__setattr__(self, "columns", (self.column,))

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> Task:
        """From the mapping that metrics.json shows.

        Raises:
            SettingsError: a kind that cannot be evaluated.
        """
        kind = str(task["kind"])
        if kind not in READERS:
            raise SettingsError(f"task.kind = {kind!r} cannot be evaluated.", fix=suggest(kind, sorted(READERS)))
        columns, grid = tuple(map(str, task.get("columns") or ())), tuple(map(float, task.get("grid") or ()))
        return cls(kind, str(task["column"]), tuple(map(str, task["classes"])), columns, grid)

    def to_json(self) -> dict[str, Any]:
        several = {"columns": list(self.columns)} if self.columns != (self.column,) else {}
        grid = {"grid": list(self.grid)} if self.grid else {}
        return {"kind": self.kind, "column": self.column, "classes": list(self.classes), **several, **grid}

    @property
    def reader(self) -> Reader:
        return READERS[self.kind]


class Reader(ABC):
    """How the rows of one kind of task are read. `names` name the rows in errors."""

    @abstractmethod
    def predictions(self, task: Task) -> list[str]:
        """The columns of the predictions, in their order."""

    @abstractmethod
    def truth(self, frame: pd.DataFrame, task: Task, where: str) -> Shaped[ndarray, "n ..."]:
        """What was true of rows that have a label.

        Raises:
            TableError: a value that is none, with the slide.
        """

    def labelled(self, frame: pd.DataFrame, task: Task) -> Bool[ndarray, n]:
        """The rows of which something is known."""
        known = frame[list(task.columns)]
        missing = known.isna() | known.astype(str).apply(lambda column: column.str.strip() == "")
        return ~missing.any(axis=1).to_numpy()

    def check(self, y: ndarray, p: Float[ndarray, "n k"], task: Task, names: Sequence[str]) -> None:
        """Nothing, where the predictions make sense.

        Raises:
            TableError: naming the first row with a prediction that is no number, or no probability.
        """
        _finite(p, self.predictions(task), names)


class Classes(Reader):
    """y (n,) the number of the class, p (n, k) probabilities that sum to 1; levels are read in the same way."""

    def predictions(self, task: Task) -> list[str]:
        return [f"p_{name}" for name in task.classes]

    def truth(self, frame: pd.DataFrame, task: Task, where: str) -> ndarray:
        number = {name: k for k, name in enumerate(task.classes)}
        labels = [_name(v, number) for v in frame[task.column]]
        for slide, value, label in zip(frame["slide"], frame[task.column], labels):
            if label is None:
                raise TableError(
                    f"{where}, slide {slide}: {task.column} is {value!r}, which is none of the classes.",
                    fix=f"Accepted: {', '.join(task.classes)}.",
                )
        return np.array([number[str(label)] for label in labels], dtype=np.int64)

    def check(self, y: ndarray, p: Float[ndarray, "n k"], task: Task, names: Sequence[str]) -> None:
        checked(y, p, task.classes, names)


class Labels(Reader):
    """y (n, t) of 0, 1 and NaN, p (n, t) a probability each."""

    def predictions(self, task: Task) -> list[str]:
        return [f"p_{name}" for name in task.classes]

    def labelled(self, frame: pd.DataFrame, task: Task) -> Bool[ndarray, n]:
        return frame[list(task.columns)].apply(pd.to_numeric, errors="coerce").notna().any(axis=1).to_numpy()

    def truth(self, frame: pd.DataFrame, task: Task, where: str) -> ndarray:
        values = [_numbers(frame, column, where, empty=True) for column in task.columns]
        y = np.stack(values, axis=1) if values else np.zeros((len(frame), 0))
        _accepted(np.isin(y, (0, 1)) | np.isnan(y), y, frame, task.columns, where, "0, 1 or empty")
        return y

    def check(self, y: ndarray, p: Float[ndarray, "n k"], task: Task, names: Sequence[str]) -> None:
        _finite(p, self.predictions(task), names, low=0.0, high=1.0)


class Numbers(Reader):
    """y (n,) the number, p (n, 1) the predicted one."""

    def predictions(self, task: Task) -> list[str]:
        return ["value"]

    def truth(self, frame: pd.DataFrame, task: Task, where: str) -> ndarray:
        return _numbers(frame, task.column, where)


class Times(Reader):
    """y (n, 2) time and event (0, or 1 + the place of the cause), p the risks and then the curves on the grid."""

    num_risks: ClassVar[int] = 1

    def predictions(self, task: Task) -> list[str]:
        return ["risk", *(f"s_{time:.10g}" for time in task.grid)]

    def truth(self, frame: pd.DataFrame, task: Task, where: str) -> ndarray:
        time_column, event_column = task.columns
        time = _numbers(frame, time_column, where)
        _accepted((time > 0)[:, None], time[:, None], frame, [time_column], where, "times over 0")
        codes = {"0": 0, **{name: 1 + i for i, name in enumerate(task.classes or ("1",))}}
        names = [_name(value, codes) for value in frame[event_column]]
        for slide, value, name in zip(frame["slide"], frame[event_column], names):
            if name is None:
                raise TableError(
                    f"{where}, slide {slide}: {event_column} is {value!r}.", fix=f"Accepted: {', '.join(codes)}."
                )
        return np.stack([time, [codes[str(name)] for name in names]], axis=1).astype(np.float64).reshape(-1, 2)


class Causes(Times):
    """Times with several events: a risk and a curve a cause."""

    def predictions(self, task: Task) -> list[str]:
        curves = [f"cif_{cause}_{time:.10g}" for cause in task.classes for time in task.grid]
        return [*(f"risk_{cause}" for cause in task.classes), *curves]


READERS: dict[str, Reader] = {
    "classification": Classes(),
    "ordinal": Classes(),
    "multilabel": Labels(),
    "regression": Numbers(),
    "survival": Times(),
    "survival_cox": Times(),
    "survival_parametric": Times(),
    "competing_risks": Causes(),
}


def _name(value: Any, accepted: Mapping[str, int]) -> str | None:
    """The name that a cell stands for: as text, or as the whole number that a CSV column with holes turned into 1.0."""
    names = [str(value).strip()]
    if isinstance(value, float) and value.is_integer():
        names.append(str(int(value)))
    elif names[0].endswith(".0"):
        names.append(names[0].removesuffix(".0"))
    return next((name for name in names if name in accepted), None)


def _numbers(frame: pd.DataFrame, column: str, where: str, *, empty: bool = False) -> Float[ndarray, n]:
    values = np.array([_number(value) for value in frame[column]], dtype=np.float64)
    right = np.isfinite(values)
    if empty:
        right |= (frame[column].isna() | (frame[column].astype(str).str.strip() == "")).to_numpy()
    _accepted(right[:, None], frame[[column]].to_numpy(dtype=object), frame, [column], where, "finite numbers")
    return values


def _number(value: Any) -> float:
    """The number, to its last digit; NaN for text that is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan


def _accepted(
    right: Bool[ndarray, "n c"], values: ndarray, frame: pd.DataFrame, columns: Sequence[str], where: str, what: str
) -> None:
    if not right.all():
        row, column = np.argwhere(~right)[0]
        value = values[row, column]
        told = repr(value) if isinstance(value, str) else f"{value:g}"
        slide = frame["slide"].iloc[row]
        raise TableError(f"{where}, slide {slide}: {columns[column]} is {told}.", fix=f"Accepted: {what}.")


def _finite(
    p: Float[ndarray, "n k"], columns: Sequence[str], names: Sequence[str], low: float = -np.inf, high: float = np.inf
) -> None:
    wrong = ~np.isfinite(p) | (p < low) | (p > high)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        what = "is not a number" if not np.isfinite(p[row, column]) else f"lies outside {low:g} to {high:g}"
        raise TableError(
            f"Predictions, {names[row]}: {columns[column]} {what} ({p[row, column]:g}); "
            f"{int(wrong.any(axis=1).sum())} of {len(p)} rows.",
            fix="Look for NaN in the features or the loss.",
            code="bad_prediction",
        )
