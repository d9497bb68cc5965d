"""The cells of a comparison: a method on a fold, trained and, when all are, tested. Each is kept and not done twice.

A cell that cannot be trained says why, and the others go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from coverslip._version import __version__
from coverslip.base.errors import CoverslipError, StoreError
from coverslip.base.files import read_json, write_json
from coverslip.base.fingerprint import digest
from coverslip.base.progress import SILENT, Progress
from coverslip.base.study import Study
from coverslip.cohort import Fold
from coverslip.mil import SlideModel
from coverslip.mil.fit import CHECKPOINT
from coverslip.recipes.compared import Compared
from coverslip.recipes.cost import measured
from coverslip.recipes.engine import Engine
from coverslip.recipes.job import LOG
from coverslip.recipes.out_of_fold import labelled
from coverslip.recipes.train import FoldTraining
from coverslip.recipes.training_data import TrainingData
from coverslip.store import RunFolder, write_table
from coverslip.store.tables import read_predictions

TRAINED, TESTED, TEST_RECORD = "cell.json", "tested.csv", "tested.json"

# What a method that is wrong for these features raises while it computes: shapes, memory, values. A file that cannot be
# written is no fault of the method and ends the comparison.
_METHOD_FAILS = (ArithmeticError, AssertionError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Cell:
    """One method on one fold, and all that it depends on as 16 hex digits."""

    label: str
    study: Study
    fold: Fold
    digest: str

    @property
    def name(self) -> str:
        return f"{self.label}, {self.fold.name}"

    @property
    def folder(self) -> Path:
        """That of the fold's model, in the method's own run."""
        return RunFolder(Path(self.study.output)).model(self.fold.name)

    @property
    def trained(self) -> dict[str, Any]:
        """What its training cost; empty where there is none of the same data and settings."""
        found = read_json(self.folder / TRAINED)
        return found if found.get("digest") == self.digest else {}

    @property
    def tested(self) -> dict[str, Any]:
        """What its prediction cost; empty where there is none of the same data and settings."""
        found = read_json(self.folder / TEST_RECORD)
        return found if found.get("digest") == self.digest and self.trained else {}

    def predictions(self, text: tuple[str, ...]) -> pd.DataFrame:
        """Its rows of predictions.csv; `text` names columns that are no numbers."""
        return read_predictions(self.folder / TESTED, text=text)


def all_cells(methods: Sequence[Compared], data: TrainingData, prints: Mapping[str, str]) -> list[Cell]:
    """Every method on every fold, fold after fold; `prints` is the fingerprint of each slide's features."""
    return [
        Cell(method.label, method.study, fold, _digest(method.study, data, fold, prints))
        for fold in data.split.folds
        for method in methods
    ]


def train_cells(cells: Sequence[Cell], data: TrainingData, engine: Engine, progress: Progress) -> dict[str, str]:
    """Trains the cells that are not; those that failed, by name, with the reasons."""
    todo = [cell for cell in cells if not cell.trained]
    if len(todo) < len(cells):
        progress.say(f"{len(cells) - len(todo)} of {len(cells)} cells (a method on a fold) are trained already.")
    return _map("train", CellTraining(data, progress), todo, engine, progress)


def predict_cells(cells: Sequence[Cell], data: TrainingData, engine: Engine, progress: Progress) -> dict[str, str]:
    """Predicts the test patients of trained cells where that is not done; those that failed, as `train_cells`."""
    return _map("predict", CellTest(data), [cell for cell in cells if not cell.tested], engine, progress)


def _map(
    stage: str, work: CellTraining | CellTest, todo: Sequence[Cell], engine: Engine, progress: Progress
) -> dict[str, str]:
    failed: dict[str, str] = {}
    if not todo:
        return failed
    fit = todo[0].study.fit
    with progress.stage(stage, len(todo), unit="cell") as step:
        for place, reason in engine.map(work, todo, device=fit.device, devices=fit.devices):
            cell = todo[place]
            if reason:
                failed[cell.name] = reason
                progress.say(f"{cell.name} failed: {reason}")
            LOG.info("%s, %s: %s", stage, cell.name, reason or "done")
            step.advance(note=cell.name)
    return failed


@dataclass(frozen=True)
class CellTraining:
    """Trains a cell and notes the cost; says nothing, or why there is no model. Travels to another process without the
    rows, which are read from their files there."""

    data: TrainingData
    progress: Progress = SILENT

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.data,)

    def __call__(self, cell: Cell) -> str:
        folder, study = cell.folder, cell.study
        for left in (TRAINED, TEST_RECORD, TESTED):
            (folder / left).unlink(missing_ok=True)
        went_on = (folder / CHECKPOINT).is_file()
        train = FoldTraining(study, RunFolder(Path(study.output)), self.data, self.progress)
        try:
            # Rows are read before the clock starts: the first method would pay for all.
            self.data.bags.take((*cell.fold.train, *cell.fold.tune)).moments()
            with measured(study.fit.device) as cost:
                said = train(cell.fold)
            model = SlideModel.load(folder)
        except StoreError:
            raise
        except (CoverslipError, *_METHOD_FAILS) as error:
            return _reason(cell, error)
        # What was begun in another process, or is used again, took longer than the clock has seen.
        whole = not went_on and said != "reused"
        how = model.card.training
        settings = how.get("settings", {})
        write_json(
            folder / TRAINED,
            {
                "digest": cell.digest,
                "seconds": round(cost.seconds, 3) if whole else None,
                "cpu_seconds": round(cost.cpu_seconds, 3) if whole else None,
                "peak_bytes": cost.peak_bytes if whole else None,
                "memory_of": cost.memory_of,
                "parameters": sum(p.numel() for p in model.aggregator.parameters()),
                "epochs": how.get("epochs"),
                "best_epoch": how.get("best_epoch"),
                "lr": settings.get("lr"),
                "batch": settings.get("batch"),
            },
        )
        return ""


@dataclass(frozen=True)
class CellTest:
    """Predicts the test patients of a trained cell; says nothing, or why there is no prediction."""

    data: TrainingData

    def __call__(self, cell: Cell) -> str:
        test = self.data.bags.take(cell.fold.test)
        try:
            model = SlideModel.load(cell.folder)
            with measured(cell.study.fit.device) as cost:
                said = model.predict(test, times=self.data.targets.grid)
        except StoreError:
            raise
        except (CoverslipError, *_METHOD_FAILS) as error:
            return _reason(cell, error)
        write_table(cell.folder / TESTED, labelled(said, self.data, cell.fold))
        told = {"digest": cell.digest, "seconds": round(cost.seconds, 4), "tiles": sum(test.lengths)}
        write_json(cell.folder / TEST_RECORD, told)
        return ""


def _reason(cell: Cell, error: BaseException) -> str:
    """Why a cell has failed, in a line; what is no error of ours goes into the log whole."""
    if isinstance(error, CoverslipError):
        return str(error)
    LOG.error("%s", cell.name, exc_info=error)
    return f"{type(error).__name__}: {error}"


def _digest(study: Study, data: TrainingData, fold: Fold, prints: Mapping[str, str]) -> str:
    sets = fold.sets()
    return digest(
        {
            "sets": sets,
            "targets": data.targets.digest,
            "features": {slide: prints[slide] for slide in sorted({s for names in sets.values() for s in names})},
            "task": study.task.model_dump(),
            "aggregator": study.aggregator.model_dump(),
            "fit": study.fit.model_dump(),
            "tune": study.tune.model_dump() if study.tune.grid else None,
            "coverslip": __version__,
        }
    )
