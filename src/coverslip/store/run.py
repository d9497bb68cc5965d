"""A run on disk: where each thing lies, and reading it back.

run = Run.open("runs/prostate")
run.metrics["primary"]["auroc"]["value"]
run.predictions             # a table, one row a slide and fold
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from coverslip.base.errors import SettingsError
from coverslip.base.files import remove_abandoned, storage_errors, write_text
from coverslip.base.settings import dump_toml
from coverslip.base.study import Study, load_study
from coverslip.cohort import Split
from coverslip.store.tables import read_outcomes, read_predictions

WEIGHTS = "weights.safetensors"
MODEL = "model.json"


@dataclass(frozen=True)
class RunFolder:
    """The names inside a run folder, in one place. Nothing is read or made but by `create`."""

    folder: Path

    def create(self) -> RunFolder:
        """Makes the folder, and removes what killed runs left half-written in it; itself.

        Raises:
            StoreError: it cannot be written.
        """
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self.folder)
        return self

    @property
    def settings(self) -> Path:
        return self.folder / "settings.toml"

    @property
    def cohort(self) -> Path:
        return self.folder / "cohort.json"

    @property
    def split(self) -> Path:
        return self.folder / "split.json"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions.csv"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def audit(self) -> Path:
        return self.folder / "audit.json"

    @property
    def contents(self) -> Path:
        """Digests of the slides, by which a later cohort is compared with them."""
        return self.folder / "contents.json"

    @property
    def likeness(self) -> Path:
        """What the training slides look like; its arrays lie beside it, as .npz."""
        return self.folder / "likeness.json"

    @property
    def answers(self) -> Path:
        """What `predict` says of each patient, or slide where that is the level."""
        return self.folder / "answers.csv"

    @property
    def tuning(self) -> Path:
        return self.folder / "tuning.json"

    @property
    def control(self) -> Path:
        """What the same pipeline finds where nothing is to be found."""
        return self.folder / "control.json"

    @property
    def controls(self) -> Path:
        """The permutations of the control that are done, a file each."""
        return self.folder / "control"

    @property
    def checklists(self) -> Path:
        return self.folder / "checklists.json"

    @property
    def check(self) -> Path:
        return self.folder / "check.json"

    @property
    def outcomes(self) -> Path:
        return self.folder / "outcomes.csv"

    @property
    def environment(self) -> Path:
        return self.folder / "environment.json"

    def embedding(self, shard: str = "1/1") -> Path:
        """How a shard's slides were embedded, and what limited it."""
        part = "" if shard.strip() == "1/1" else f".{shard.strip().replace('/', '-of-')}"
        return self.folder / f"embedding{part}.json"

    @property
    def embeddings(self) -> list[Path]:
        """The `embedding` files of all shards."""
        return sorted(self.folder.glob("embedding*.json"))

    @property
    def log(self) -> Path:
        return self.folder / "run.log"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def heatmaps(self) -> Path:
        return self.folder / "heatmaps"

    @property
    def slices(self) -> Path:
        """Tiles of slides in groups where errors gather."""
        return self.folder / "slices"

    @property
    def tissue(self) -> Path:
        return self.folder / "tissue"

    def model(self, fold: str) -> Path:
        """The folder of one fold's model, by `Fold.name`."""
        return self.models / fold

    def baseline(self, fold: str) -> Path:
        """The linear baseline of one fold, as plain numbers."""
        return self.model(fold) / "baseline.json"

    def heatmap(self, slide: str, suffix: str) -> Path:
        """A slide's map: .png, .geojson or .parquet."""
        return self.heatmaps / f"{slide}{suffix}"

    def tissue_overlay(self, slide: str) -> Path:
        """A slide's thumbnail with its tissue outlined."""
        return self.tissue / f"{slide}.jpg"


def save_settings(path: Path, study: Study) -> None:
    """Writes the resolved settings; `load_study` of that file gives the same study.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    write_text(path, dump_toml(study.model_dump(mode="json")))


@dataclass(frozen=True)
class Run:
    """A finished run; each part is read when it is first asked for."""

    folder: Path

    @classmethod
    def open(cls, folder: Path | str, *, finished: bool = True) -> Run:
        """The run in a folder. `finished=False` also opens one that has only its settings yet.

        Raises:
            SettingsError: there is no such folder, it is no run, or the run is not finished: says what lacks.
        """
        run = cls(Path(folder))
        files = run.files
        if not run.folder.is_dir():
            raise SettingsError(
                f"There is no run folder {run.folder}.", fix="Give the folder that a study's 'output' names."
            )
        if not files.settings.is_file():
            raise SettingsError(
                f"{run.folder} is no run: it has no {files.settings.name}.",
                fix="Give the folder that a study's 'output' names.",
            )
        needed = (files.split, files.predictions, files.metrics)
        lacking = [path.name for path in needed if not path.is_file()]
        lacking += [] if any(files.models.glob(f"*/{WEIGHTS}")) else [f"{files.models.name}/"]
        if finished and lacking:
            raise SettingsError(
                f"The run {run.folder} is not finished: it has no {', '.join(lacking)}.",
                fix=f"`coverslip run {files.settings}` goes on where it stopped.",
            )
        return run

    @property
    def files(self) -> RunFolder:
        """Where each thing lies."""
        return RunFolder(self.folder)

    @cached_property
    def settings(self) -> Study:
        """The resolved study."""
        return load_study(self.files.settings)

    @cached_property
    def split(self) -> Split:
        """The folds, digest verified and checked for leaks."""
        return Split.from_json(_read_json(self.files.split), source=str(self.files.split))

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row a slide and fold: slide, patient, fold, set, the target, p_<class>."""
        task = self.settings.task
        text = (task.column,) if task.kind == "classification" and task.column is not None else ()
        return read_predictions(self.files.predictions, text=text)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json."""
        return _read_json(self.files.metrics)

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """Curves: evaluation.json."""
        return _read_json(self.files.evaluation)

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        """What became of each slide: slide, stage, status, reason, seconds."""
        return read_outcomes(self.files.outcomes)

    @cached_property
    def check(self) -> dict[str, Any] | None:
        """The preflight, or None where the run began from feature files."""
        return _read_json(self.files.check) if self.files.check.is_file() else None

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware, seeds, digests."""
        return _read_json(self.files.environment)

    def models(self) -> list[Path]:
        """The folders of the folds' models, sorted by name.

        Raises:
            SettingsError: a folder lacks its weights or its description.
        """
        folders = sorted(path for path in self.files.models.glob("*") if path.is_dir() and path.name[0] != ".")
        for folder in folders:
            lacking = [name for name in (WEIGHTS, MODEL) if not (folder / name).is_file()]
            if lacking:
                raise SettingsError(
                    f"The model {folder} is not whole: it has no {' and no '.join(lacking)}.",
                    fix=f"`coverslip train {self.files.settings}` trains that fold again.",
                )
        return folders


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(
            f"The run {path.parent} has no {path.name}.", fix="Finish the run: `coverslip run` goes on."
        ) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path} is damaged: {error}.", fix="Delete it and run again; what is finished is used again."
        ) from error
    if not isinstance(value, dict):
        raise SettingsError(f"{path} holds no JSON object.", fix="Delete it and run again.")
    return value
