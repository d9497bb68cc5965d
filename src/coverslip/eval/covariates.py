"""Clinical covariates as columns of numbers, learnt from training units alone; and what tissue adds to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from scipy.special import logit

from coverslip.eval.folds import FoldResult, FoldSize, difference, fold_results, over_folds
from coverslip.eval.interval import Interval
from coverslip.eval.kinds import KINDS
from coverslip.eval.metrics import LOWER_IS_BETTER
from coverslip.eval.reduce import UnitLevel, read_rows
from coverslip.eval.truth import Task

FORMAT = "coverslip.covariates/1"
# A difference whose interval lies within this on either side of 0 is called small, on scales from 0 to 1.
LITTLE = 0.05
# A mean difference up to this is called small with a doubt, where its interval is wider.
SMALL = 0.02
_EDGE = 1e-6


@dataclass(frozen=True)
class Covariate:
    """How one column of the table becomes numbers.

    A number stays one; where it is missing, the training median stands for it, and a second column says so. Text gets
    a column for each value that training units had but the most frequent, and one for missing values where there were
    any.
    """

    name: str
    median: float | None
    levels: tuple[str, ...]
    flags_missing: bool

    @classmethod
    def learn(cls, name: str, values: Sequence[Any]) -> Covariate:
        """From the training units' values; None and NaN are missing. All missing is a number that says nothing."""
        known = [value for value in values if not _missing(value)]
        flags = len(known) < len(values)
        if all(_is_number(value) for value in known):
            return cls(name, float(np.median(known)) if known else 0.0, (), flags)
        counts = pd.Series([str(value) for value in known]).value_counts()
        frequent = sorted(counts.index, key=lambda level: (-counts[level], level))
        return cls(name, None, tuple(frequent), flags)

    def columns(self, values: Sequence[Any]) -> tuple[Float[ndarray, "n c"], int]:
        """The columns for these units, and how many hold a value that training units did not have (or, of a number,
        text): such a value is taken for missing."""
        missing = np.array([_missing(value) for value in values], dtype=bool)
        if self.median is not None:
            strange = np.array([not _is_number(value) for value in values], dtype=bool) & ~missing
            absent = missing | strange
            made = [np.array([self.median if gone else float(v) for v, gone in zip(values, absent)])]
        else:
            text = [str(value) for value in values]
            strange = np.array([value not in self.levels for value in text], dtype=bool) & ~missing
            absent = missing | strange
            made = [np.array([t == level for t in text], dtype=np.float64) * ~absent for level in self.levels[1:]]
        if self.flags_missing:
            made.append(absent.astype(np.float64))
        return np.stack(made, axis=1) if made else np.zeros((len(values), 0)), int(strange.sum())

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "levels": list(self.levels)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Covariate:
        return cls(found["name"], found["median"], tuple(found["levels"]), bool(found["flags_missing"]))


def design(covariates: Sequence[Covariate], table: pd.DataFrame) -> tuple[Float[ndarray, "n c"], dict[str, int]]:
    """The columns of all covariates for the units of the table, and by covariate how many values were never seen."""
    made = {one.name: one.columns(table[one.name].tolist()) for one in covariates}
    columns = np.concatenate([np.zeros((len(table), 0)), *(columns for columns, _ in made.values())], axis=1)
    if not columns.shape[1]:
        columns = np.zeros((len(table), 1))  # text that never varies: a model of nothing is a model all the same
    return columns, {name: strange for name, (_, strange) in made.items() if strange}


def tissue_scores(task: Task, p: Float[ndarray, "n k"]) -> Float[ndarray, "n s"]:
    """What a tissue model says of each unit on the scale on which linear models add up: logits, risks, numbers."""
    p = np.asarray(p, dtype=np.float64)
    if task.kind in ("classification", "ordinal", "multilabel"):
        if task.kind == "ordinal":
            p = p[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]  # of reaching each level but the lowest
        elif task.kind == "classification" and p.shape[1] == 2:
            p = p[:, 1:]
        return logit(np.clip(p, _EDGE, 1 - _EDGE))
    return p[:, : max(1, len(task.classes))]


def added_value(
    tissue: pd.DataFrame,
    covariates: pd.DataFrame,
    both: pd.DataFrame | None,
    *,
    names: Sequence[str],
    task: Task,
    level: UnitLevel,
    sizes: Sequence[FoldSize],
    reason: str = "",
) -> dict[str, Any]:
    """The tissue model, the covariates, and both together on the same folds: figures with their corrected intervals,
    the paired difference "tissue + covariates minus covariates", and a sentence.

    The tables are like predictions.csv. Where folds have no tissue + covariates, `reason` says why; all three are then
    of the folds that have it, and without any, tissue and covariates are of all.
    """
    by_fold = {(size.repeat, size.fold): size for size in sizes}
    found = {}
    for name, table in (("tissue", tissue), ("covariates", covariates), ("tissue_covariates", both)):
        if table is not None and len(table):
            found[name] = fold_results(read_rows(table, task, where=name)[0], by_fold, level, task)
    kept = found.get("tissue_covariates")
    if kept is not None:
        folds = {(fold.size.repeat, fold.size.fold) for fold in kept}
        found = {n: [f for f in results if (f.size.repeat, f.size.fold) in folds] for n, results in found.items()}
    how = "mean of folds, tissue + covariates minus covariates, Nadeau-Bengio, 95%"
    adds = {} if kept is None else _difference(found, task, how)
    headline = KINDS[task.kind].headline
    return {
        "names": list(names),
        "folds": len(found["covariates"]),
        "reason": reason or None,
        **{name: _json(over_folds(results, task)) for name, results in found.items()},
        "adds": _json(adds),
        "sentence": sentence(headline, adds.get(headline), names),
    }


def sentence(metric: str, adds: Interval | None, names: Sequence[str]) -> str:
    """What tissue adds to the covariates, in words; what is not shown is not claimed."""
    to = ", ".join(names)
    if adds is None or adds.value is None:
        return f"What tissue adds to {to} could not be computed."
    if metric in LOWER_IS_BETTER:
        adds = Interval(-adds.value, _minus(adds.high), _minus(adds.low), adds.how)
    assert adds.value is not None
    if adds.low is None or adds.high is None:
        return f"Tissue changes {metric} by {_signed(adds.value)} over {to} alone; no interval, so nothing is claimed."
    said = f"{metric} {_signed(adds.value)} ({_signed(adds.low)} to {_signed(adds.high)})"
    if adds.low > 0:
        return f"Tissue adds to {to}: {said}."
    if adds.high < 0:
        return f"Tissue takes away from {to}: {said}."
    if adds.low >= -LITTLE and adds.high <= LITTLE:
        return f"Tissue adds little to {to}: {said}."
    if abs(adds.value) <= SMALL:
        return f"On these folds tissue adds little to {to}: {said}; more, or less, is not excluded."
    return f"That tissue adds to {to} is not shown: {said}."


def _difference(found: Mapping[str, list[FoldResult]], task: Task, how: str) -> dict[str, Interval]:
    gaps = difference(found["tissue_covariates"], found["covariates"], task)
    return {name: Interval(gap.value, gap.low, gap.high, how, reason=gap.reason) for name, gap in gaps.items()}


def _json(figures: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: interval.to_json() for name, interval in figures.items()}


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # nothing is -0.000


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _missing(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
