"""A study that is being carried out: what it is about, where it writes, and what became of each slide."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coverslip._version import __version__
from coverslip.base.files import storage_errors
from coverslip.base.progress import Progress
from coverslip.base.registry import AGGREGATORS, ENCODERS, EXPLAINERS, READERS, TASKS, TISSUE
from coverslip.base.study import Study
from coverslip.cohort import Cohort, load_cohort
from coverslip.store import FeatureStore, OutcomeLog, RunFolder, save_settings

LOG = logging.getLogger("coverslip")


@dataclass
class Tally:
    """What a recipe leaves: its folder, the slides that failed with the reason, and what it found."""

    folder: Path
    failed: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    report: Path | None = None


@dataclass(frozen=True)
class Job:
    """One study with its cohort, its run folder and its feature store, opened."""

    study: Study
    cohort: Cohort
    run: RunFolder
    store: FeatureStore
    outcomes: OutcomeLog
    progress: Progress

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the cohort's table, by column name."""
        return [{str(k): v for k, v in row.items()} for row in self.cohort.frame.to_dict("records")]

    @property
    def has_slides(self) -> bool:
        """True where the table says where the slides are; else the study begins from feature files."""
        return "path" in self.cohort.frame


def open_job(study: Study, *, need_paths: bool | None, store: FeatureStore, progress: Progress) -> Job:
    """The study, checked and with its folder made; nothing is written before everything the user gave is understood.

    `need_paths` None means: where the table has paths, every row needs one.

    Raises:
        SettingsError: a name that no registry has.
        TableError: the cohort's table cannot be used.
        StoreError: the run folder cannot be written.
    """
    check_names(study)
    cohort = load_cohort(study.cohort, need_paths=bool(need_paths))
    if need_paths is None and "path" in cohort.frame:
        cohort = load_cohort(study.cohort, need_paths=True)
    run = RunFolder(Path(study.output))
    with storage_errors(run.folder):
        run.create()
    save_settings(run.settings, study)
    return Job(study, cohort, run, store, OutcomeLog(run.outcomes), progress)


def check_names(study: Study) -> None:
    """Refuses names that no registry has, with the nearest, before any work is done."""
    ENCODERS.entry(study.encoder.name)
    AGGREGATORS.entry(study.aggregator.name)
    TASKS.entry(study.task.kind)
    TISSUE.entry(study.tissue.method)
    if study.slides.reader is not None:
        READERS.entry(study.slides.reader)
    if study.heatmaps.method != "auto":
        EXPLAINERS.entry(study.heatmaps.method)


@contextmanager
def logged(run: RunFolder, verb: str) -> Iterator[None]:
    """Writes what happens inside the block to run.log, in order, with times."""
    handler = logging.FileHandler(run.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    start = time.monotonic()
    LOG.info("%s begins, coverslip %s", verb, __version__)
    try:
        yield
        LOG.info("%s done in %.0f s", verb, time.monotonic() - start)
    except BaseException as error:
        LOG.error("%s ends: %s: %s", verb, type(error).__name__, error)
        raise
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
        handler.close()
