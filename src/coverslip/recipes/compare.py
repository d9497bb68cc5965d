"""`coverslip compare`: several methods on the same folds, one report. Reads the features once; opens no slide.

Every method is trained on exactly the same patients, each in a run folder of its own below the comparison, so that a
comparison that was stopped goes on, a method added later is the only one to be trained, and each is a run like any
other. Inner folds are left out: nothing that is compared needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coverslip._version import __version__
from coverslip.base.errors import FeatureError, SettingsError
from coverslip.base.files import read_json, write_json
from coverslip.base.fingerprint import digest
from coverslip.base.progress import SILENT, Progress
from coverslip.base.study import CompareSettings, Study
from coverslip.cohort import write_split
from coverslip.eval import FoldSize
from coverslip.eval.truth import Task
from coverslip.mil import build_aggregator, make_task
from coverslip.mil.build import check_task_options
from coverslip.recipes.cells import Cell, all_cells, predict_cells, train_cells
from coverslip.recipes.compared import RUNS, Compared, compared_methods
from coverslip.recipes.compared_figures import Tested, told
from coverslip.recipes.cost import measured
from coverslip.recipes.embed import feature_store
from coverslip.recipes.engine import LOCAL, Engine, open_engine
from coverslip.recipes.fitting import digests_of
from coverslip.recipes.job import Job, Tally, open_job, working
from coverslip.recipes.out_of_fold import (
    baseline_table,
    evaluated,
    fit_baseline,
    fold_sizes,
    labelled,
    summaries,
    untuned,
)
from coverslip.recipes.train import cohort_json, environment, forget_results
from coverslip.recipes.training_data import TrainingData, load_data
from coverslip.recipes.tuning import collect_tuning
from coverslip.report import write_comparison
from coverslip.store import RunFolder, save_settings, write_table
from coverslip.store.tables import read_predictions

FOLDER, RESULT, TABLE = "compare", "compare.json", "compare.csv"
_BASELINE = "baseline.csv"


@dataclass(frozen=True)
class Comparison:
    """A comparison that is being carried out."""

    job: Job
    methods: list[Compared]
    reference: str


def compare_study(
    study: Study,
    *,
    aggregators: str | None = None,
    reference: str | None = None,
    engine: str = LOCAL,
    ray_address: str | None = None,
    progress: Progress = SILENT,
) -> Tally:
    """Trains and tests the methods on the study's folds and writes compare.json, compare.csv and report.html to the
    folder `compare` of the study's output.

    `aggregators` and `reference` as `compared_methods` takes them. A method that cannot work on these features is left
    out with the reason, a fold that fails is told; the tally's `failed` names both, beside slides that failed.

    Raises:
        SettingsError, TableError, SplitError, FeatureError: what the user gave cannot work.
    """
    check_task_options(study.task.kind, study.task.options)
    folder = Path(study.output) / FOLDER
    methods, chosen = compared_methods(study, folder, aggregators, reference)
    own = study.model_copy(update={"output": str(folder)})
    job = open_job(own, need_paths=False, store=feature_store(study), progress=progress, trains=True)
    # Comparing with these settings again goes on in this folder.
    declared = CompareSettings(
        methods={method.label: method.entry for method in methods}, reference=chosen, margin=study.compare.margin
    )
    save_settings(job.run.settings, study.model_copy(update={"compare": declared}))
    with working(job.run, "compare"), open_engine(engine, ray_address) as where:
        return _compare(Comparison(job, methods, chosen), where)


def _compare(comparison: Comparison, engine: Engine) -> Tally:
    job = comparison.job
    data = load_data(job, {})
    methods, left_out = _usable(comparison, data)
    write_split(data.split, job.run.split)
    write_json(job.run.cohort, cohort_json(job, data))
    prints = digests_of(data.features, data.features)
    cells = all_cells(methods, data, prints)
    failed = train_cells(cells, data, engine, job.progress)
    # Test patients are read when every model is made.
    baseline, cost = _baseline(job, data, prints)
    failed |= predict_cells([cell for cell in cells if cell.name not in failed], data, engine, job.progress)
    results = []
    with job.progress.stage("evaluate", len(methods), unit="method") as step:
        for method in methods:
            mine = [cell for cell in cells if cell.label == method.label]
            why = {cell.fold.name: failed[cell.name] for cell in mine if cell.name in failed}
            rows = [cell.predictions(_text(data)) for cell in mine if cell.name not in failed]
            predictions = pd.concat(rows, ignore_index=True) if rows else None
            if predictions is not None and not why:
                _keep_run(comparison, method, mine, data, predictions, baseline, engine)
            results.append(Tested(method, predictions, why, [cell.trained for cell in mine], [c.tested for c in mine]))
            step.advance(note=method.label)
    found = told(
        job,
        data,
        results,
        baseline,
        cost,
        sizes=_sizes(methods, data),
        reference=comparison.reference,
        margin=job.study.compare.margin,
        left_out=left_out,
        engine=engine.describe(),
        warnings=[*data.warnings, *untuned(data, job.study.fit), *_declared_before(comparison, methods, data)],
    )
    found["declared"] = _references(comparison, data)
    write_json(job.run.folder / RESULT, found)
    write_table(job.run.folder / TABLE, _rows(found))
    report = write_comparison(job.run.folder, pseudonymise=job.study.report.pseudonymise)
    lost = {f"{r.method.label}, {fold}": why for r in results for fold, why in r.failed.items()}
    return Tally(job.run.folder, {**data.failed, **left_out, **lost}, found, report)


def _usable(comparison: Comparison, data: TrainingData) -> tuple[list[Compared], dict[str, str]]:
    """The methods that these features allow, and the others with the reasons; wrong options end it here.

    Raises:
        SettingsError: options that a method cannot be built with, the reference is left out, or one method is left.
    """
    study = comparison.job.study
    task = make_task(
        study.task.kind,
        classes=data.targets.classes,
        grid=data.targets.grid,
        weights=study.fit.class_weights,
        options=study.task.options,
    )
    kept, left_out = [], {}
    for method in comparison.methods:
        settings = method.study.aggregator
        built = build_aggregator(settings.name, data.bags.dim, task.num_outputs, settings.options)
        try:
            if built.uses_positions:
                data.bags.require_positions(settings.name)
        except FeatureError as error:
            left_out[method.label] = str(error)
            comparison.job.progress.say(f"{method.label} is left out: {error}")
            continue
        kept.append(method)
    if comparison.reference in left_out:
        raise SettingsError(
            f"The reference {comparison.reference!r} cannot work on these features: {left_out[comparison.reference]}",
            fix="Declare another: --reference.",
        )
    if len(kept) < 2:
        raise SettingsError(
            f"Only {kept[0].label!r} can work on these features: {next(iter(left_out.values()))}",
            fix="Add methods that need no positions: `coverslip list aggregators`.",
        )
    return kept, left_out


def _baseline(job: Job, data: TrainingData, prints: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The linear model on each fold: its predictions and what it cost; read back where they are of the same data."""
    path = job.run.folder / _BASELINE
    record = path.with_suffix(".json")
    made_from = digest(
        [data.split.digest, data.targets.digest, sorted(prints.items()), job.study.task.model_dump(), __version__]
    )
    if path.is_file() and (kept := read_json(record)).get("digest") == made_from:
        return read_predictions(path, text=_text(data)), kept
    tables, spread = [], summaries(data.bags)
    with job.progress.stage("baseline", len(data.split.folds), unit="fold") as step, measured("cpu") as cost:
        for fold in data.split.folds:
            linear = fit_baseline(spread, data, fold)
            tables.append(labelled(baseline_table(linear, spread, data.bags.take(fold.test)), data, fold))
            step.advance(note=fold.name)
    write_table(path, pd.concat(tables, ignore_index=True))
    folds = len(data.split.folds)
    kept = {
        "digest": made_from,
        "seconds": round(cost.seconds / folds, 3),
        "cpu_seconds": round(cost.cpu_seconds / folds, 3),
        "parameters": _linear_parameters(data),
    }
    write_json(record, kept)
    return read_predictions(path, text=_text(data)), kept


