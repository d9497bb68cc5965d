"""A study that is being carried out: what it is about, where it writes, and what became of each slide."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coverslip._version import __version__
from coverslip.base.errors import SettingsError
from coverslip.base.files import storage_errors
from coverslip.base.progress import Progress
from coverslip.base.registry import AGGREGATORS, ENCODERS, EXPLAINERS, READERS, TASKS, TISSUE
from coverslip.base.study import Study
from coverslip.base.threads import one_blas_thread
from coverslip.cohort import Cohort, load_cohort, make_targets, resolve_split
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


def open_job(
    study: Study, *, need_paths: bool | None, store: FeatureStore, progress: Progress, trains: bool = False
) -> Job:
    """The study, checked and with its folder made; nothing is written before everything the user gave is understood.

    `need_paths` None means: where the table has paths, every row needs one. `trains` says that the study goes on to
    training, so that a wrong target is refused now and not after hours of embedding; so are folds, where slides come
    first. (Where features are there already, foreign folds may name slides without any, and are read with them.)

    Raises:
        SettingsError: a name that no registry has.
        TableError: the cohort's table cannot be used.
        SplitError: folds leak or cannot be made.
        StoreError: the run folder cannot be written.
    """
    check_names(study)
    cohort = load_cohort(study.cohort, need_paths=bool(need_paths))
    begins_with_slides = need_paths is None and "path" in cohort.frame
    if begins_with_slides:
        cohort = load_cohort(study.cohort, need_paths=True)
    if trains:
        targets = make_targets(cohort, study.task, study.cohort.classes)
        if begins_with_slides:
            resolve_split(cohort, targets, study.split)
    run = RunFolder(Path(study.output)).create()
    save_settings(run.settings, study)
    return Job(study, cohort, run, store, OutcomeLog(run.outcomes), progress)


def check_names(study: Study) -> None:
    """Refuses names that no registry has, with the nearest, and folders that are not there, before any work is done."""
    ENCODERS.entry(study.encoder.name)
    AGGREGATORS.entry(study.aggregator.name)
    TASKS.entry(study.task.kind)
    TISSUE.entry(study.tissue.method)
    if study.slides.reader is not None:
        READERS.entry(study.slides.reader)
    if study.heatmaps.method != "auto":
        EXPLAINERS.entry(study.heatmaps.method)
    for name, folder in (("tissue.masks", study.tissue.masks), ("heatmaps.annotations", study.heatmaps.annotations)):
        # A slide without a file there is fine; a folder that is not there is a typing error, and would go unseen.
        if folder is not None and not Path(folder).is_dir():
            raise SettingsError(f"{name}: there is no folder {folder}.", fix="Correct the path, or leave it out.")


@contextmanager
def working(run: RunFolder, verb: str) -> Iterator[None]:
    """Does a verb's work: what happens inside the block goes to run.log, in order, with times."""
    with storage_errors(run.log):
        handler = _RunLog(run.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    start = time.monotonic()
    LOG.info("%s begins, coverslip %s", verb, __version__)
    try:
        with one_blas_thread():
            yield
    finally:
        error = sys.exception()
        if error is None:
            LOG.info("%s done in %.0f s", verb, time.monotonic() - start)
        else:
            LOG.error("%s ends: %s: %s", verb, type(error).__name__, error)
        LOG.removeHandler(handler)
        LOG.setLevel(level)
        with suppress(OSError):  # lines that the disk did not take
            handler.close()


class _RunLog(logging.FileHandler):
    """run.log. On a full disk its lines are lost and nothing else; the next file that matters tells of the disk."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass
