"""`coverslip status`: what of a study is done, running, failed and missing. Opens no slide and imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coverslip.base.study import Study
from coverslip.cohort import load_cohort
from coverslip.recipes.job import check_names
from coverslip.store import FeatureStore, RunFolder, read_outcomes
from coverslip.store.sidecar import unfinished

Stages = dict[str, dict[str, Any]]


def status(study: Study) -> Stages:
    """Counts by stage: check, embed, train, heatmaps, report; `reasons` names the slides that failed.

    Raises:
        SettingsError, TableError: the study cannot be used.
    """
    check_names(study)
    cohort = load_cohort(study.cohort, need_paths=False)
    slides = cohort.slides
    run = RunFolder(Path(study.output))
    failed = _failed(run)
    # A study that begins from feature files opens no slide, so nothing of it is unchecked.
    opens_slides = "path" in cohort.frame
    return {
        "check": _check(run, slides if opens_slides or run.check.is_file() else ()),
        "embed": _embed(study, slides, failed),
        "train": _train(run),
        "heatmaps": {"done": len(list(run.heatmaps.glob("*.png")))},
        "report": {"done": int(run.report.is_file()), "missing": int(not run.report.is_file())},
    }


def _failed(run: RunFolder) -> dict[str, str]:
    """Slides whose last attempt failed, at whatever stage."""
    if not run.outcomes.is_file():
        return {}
    frame = read_outcomes(run.outcomes)
    frame = frame[frame["status"] == "failed"]
    return dict(zip(frame["slide"], frame["reason"]))


def _check(run: RunFolder, slides: tuple[str, ...]) -> dict[str, Any]:
    if not run.check.is_file():
        return {"done": 0, "missing": len(slides)}
    verdicts = {s["slide"]: s["verdict"] for s in json.loads(run.check.read_text(encoding="utf-8"))["slides"]}
    done = sum(slide in verdicts for slide in slides)
    return {"done": done, "failed": sum(v == "fail" for v in verdicts.values()), "missing": len(slides) - done}


def _embed(study: Study, slides: tuple[str, ...], failed: dict[str, str]) -> dict[str, Any]:
    store = FeatureStore(Path(study.features.store))
    names = set(store.names())
    begun = unfinished(store.folder)
    done = [slide for slide in slides if slide in names]
    lost = {slide: failed[slide] for slide in slides if slide in failed and slide not in names}
    running = [slide for slide in slides if begun.get(slide) and slide not in names]
    missing = len(slides) - len(done) - len(lost) - len(running)
    return {"done": len(done), "running": len(running), "failed": len(lost), "missing": missing, "reasons": lost}


def _train(run: RunFolder) -> dict[str, Any]:
    if not run.split.is_file():
        return {"done": 0}
    folds = len(json.loads(run.split.read_text(encoding="utf-8"))["folds"])
    done = len(list(run.models.glob("*/made_from.json")))
    return {"done": done, "missing": max(0, folds - done)}
