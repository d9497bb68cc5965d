"""`coverslip run`: everything, from slides or feature files to the report."""

from __future__ import annotations

from pathlib import Path

from coverslip.base.errors import CoverslipError
from coverslip.base.progress import SILENT, Progress
from coverslip.base.study import Study, load_study
from coverslip.cohort.table import some
from coverslip.mil.plan import check_plan
from coverslip.recipes.check import check_study
from coverslip.recipes.embed import feature_store
from coverslip.recipes.engine import LOCAL, Engine, open_engine
from coverslip.recipes.heatmap import cut_slices, draw_heatmaps
from coverslip.recipes.job import LOG, Job, Tally, open_job, working
from coverslip.recipes.train import train_job
from coverslip.report import write_report


def run(
    study: Study | Path | str,
    *,
    engine: str = LOCAL,
    ray_address: str | None = None,
    progress: Progress = SILENT,
) -> Tally:
    """Check, tissue, tiles, features, folds, models, metrics, heatmaps and report of a study (or of its TOML file).

    A table without a `path` column begins from the feature files. A slide that fails is named in the tally and in
    outcomes.csv, and everything else is finished. `engine` says where slides are embedded and folds are trained.

    Raises:
        CoverslipError: the settings, the table or the store cannot be used; what is finished stays.
    """
    if not isinstance(study, Study):
        study = load_study(Path(study))
    check_plan(study)
    job = open_job(study, need_paths=None, store=feature_store(study), progress=progress, trains=True)
    with working(job.run, "run"), open_engine(engine, ray_address) as where:
        failed = _features(job, where) if job.has_slides else {}
        try:
            tally = train_job(job, failed=failed, engine=where)
        except CoverslipError as error:
            if failed:
                names = some(sorted(failed))
                error.add_note(f"Before that {len(failed)} slides failed ({names}); {job.run.outcomes} says why.")
            raise
        if job.has_slides:
            tally.metrics = draw_heatmaps(job, tally.metrics)
            cut_slices(job)
        job.outcomes.close()
        tally.report = write_report([job.run.folder], title=study.report.title, pseudonymise=study.report.pseudonymise)
        return tally


def _features(job: Job, engine: Engine) -> dict[str, str]:
    """Makes the feature files; the slides that failed with the reasons. Files of other tools are used as they are."""
    theirs = {s for s in job.cohort.slides if (found := job.store.find(s)) is not None and found != job.store.path(s)}
    for slide in sorted(theirs):
        job.outcomes.record(slide, "embed", "reused", "a feature file of another tool, used as it is")
    if theirs:
        LOG.info("%d slides have feature files of other tools and are not opened", len(theirs))
    failed = check_study(job, skip=theirs)
    todo = [slide for slide in job.cohort.slides if slide not in failed and slide not in theirs]
    return {**failed, **engine.embed(job, todo)}