def _linear_parameters(data: TrainingData) -> int:
    """A weight for mean and spread of each feature, and an intercept, for each output."""
    task = Task.of(data.targets.description)
    outputs = len(task.reader.predictions(task))
    return (2 * data.bags.dim + 1) * (1 if outputs <= 2 else outputs)


def _keep_run(
    comparison: Comparison,
    method: Compared,
    cells: Sequence[Cell],
    data: TrainingData,
    predictions: pd.DataFrame,
    baseline: pd.DataFrame,
    engine: Engine,
) -> None:
    """Makes the method's folder a run like any other; what is there of the same cells and settings stays."""
    run, study = method.run, method.study
    job = replace(comparison.job, study=study, run=run)
    record = run.folder / "compared.json"
    made_from = digest([[cell.digest for cell in cells], study.evaluation.model_dump(), list(data.warnings)])
    if run.metrics.is_file() and read_json(record).get("digest") == made_from:
        return
    run.create()
    forget_results(run, data.split)
    save_settings(run.settings, study)
    write_split(data.split, run.split)
    write_json(run.cohort, cohort_json(job, data))
    write_table(run.predictions, predictions)
    result = evaluated(job, data, predictions, baseline, fold_sizes(study, run, data, data.split.folds))
    write_json(run.evaluation, result.curves)
    write_json(run.environment, environment(job, data, engine))
    collect_tuning(run, data.split)
    write_json(run.metrics, result.metrics)
    write_json(record, {"digest": made_from})


