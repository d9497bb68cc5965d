"""`--control N`: the whole pipeline again on outcomes that were dealt to other patients, N times.

What is repeated is all that learns: the folds are drawn, settings chosen, models trained, test patients predicted, and
the headline figure taken, exactly as for the real outcomes. Folds that are made here are balanced by the outcome, so
drawing them is a step of the pipeline and is repeated too (same seed); folds that were made elsewhere are read again
and stay as they are, with their leaks. Where nothing can be found, a pipeline that finds something leaks or has a bug.

A permutation that is done lies in `control/` of the run folder and is not done again; one that was stopped goes on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from coverslip._version import __version__
from coverslip.base.errors import SplitError
from coverslip.base.files import finite, read_json, write_json
from coverslip.base.fingerprint import digest
from coverslip.base.study import Study
from coverslip.cohort import Cohort, Targets, resolve_split, with_common_times
from coverslip.eval import FoldSize
from coverslip.eval.folds import fold_results, mean_sd, pooled_units
from coverslip.eval.kinds import KINDS
from coverslip.eval.permute import control, dealt, null_mean
from coverslip.eval.reduce import UnitLevel, read_rows
from coverslip.eval.survival import risk_groups
from coverslip.eval.truth import Task
from coverslip.recipes.engine import Engine
from coverslip.recipes.fitting import digests_of
from coverslip.recipes.job import LOG, Job
from coverslip.recipes.training_data import TrainingData, bag_target
from coverslip.report.wording import p_value
from coverslip.store import RunFolder

FORMAT = "coverslip.control/1"

# Trains all folds into a run folder; their out-of-fold predictions and sizes. It travels to other processes.
CrossValidation = Callable[[Study, RunFolder, TrainingData], tuple[pd.DataFrame, list[FoldSize]]]
Figures = dict[str, float | None]


def run_control(
    job: Job,
    data: TrainingData,
    predictions: pd.DataFrame,
    sizes: Sequence[FoldSize],
    cross_validate: CrossValidation,
    engine: Engine,
) -> dict[str, Any] | None:
    """What control.json holds, after it is written; None where `evaluation.control` asks for no permutation.

    `predictions` and `sizes` are those of the real outcomes.
    """
    study, number = job.study, job.study.evaluation.control
    if not number:
        return None
    work = Permuted(study, job.run, data, job.cohort, cross_validate, _made_from(study, data))
    found: list[Figures] = [{}] * number
    with job.progress.stage("control", number, unit="permutation") as step:
        for place, figures in engine.map(work, range(number), device=study.fit.device, devices=study.fit.devices):
            found[place] = figures
            step.advance(note=f"permutation {place + 1}")
    task = Task.of(data.targets.description)
    told = _told(_figures(predictions, sizes, task, data.unit), found, task, data, study)
    write_json(job.run.control, finite(told))
    LOG.info("control: %s", told["sentence"])
    job.progress.say(told["sentence"])
    return told


@dataclass(frozen=True)
class Permuted:
    """The figures of one permutation, by its number. Travels to another process without the rows of the features."""

    study: Study
    run: RunFolder
    data: TrainingData
    cohort: Cohort
    cross_validate: CrossValidation
    made_from: str

    def __call__(self, number: int) -> Figures:
        """Nothing is trained where the permutation is done."""
        record = self.run.controls / f"{number:04}.json"
        made_from = digest([self.made_from, number])
        if record.is_file() and (kept := read_json(record)).get("digest") == made_from:
            return dict(kept["figures"])
        begin = time.perf_counter()
        folder = RunFolder(record.with_suffix(""))
        reason, figures = "", Figures()
        try:
            data = permuted_data(self.data, self.cohort, self.study, number)
        except SplitError as error:
            # Chance left a fold without a class: the figure does not exist, as it would not for such a cohort.
            reason = error.message
            LOG.info("permutation %d has no folds: %s", number + 1, reason)
        else:
            predictions, sizes = self.cross_validate(self.study, folder, data)
            figures = _figures(predictions, sizes, Task.of(data.targets.description), data.unit)
        self.run.controls.mkdir(parents=True, exist_ok=True)
        seconds = round(time.perf_counter() - begin, 1)
        write_json(record, finite({"digest": made_from, "figures": figures, "reason": reason, "seconds": seconds}))
        shutil.rmtree(folder.folder, ignore_errors=True)
        return figures


def permuted_data(data: TrainingData, cohort: Cohort, study: Study, number: int) -> TrainingData:
    """The data of one permutation: the same slides and features, outcomes of other patients, folds drawn by them.

    Raises:
        SplitError: with these outcomes the folds cannot be made.
    """
    targets = permuted_targets(data.targets, study.evaluation.seed, number)
    split = resolve_split(cohort, targets, study.split)
    targets = with_common_times(targets, study.task, split)
    return replace(data, targets=targets, split=split, bags=data.bags.with_target(bag_target(targets)))


def permuted_targets(targets: Targets, seed: int, number: int) -> Targets:
    """The targets with outcomes dealt anew: the slides of a patient follow, a time goes with its event.

    Where slides have outcomes of their own, a patient's are dealt whole, among patients with as many slides.
    """
    frame = targets.frame
    places = {str(name): np.asarray(mine, dtype=np.int64) for name, mine in frame.groupby("patient").indices.items()}
    within = None
    if targets.level != "patient":
        within = {patient: str(len(mine)) for patient, mine in places.items()}
    source = np.empty(len(frame), dtype=np.int64)
    for patient, theirs in dealt(places, number, seed=seed, within=within).items():
        source[places[patient]] = theirs[0] if within is None else theirs
    names = frame[["slide", "patient"]]
    outcomes = frame.drop(columns=["slide", "patient"]).iloc[source].reset_index(drop=True)
    return replace(targets, frame=pd.concat([names, outcomes], axis=1))


def _figures(predictions: pd.DataFrame, sizes: Sequence[FoldSize], task: Task, level: UnitLevel) -> Figures:
    """The headline as metrics.json has it, and for survival the log-rank's z between the groups of risk."""
    kind, by_fold = KINDS[task.kind], {(size.repeat, size.fold): size for size in sizes}
    rows, _ = read_rows(predictions, task, where="Predictions")
    values = [fold.figures[kind.headline] for fold in fold_results(rows, by_fold, level, task)]
    figures: Figures = {"headline": mean_sd(values)["mean"]}
    if task.kind == "survival":
        units = pooled_units(rows, by_fold, level)
        figures["logrank_z"] = risk_groups(units, units.p[:, 0])["logrank"]["z"]
    return figures


