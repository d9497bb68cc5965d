"""What a comparison says: figures of each method, two families of paired tests, ranks, cost, noise, and the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from coverslip._version import __version__
from coverslip.eval import FoldSize, compare_folds
from coverslip.eval.choice import Price, choose, mean_ranks, noise
from coverslip.eval.folds import fold_results, over_folds
from coverslip.eval.interval import Interval
from coverslip.eval.kinds import KINDS
from coverslip.eval.reduce import read_rows
from coverslip.eval.truth import Task
from coverslip.recipes.compared import Compared
from coverslip.recipes.job import Job
from coverslip.recipes.training_data import TrainingData

FORMAT = "coverslip.compare/1"
COSTS = ("parameters", "train_seconds", "train_cpu_seconds", "peak_mb", "seconds_per_1000_tiles")
# Differences over fewer folds hardly ever show anything.
_FEW_FOLDS = 5


@dataclass(frozen=True)
class Tested:
    """A method that was tested: its out-of-fold predictions (None: every fold failed), the folds that failed with the
    reasons, and what each of its cells cost, as the cells say."""

    method: Compared
    predictions: pd.DataFrame | None
    failed: Mapping[str, str]
    trained: Sequence[Mapping[str, Any]]
    tested: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Figures:
    """The headline of each fold, in the split's order, and every figure over the folds."""

    folds: list[float | None]
    over: Mapping[str, Interval]