def _sizes(methods: Sequence[Compared], data: TrainingData) -> list[FoldSize]:
    """The folds' sizes. Where methods are tuned differently and so learn from more or fewer patients, the fewest count:
    the intervals come out rather too wide."""
    each = [fold_sizes(method.study, None, data, data.split.folds) for method in methods]
    return [min(sizes, key=lambda size: size.train) for sizes in zip(*each)]


def _declared_before(comparison: Comparison, methods: Sequence[Compared], data: TrainingData) -> list[str]:
    """What was compared on these folds before and is not in the family now: a family chosen after the figures."""
    folder, said = comparison.job.run.folder, []
    named = {method.run.folder.name for method in methods}
    others = [
        path.parent.name
        for path in sorted((folder / RUNS).glob("*/metrics.json"))
        if path.parent.name not in named and read_json(RunFolder(path.parent).split).get("digest") == data.split.digest
    ]
    if others:
        said.append(
            f"Compared on these folds before and left out now: {', '.join(others)}. A family that is chosen after the "
            "figures were seen makes p-values too small; name them too, or declare the family before."
        )
    earlier = [name for name in _references(comparison, data) if name != comparison.reference]
    if earlier:
        said.append(
            f"The reference of an earlier comparison on these folds was {', '.join(earlier)}: a reference that is "
            "chosen after the figures were seen makes p-values too small."
        )
    return said


def _references(comparison: Comparison, data: TrainingData) -> list[str]:
    """The references that were declared on these folds, the first one first."""
    before = read_json(comparison.job.run.folder / RESULT)
    earlier = before.get("declared", []) if before.get("split") == data.split.digest else []
    return list(dict.fromkeys([*map(str, earlier), comparison.reference]))


def _text(data: TrainingData) -> tuple[str, ...]:
    return tuple(data.targets.columns) if data.targets.classes else ()


def _rows(found: Mapping[str, Any]) -> pd.DataFrame:
    """compare.csv: a row a method and one of the baseline."""
    against = {family: {one["method"]: one for one in found[family]["methods"]} for family in ("reference", "baseline")}
    rows = []
    for one in [*found["methods"], found["linear"]]:
        row: dict[str, Any] = {"name": one["name"], "method": one["method"], "metric": found["metric"]}
        row |= {part: one["value"][part] for part in ("value", "low", "high")}
        for family, known in against.items():
            gap = known.get(one["name"], {"difference": {}})
            row |= {f"{family}_{part}": gap["difference"].get(part) for part in ("value", "low", "high")}
            row |= {f"{family}_{part}": gap.get(part) for part in ("p", "p_holm")}
        row["mean_rank"] = (one["rank"] or {}).get("value")
        row |= {name: one["cost"].get(name) for name in found["costs"]}
        row["folds"] = sum(value is not None for value in one["folds"])
        rows.append(row)
    return pd.DataFrame(rows).replace({np.nan: None})