def _told(observed: Figures, found: Sequence[Figures], task: Task, data: TrainingData, study: Study) -> dict[str, Any]:
    kind = KINDS[task.kind]
    headline = control(observed["headline"], [one.get("headline") for one in found])
    mean = null_mean(headline.permuted)
    # Permutations that all give the same have no interval: a leak that tells everything gives 1 each time.
    least = mean.value if mean.low is None else mean.low
    above = least is not None and least > kind.chance
    told = {
        "format": FORMAT,
        "level": data.unit,
        "metric": kind.headline,
        "chance": kind.chance,
        "seed": study.evaluation.seed,
        "dealt": "patients" if data.targets.level == "patient" else "patients with as many slides",
        "headline": headline.to_json(),
        "null_mean": mean.to_json(),
        "above_chance": above,
    }
    if "logrank_z" in observed:
        told["logrank"] = control(observed["logrank_z"], [one.get("logrank_z") for one in found]).to_json()
    return {**told, "sentence": _sentence(told)}


def _sentence(told: dict[str, Any]) -> str:
    """What the control says, in words."""
    headline, metric = told["headline"], told["metric"]
    if headline["p"] is None:
        return f"The control says nothing: {headline['reason']}."
    null = headline["permuted"]
    # One over permutations and one: none of them did as well, and p says no more than how many there were.
    least = ", the least they can give" if headline["p"] <= 1 / (1 + headline["permutations"]) else ""
    said = (
        f"{metric} is {headline['observed']:.3f}; with outcomes of other patients it is {null['mean']:.3f} on average "
        f"({null['lowest']:.3f} to {null['highest']:.3f}; {headline['permutations']} permutations, "
        f"{p_value(headline['p'])}{least})."
    )
    if told["above_chance"]:
        return f"{said} That average is above chance ({told['chance']:g}): something leaks."
    return f"{said} That is what chance gives ({told['chance']:g}): no leak shows."


def _made_from(study: Study, data: TrainingData) -> str:
    """All that a permutation depends on beside its number."""
    return digest(
        {
            "targets": data.targets.digest,
            "split": data.split.digest,
            "features": digests_of(data.features, sorted(data.features)),
            "settings": {
                name: getattr(study, name).model_dump() for name in ("task", "aggregator", "fit", "tune", "split")
            },
            "seed": study.evaluation.seed,
            "coverslip": __version__,
        }
    )
