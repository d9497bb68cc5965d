"""What inner out-of-fold predictions teach about a fold's model: how its probabilities are corrected, and from where on
they are called positive. Both are learnt before the outer test patients are read, and are kept with the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray

from coverslip.base.errors import SettingsError
from coverslip.eval.calibration import calibration
from coverslip.eval.folds import FoldSize
from coverslip.eval.interval import LEAST_FOLDS, Interval, nadeau_bengio
from coverslip.eval.operating_point import OperatingPoint, Rule, operating_point
from coverslip.eval.recalibrate import Recalibration, recalibration
from coverslip.eval.reduce import UnitLevel, Units, read_rows, reduce
from coverslip.eval.truth import Task

FORMAT = "coverslip.learnt/1"
CALIBRATED = "calibrated_"
RULES: tuple[Rule, ...] = ("youden", "sensitivity", "specificity")
RATES = ("sensitivity", "specificity", "ppv", "npv")


@dataclass(frozen=True)
class Learnt:
    """What is kept with one fold's model.

    `corrections` has one for the classes together, under the target's name, or one a label. `points` has, for the
    second of two classes or for each label, a threshold a rule. `n` units taught it; `reason` says why it is nothing.
    """

    corrections: Mapping[str, Recalibration]
    points: Mapping[str, Mapping[str, OperatingPoint]]
    n: int
    reason: str = ""

    def corrected(self, p: Float[ndarray, "m k"], task: Task) -> Float[ndarray, "m k"]:
        """Corrected probabilities in the order of the raw ones."""
        if task.kind != "multilabel":
            (correction,) = self.corrections.values()
            return correction.apply(p)
        both = (np.stack([1 - p[:, t], p[:, t]], axis=1) for t in range(p.shape[1]))
        return np.stack([self.corrections[name].apply(pair)[:, 1] for name, pair in zip(task.classes, both)], axis=1)

    def corrections_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "n": self.n,
            "reason": self.reason or None,
            "corrections": {name: one.to_json() for name, one in self.corrections.items()},
        }

    def points_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "n": self.n,
            "reason": self.reason or None,
            "points": {of: {rule: p.to_json() for rule, p in points.items()} for of, points in self.points.items()},
        }

    @classmethod
    def from_json(cls, corrections: Mapping[str, Any], points: Mapping[str, Any]) -> Learnt:
        """
        Raises:
            TableError: a correction or a threshold of a format that is not known.
        """
        return cls(
            {name: Recalibration.from_json(one) for name, one in corrections["corrections"].items()},
            {
                of: {rule: OperatingPoint.from_json(one) for rule, one in found.items()}
                for of, found in points["points"].items()
            },
            int(corrections["n"]),
            corrections["reason"] or "",
        )


def states_probabilities(task: Task) -> bool:
    """True where predictions are probabilities that can be corrected: classes, levels, labels."""
    return task.kind in ("classification", "ordinal", "multilabel")


def learn(
    task: Task,
    y: Shaped[ndarray, "n ..."],
    p: Float[ndarray, "n k"],
    *,
    method: str = "auto",
    aim: float = 0.9,
    reason: str = "",
) -> Learnt:
    """What these inner predictions teach, one row a patient; with none of them nothing, for `reason`.

    A method that needs more patients than there are teaches nothing, and says so. A label counts where it is known.
    """
    corrections: dict[str, Recalibration] = {}
    for name, true, stated in _views(task, y, p):
        try:
            corrections[name] = recalibration(true, stated, method=method)  # type: ignore[arg-type]
        except SettingsError as error:
            corrections[name] = Recalibration("none", len(true), error.message)
    points: dict[str, dict[str, OperatingPoint]] = {}
    for name, positive, score in contrasts(task, y, p):
        chosen = {rule: operating_point(positive, score, rule, aim) for rule in RULES}
        points[name] = {rule: point for rule, point in chosen.items() if point is not None}
    return Learnt(corrections, points, len(y), reason)


def contrasts(
    task: Task, y: Shaped[ndarray, "n ..."], p: Float[ndarray, "n k"]
) -> list[tuple[str, Bool[ndarray, m], Float[ndarray, m]]]:
    """What can be called positive: the second of two classes, or each label where it is known. (name, is, score)."""
    if task.kind == "classification" and len(task.classes) == 2:
        return [(task.classes[1], y == 1, p[:, 1])]
    if task.kind == "multilabel":
        known = ~np.isnan(y)
        return [(name, y[known[:, t], t] == 1, p[known[:, t], t]) for t, name in enumerate(task.classes)]
    return []


def with_calibrated(frame: pd.DataFrame, learnt: Learnt, task: Task) -> pd.DataFrame:
    """The table of predictions with a column calibrated_<class> beside each p_<class>."""
    columns = task.reader.predictions(task)
    corrected = learnt.corrected(frame[columns].to_numpy(np.float64), task)
    return frame.assign(**{CALIBRATED + name.removeprefix("p_"): corrected[:, k] for k, name in enumerate(columns)})


def corrected_table(frame: pd.DataFrame, task: Task) -> pd.DataFrame | None:
    """The table with the corrected probabilities in the place of the raw ones; None where it has none."""
    if not states_probabilities(task):
        return None
    columns = {name: CALIBRATED + name.removeprefix("p_") for name in task.reader.predictions(task)}
    if not set(columns.values()) <= set(frame.columns) or frame[list(columns.values())].isna().to_numpy().any():
        return None
    return frame.assign(**{name: frame[corrected] for name, corrected in columns.items()})


def before_and_after(frame: pd.DataFrame, task: Task, level: UnitLevel, *, seed: int = 0) -> dict[str, Any]:
    """Calibration of raw and of corrected probabilities on the same units: what evaluation.json says of both.

    `frame` has the calibrated columns too. Slope, intercept, ECE and Brier's parts as `coverslip.eval.calibration`.
    """
    said = {}
    swapped = corrected_table(frame, task)
    assert swapped is not None
    for key, table in (("before", frame), ("after", swapped)):
        rows, _ = read_rows(table, task, where="Predictions")
        units = reduce(rows, level)
        said[key] = [entry for view in _named_views(task, units) for entry in _calibration(*view, units, seed)]
    return said


def measured_over_folds(
    units: Sequence[Units],
    points: Sequence[Mapping[str, Mapping[str, OperatingPoint]]],
    sizes: Sequence[FoldSize],
    task: Task,
) -> list[dict[str, Any]]:
    """What each fold's own thresholds do to its test units, and the mean over folds; an entry a class and rule.

    The interval is Nadeau and Bengio's: it knows that folds share training patients, and that thresholds differ. It is
    no narrower than the folds' Wilson intervals allow, and under three folds there is none. A fold without a threshold,
    or without anyone to count, is left out of a rate.
    """
    names = list(dict.fromkeys(of for fold in points for of in fold))
    found = []
    for of in names:
        for rule in RULES:
            rates: dict[str, list[tuple[Interval, FoldSize]]] = {rate: [] for rate in RATES}
            thresholds: list[float | None] = []
            for held, chosen, size in zip(units, points, sizes):
                point = chosen.get(of, {}).get(rule)
                thresholds.append(None if point is None else point.threshold)
                for name, positive, score in contrasts(task, held.y, held.p):
                    if point is None or name != of or not len(score):
                        continue
                    for rate, figure in point.measured(positive, score).items():
                        if figure.value is not None:
                            rates[rate].append((figure, size))
            known = [point for fold in points if (point := fold.get(of, {}).get(rule)) is not None]
            if known:
                found.append(
                    {
                        "of": of,
                        "rule": rule,
                        "aim": known[0].aim,
                        "thresholds": thresholds,
                        **{rate: _rate(pairs).to_json() for rate, pairs in rates.items()},
                    }
                )
    return found


def _rate(folds: Sequence[tuple[Interval, FoldSize]]) -> Interval:
    """The mean over folds of a rate, as `coverslip.eval.folds.over_folds` has any figure."""
    values = [figure.value for figure, _ in folds if figure.value is not None]
    if len(values) < LEAST_FOLDS:
        why = f"{len(values)} of {LEAST_FOLDS} folds that an interval needs have a threshold and someone to count"
        return Interval(float(np.mean(values)) if values else None, None, None, "mean of folds", reason=why)
    reach = [
        max(figure.value - figure.low, figure.high - figure.value)
        for figure, _ in folds
        if figure.value is not None and figure.low is not None and figure.high is not None
    ]
    # Repeats test the same patients again, and add none.
    repeats = len({size.repeat for _, size in folds})
    return nadeau_bengio(
        values,
        [size.train for _, size in folds],
        [size.test for _, size in folds],
        at_least=float(np.sqrt(np.mean(np.square(reach)) / len(values) * repeats)),
    )


def _views(task: Task, y: ndarray, p: ndarray) -> list[tuple[str, ndarray, ndarray]]:
    """Probabilities that sum to 1, with what was true: of the classes, or of a label and its absence."""
    if task.kind == "multilabel":
        known = ~np.isnan(y)
        pairs = [np.stack([1 - p[known[:, t], t], p[known[:, t], t]], axis=1) for t in range(p.shape[1])]
        return [(name, y[known[:, t], t].astype(np.int64), pairs[t]) for t, name in enumerate(task.classes)]
    return [(task.column, y.astype(np.int64), p)] if states_probabilities(task) else []


def _named_views(task: Task, units: Units) -> list[tuple[tuple[str, ...], ndarray, ndarray, ndarray]]:
    views = _views(task, units.y, units.p)
    if task.kind != "multilabel":
        return [(task.classes, np.ones(len(units), bool), y, p) for _, y, p in views]
    return [((f"no {name}", name), ~np.isnan(units.y[:, t]), y, p) for t, (name, y, p) in enumerate(views)]


def _calibration(classes: Sequence[str], which: ndarray, y: ndarray, p: ndarray, units: Units, seed: int) -> list[Any]:
    return calibration(y, p, classes, units.patient[which], seed=seed)
