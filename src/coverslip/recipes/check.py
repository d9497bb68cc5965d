"""`coverslip check`: the preflight of slides, or of a study's cohort."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from coverslip.base.errors import SettingsError
from coverslip.base.files import write_json
from coverslip.base.progress import SILENT, Progress
from coverslip.base.study import CohortSettings
from coverslip.cohort import load_cohort
from coverslip.preflight import CheckReport, check_cohort
from coverslip.recipes.job import LOG, Job
from coverslip.slide import discover


def check(
    paths: Sequence[Path],
    *,
    table: Path | None = None,
    jobs: int = 2,
    timeout_s: float = 120.0,
    progress: Progress = SILENT,
) -> CheckReport:
    """The verdict on every slide at or below `paths`; the mpp column of `table` counts for slides it names.

    Raises:
        SettingsError: a path that is not there, or no slide below the paths.
        TableError: the table cannot be used.
    """
    for path in paths:
        if not path.exists():
            raise SettingsError(f"There is nothing at {path}.", fix="Give slides, folders of slides or DICOM folders.")
    slides = discover(paths)
    if not slides:
        raise SettingsError(
            f"There is no slide at or below {', '.join(map(str, paths))}.",
            fix="Give slides, folders of slides or DICOM folders.",
        )
    given = _mpp_column(table) if table is not None else {}
    return check_cohort(slides, mpp=given, jobs=jobs, timeout_s=timeout_s, progress=progress)


def check_study(job: Job, *, skip: Collection[str] = ()) -> dict[str, str]:
    """Checks the cohort's slides but those in `skip` and writes check.json; the slides that fail with the reasons."""
    result = look_at(job, [slide for slide in job.cohort.slides if slide not in set(skip)])
    write_json(job.run.check, result)
    failed = {}
    for slide in result["slides"]:
        reasons = "; ".join(f"{r['code']}: {r['message']} {r['fix']}".strip() for r in slide["reasons"])
        fails = slide["verdict"] == "fail"
        job.outcomes.record(slide["slide"], "check", "failed" if fails else "done", reasons)
        if fails:
            failed[slide["slide"]] = reasons
            LOG.warning("%s fails the preflight: %s", slide["slide"], reasons)
    return failed


def look_at(job: Job, slides: Collection[str]) -> dict[str, Any]:
    """The check report of some of the cohort's slides, as check.json holds it; nothing is written or recorded."""
    frame = job.cohort.frame
    frame = frame[frame["slide"].isin(list(slides))]
    mpp = dict(zip(frame["slide"], frame["mpp"])) if "mpp" in frame else {}
    report = check_cohort(
        [Path(path) for path in frame["path"]],
        names=list(frame["slide"]),
        mpp={slide: float(value) for slide, value in mpp.items() if value == value},
        fallback_mpp=job.study.slides.mpp,
        reader=job.study.slides.reader,
        timeout_s=job.study.slides.timeout_s,
        progress=job.progress,
    )
    return report.to_json()


def _mpp_column(table: Path) -> dict[str, float]:
    frame = load_cohort(CohortSettings(table=str(table), root=str(table.parent)), need_paths=False).frame
    if "mpp" not in frame:
        return {}
    return {slide: float(mpp) for slide, mpp in zip(frame["slide"], frame["mpp"]) if mpp == mpp}