def told(
    job: Job,
    data: TrainingData,
    results: Sequence[Tested],
    baseline: pd.DataFrame,
    baseline_cost: Mapping[str, Any],
    *,
    sizes: Sequence[FoldSize],
    reference: str,
    margin: float,
    left_out: Mapping[str, str],
    engine: Mapping[str, Any],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """What compare.json holds."""
    task = Task.of(data.targets.description)
    kind = KINDS[task.kind]
    metric, linear = kind.headline, kind.baseline
    found = {one.method.label: _figures(one.predictions, sizes, data, task) for one in results}
    base = _figures(baseline, sizes, data, task)
    low, high = kind.bounds(metric, task)
    bounds = (low - high, high - low)
    values = {label: figures.folds for label, figures in found.items()}
    against_reference = compare_folds(metric, reference, values, sizes, bounds=bounds)
    against_baseline = compare_folds(metric, linear, {linear: base.folds, **values}, sizes, bounds=bounds)
    ranks = mean_ranks({**values, linear: base.folds}, sizes)
    costs = {one.method.label: _cost(one) for one in results}
    prices = {label: Price(cost["parameters"], cost[_clock(cost)]) for label, cost in costs.items()}
    choice = choose(against_reference, against_baseline, prices, margin=margin, level=data.unit)

    def figures_of(label: str, figures: Figures) -> dict[str, Any]:
        return {
            "value": figures.over[metric].to_json(),
            "figures": {name: figures.over[name].to_json() for name in kind.shown},
            "folds": figures.folds,
            "rank": ranks[label].to_json() if label in ranks else None,
        }

    return {
        "format": FORMAT,
        "name": job.study.name,
        "coverslip": __version__,
        "engine": dict(engine),
        "task": task.to_json(),
        "level": data.unit,
        "metric": metric,
        "chance": kind.chance,
        "shown": list(kind.shown),
        "split": data.split.digest,
        "counts": {"patients": len(set(data.targets.patient_of.values())), "slides": len(data.targets.slides)},
        "folds": [
            {"fold": fold.index, "repeat": fold.repeat, "name": fold.title, "train": size.train, "test": size.test}
            for fold, size in zip(data.split.folds, sizes)
        ],
        "methods": [
            {
                **_described(one, job),
                **figures_of(one.method.label, found[one.method.label]),
                "failed": dict(one.failed),
                "cost": costs[one.method.label],
            }
            for one in results
        ],
        "linear": {
            "name": linear,
            "method": linear,
            **figures_of(linear, base),
            "cost": {
                "parameters": baseline_cost.get("parameters"),
                "train_seconds": baseline_cost.get("seconds"),
                "train_cpu_seconds": baseline_cost.get("cpu_seconds"),
            },
        },
        "left_out": dict(left_out),
        "reference": against_reference.to_json(),
        "baseline": against_baseline.to_json(),
        "sentences": against_reference.sentences(),
        "noise": noise(against_reference),
        "choice": choice.to_json(),
        "margin": margin,
        "costs": list(COSTS),
        "hours": _hours(results),
        "warnings": [*warnings, *_doubts(results, sizes)],
    }


def _figures(predictions: pd.DataFrame | None, sizes: Sequence[FoldSize], data: TrainingData, task: Task) -> Figures:
    kind, by_fold = KINDS[task.kind], {(size.repeat, size.fold): size for size in sizes}
    results = []
    if predictions is not None:
        rows, _ = read_rows(predictions, task, where="Predictions")
        results = fold_results(rows, by_fold, data.unit, task)
    headline = {(one.size.repeat, one.size.fold): one.figures[kind.headline] for one in results}
    return Figures([headline.get(key) for key in by_fold], over_folds(results, task))


def _described(one: Tested, job: Job) -> dict[str, Any]:
    """What the method is, and how it was trained."""
    study = one.method.study
    theirs, ours = study.fit.model_dump(), job.study.fit.model_dump()
    known = [cell for cell in one.trained if cell]

    def seen(name: str) -> list[Any]:
        return sorted({cell[name] for cell in known if cell.get(name) is not None})

    return {
        "name": one.method.label,
        "method": study.aggregator.name,
        "options": dict(study.aggregator.options),
        "fit": {name: value for name, value in theirs.items() if value != ours[name]},
        "grid": dict(study.tune.grid),
        "used": {name: seen(name) for name in ("lr", "batch", "epochs", "best_epoch")},
        "run": str(one.method.run.folder.relative_to(job.run.folder)),
    }


def _cost(one: Tested) -> dict[str, Any]:
    """Means over the folds whose training was measured whole; the largest peak."""

    def known(name: str) -> list[float]:
        return [cell[name] for cell in one.trained if cell.get(name) is not None]

    def mean(name: str) -> float | None:
        return sum(known(name)) / len(known(name)) if known(name) else None

    tiles = sum(cell["tiles"] for cell in one.tested if cell)
    peak, parameters = known("peak_bytes"), known("parameters")
    return {
        "parameters": int(max(parameters)) if parameters else None,
        "train_seconds": mean("seconds"),
        "train_cpu_seconds": mean("cpu_seconds"),
        "peak_mb": max(peak) / 2**20 if peak else None,
        "memory_of": next((cell["memory_of"] for cell in one.trained if cell), None),
        "seconds_per_1000_tiles": 1000 * sum(c["seconds"] for c in one.tested if c) / tiles if tiles else None,
        "folds_measured": len(known("seconds")),
    }


def _clock(cost: Mapping[str, Any]) -> str:
    """Which seconds a method is priced by: those of the processor do not depend on what runs beside."""
    return "train_seconds" if cost["memory_of"] == "device" else "train_cpu_seconds"


def _hours(results: Sequence[Tested]) -> dict[str, float]:
    """What the cells took altogether."""
    cells = [cell for one in results for cell in one.trained if cell]
    return {
        name: round(sum(cell[part] or 0.0 for cell in cells) / 3600, 3)
        for name, part in (("clock", "seconds"), ("processor", "cpu_seconds"))
    }


def _doubts(results: Sequence[Tested], sizes: Sequence[FoldSize]) -> list[str]:
    said = []
    if len(sizes) == 1:
        said.append("There is one fold: differences have neither interval nor test.")
    elif len(sizes) < _FEW_FOLDS:
        said.append(f"With {len(sizes)} folds hardly any difference can be shown: intervals of few folds are wide.")
    for one in results:
        if one.failed:
            folds = ", ".join(one.failed)
            said.append(
                f"{one.method.label} has no figure of {folds}: it is compared on the other folds alone, and its "
                "mean is of other patients than those of the rest."
                if one.predictions is not None
                else f"{one.method.label} failed on every fold."
            )
    return said
