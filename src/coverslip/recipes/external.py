"""What is asked of another cohort that a finished run is tested on: audit.json of the external folder.

What it shares with the cohort that the run has learnt from, by name, by file, by look and by features; whether the
encoder may have seen it; whom the model serves worse. What cannot be asked says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from coverslip.audit import (
    Content,
    Sketch,
    ask_sites,
    audit_cohorts,
    contents_json,
    feature_twins,
    not_compared,
    pretraining_overlap,
    shared_pictures,
)
from coverslip.base.errors import FeatureError
from coverslip.base.files import finite, write_json
from coverslip.base.study import Study
from coverslip.cohort import Targets
from coverslip.recipes.audit_warnings import warnings_of
from coverslip.recipes.audits import (
    FORMAT,
    collapse_of,
    covariate_columns,
    finding_json,
    listed,
    mean_embedding,
    outcome_columns,
    per_row,
    pretraining_source,
    seen_by,
    tested_rows,
    where_it_fails,
)
from coverslip.recipes.contents import contents_of, kept_contents, sketches_of
from coverslip.recipes.embed import feature_store
from coverslip.recipes.job import LOG, Job
from coverslip.store import Features, FeatureStore, Run


def audit_external(
    run: Run,
    job: Job,
    features: Mapping[str, Features],
    predictions: pd.DataFrame,
    targets: Targets | None,
    *,
    check: Mapping[str, Any],
) -> dict[str, Any]:
    """What audit.json of an external cohort holds, after it and contents.json are written.

    `features` are the rows of the predicted slides, `predictions` a row a slide and model, `targets` what is known of
    them (None: nothing), `check` the check report of slides that were opened, empty where there were feature files.
    """
    sketches = sketches_of(features)
    new = contents_of(features, sketches, check)
    encoder = next((f.identity.encoder.name if f.identity else f.encoder or "" for f in features.values()), "")
    audit: dict[str, Any] = {
        "format": FORMAT,
        "set": "external",
        "level": run.metrics["level"],
        "leaks": _leaks(run, job, features, new),
        "pretraining": {
            "encoder": encoder or None,
            "source": pretraining_source(encoder),
            **pretraining_overlap(job.cohort.patient_of, seen_by(encoder), listed(job.study.audit.pretraining)),
        },
        **_asked(run, job, predictions, targets, sketches),
    }
    audit["warnings"] = warnings_of(audit)
    write_json(job.run.contents, contents_json(new))
    write_json(job.run.audit, finite(audit))
    LOG.info("audited: %d warnings", len(audit["warnings"]))
    return audit


def told(audit: Mapping[str, Any]) -> list[str]:
    """What an audit of two cohorts says before any figure: leaks, pretraining, and what was not compared."""
    leaks, seen = audit["leaks"], audit["pretraining"]
    found = [f"{one['message']} {'; '.join(one['cases'][:3])}. {one['fix']}" for one in leaks["findings"]]
    missed = [f"Not compared with the run's cohort: {what} ({why})." for what, why in leaks["not_compared"].items()]
    return [*found, *seen["warnings"], *seen["unsure"], *missed]


def _leaks(run: Run, job: Job, features: Mapping[str, Features], new: Mapping[str, Content]) -> dict[str, Any]:
    there = _readable(feature_store(run.settings), run.split.patients) if _there(run.settings) else {}
    known = kept_contents(run, there)
    digests = [{s: c.features for s, c in side.items() if c.features is not None} for side in (known, new)]
    same = {(a, b) for b, digest in digests[1].items() for a, other in digests[0].items() if digest == other and a != b}
    found = audit_cohorts(
        run.split.patients,
        job.cohort.patient_of,
        known_contents={slide: one.image for slide, one in known.items() if one.image is not None},
        new_contents={slide: one.image for slide, one in new.items() if one.image is not None},
        features=same | _twins(there, features),
        near=shared_pictures(known, new),
    )
    lacking = not_compared(known, new)
    names = {"image": "files of slides", "picture": "looks of slides", "features": "features by digest"}
    missed = {names[kind]: why for kind, why in lacking.items()}
    if gone := [slide for slide in run.split.patients if slide not in there]:
        missed["features tile by tile"] = f"{len(gone)} of {len(run.split.patients)} feature files of the run are gone"
    return {
        "looked_at": ["patients", "slides", *(what for kind, what in names.items() if kind not in lacking)],
        "not_compared": missed,
        "findings": [finding_json(one) for one in found],
    }


def _asked(
    run: Run, job: Job, predictions: pd.DataFrame, targets: Targets | None, sketches: Mapping[str, Sketch]
) -> dict[str, Any]:
    """Sites as shortcuts, subgroups and groups of errors, by the mean of the run's models; each unit is compared with
    all others. Whether tiles tell their slide needs no outcome."""
    settings = job.study.audit
    reason = "" if targets is not None else "no outcome is known"
    collapse = {"accuracy": None, "reason": "audit.enabled = false"}
    if settings.enabled:
        collapse = collapse_of(sketches, job.cohort.frame, settings.seed)
    else:
        reason = "audit.enabled = false"
    if reason or targets is None:
        return {
            "sites": {"reason": reason},
            "collapse": collapse,
            "subgroups": {"attributes": [], "skipped": [], "reason": reason},
            "slices": {"slices": [], "looked_at": 0, "reason": reason},
        }
    # One model, the mean of all: its units are ranked against each other as those of one fold are.
    rows = predictions[predictions["slide"].isin(targets.slides)].assign(set="test", fold=0, repeat=0)
    tested, slides = tested_rows(rows, targets, run.metrics["level"])
    wanted = covariate_columns(job, targets)
    columns = [name for name in wanted if name in job.cohort.frame]
    embedding = mean_embedding({slide: one.mean for slide, one in sketches.items()}, slides)
    attributes = per_row(job.cohort.frame, columns, slides)
    found = where_it_fails(settings, tested, rows, targets, embedding, attributes)
    absent = [{"column": name, "reason": "the new table has no such column"} for name in wanted if name not in columns]
    found["subgroups"]["skipped"] += [*absent, *outcome_columns(job, targets)]
    sites = ask_sites(tested, embedding, attributes.get("site"), seed=settings.seed, resamples=settings.resamples)
    return {"sites": sites, "collapse": collapse, **found}


def _there(study: Study) -> bool:
    return Path(study.features.store).exists()


def _readable(store: FeatureStore, slides: Iterable[str]) -> dict[str, Features]:
    """The features that can be read; what is missing or damaged has been told elsewhere."""
    found = {}
    for slide in slides:
        with suppress(FeatureError):
            found[slide] = store.read(slide)
    return found


def _twins(known: Mapping[str, Features], new: Mapping[str, Features]) -> set[tuple[str, str]]:
    """Pairs of a known and a new slide with the same features; slides of the same name are told by their name."""
    mine, theirs = ({slide: one.mean for slide, one in sketches_of(side).items()} for side in (known, new))
    pairs = feature_twins(mine, lambda s: known[s].x, theirs, lambda s: new[s].x)
    return {(a, b) for a, b in pairs if a != b}
