"""The check of many slides: each in a child process with a time limit, then all against each other."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from coverslip.base.errors import Finding
from coverslip.base.progress import SILENT, Progress
from coverslip.base.registry import READERS
from coverslip.preflight.duplicates import compare
from coverslip.preflight.report import CheckReport, SlideReport
from coverslip.preflight.workers import Json, Worker, WorkerLost, worker_command
from coverslip.slide import slide_id

_COMMAND_MODULE = "coverslip.preflight.check"


def check_cohort(
    paths: Iterable[Path | str],
    *,
    names: Sequence[str] | None = None,
    mpp: Mapping[str, float] | None = None,
    fallback_mpp: float | None = None,
    reader: str | None = None,
    timeout_s: float = 120.0,
    jobs: int = 2,
    progress: Progress = SILENT,
    command: Sequence[str] | None = None,
) -> CheckReport:
    """What there is to say about slides, in the order of `paths`.

    `names` are the slides' ids where a table gives them; without it they come from the files, and a path that comes
    twice is checked once. `mpp` gives µm per pixel by slide id where the table knows it, `fallback_mpp` where nobody
    else does. Each slide is read in one of `jobs` child processes for at most `timeout_s` seconds; one that crashes
    or hangs is unreadable and harms no other. `command` starts another worker than ours (see
    `preflight.workers.serve`).

    Raises:
        SettingsError: there is no reader of that name.
    """
    if reader is not None:
        READERS.entry(reader)
    files = list(map(Path, paths)) if names is not None else list(dict.fromkeys(map(Path, paths)))
    ids = list(names) if names is not None else [slide_id(path) for path in files]
    assert len(ids) == len(files), "one name a path"
    requests: list[Json] = [
        {"path": str(path), "id": id, "mpp": (mpp or {}).get(id), "fallback_mpp": fallback_mpp, "reader": reader}
        for path, id in zip(files, ids)
    ]
    reports = _in_workers(requests, command or worker_command(_COMMAND_MODULE), timeout_s, jobs, progress)
    return compare(reports)


def _in_workers(
    requests: Sequence[Json], command: Sequence[str], timeout_s: float, jobs: int, progress: Progress
) -> list[SlideReport]:
    """The report of each request, in their order."""
    own = threading.local()
    workers: list[Worker] = []

    def ask(request: Json) -> SlideReport:
        # One worker a thread, started when the thread has its first slide.
        if not hasattr(own, "worker"):
            own.worker = Worker(command)
            workers.append(own.worker)
        try:
            return SlideReport.from_json(own.worker.ask(request, timeout_s))
        except WorkerLost as lost:
            return _lost(request, lost)

    pool = ThreadPoolExecutor(max_workers=max(1, min(jobs, len(requests))))
    try:
        with progress.stage("check", len(requests), unit="slide") as step:
            futures = [pool.submit(ask, request) for request in requests]
            for future in as_completed(futures):
                report = future.result()
                step.advance(note=f"{report.slide}: {report.verdict}")
        return [future.result() for future in futures]
    finally:
        # After an interrupt nothing waits for the slides that are being read: their processes are ended.
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.close()


def _lost(request: Json, lost: WorkerLost) -> SlideReport:
    return SlideReport(
        slide=request["id"],
        path=request["path"],
        reasons=(
            Finding(
                "unreadable",
                f"The process that read the slide {lost.why}.",
                "Give slides.timeout_s (--timeout) more seconds if the disk is slow; otherwise leave the slide out."
                if lost.hung
                else "The file is damaged in a way that a reader does not survive: copy it again or leave it out.",
            ),
        ),
    )
