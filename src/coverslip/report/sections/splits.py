"""Who was trained on, tuned on and tested on, fold by fold, and whether anyone stands on both sides. Classes, or events
and censorings, are counted of patients who are tested in some fold: of others predictions.csv says nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import class_of_patient, kind, leaks
from coverslip.report.sections import Absent, Section

ENTRIES = {"splits": {"build": "SECTION", "summary": "Patients of each class, or with events, in each fold, and leaks"}}

SETS = ("train", "tune", "test")

_HOW = {
    "patients": "by patient, stratified by outcome",
    "leave_site_out": "of whole sites, each tested by a model that has not seen it",
    "site_preserved": "of whole sites, as even as they allow",
    "temporal": "in time: earlier patients train, later ones test",
}


def _groups(run: RunContents, named: set[str]) -> list[str]:
    """What patients are counted by, in order: classes, or the events and those censored."""
    known = run.classes or (["event"] if "event" in named else [])
    return [name for name in (*known, "censored", "mixed") if name in run.classes or name in named] if named else []


def _members(fold: Mapping[str, Any], which: str, patient_of: Mapping[str, str], unit: str) -> set[str]:
    """The patients of one set."""
    names = [str(name) for name in fold.get(which) or []]
    return set(names) if unit == "patient" else {patient_of.get(name, name) for name in names}


def _build(run: RunContents) -> dict[str, Any] | Absent:
    folds = [fold for fold in dig(run.split, "folds") or [] if isinstance(fold, Mapping)]
    if not folds:
        return Absent("There is no split.json: this run was not divided into folds, or stopped before it was.")
    slides_of = dig(run.split, "patients")
    patient_of = (
        {str(slide): str(patient) for patient, slides in slides_of.items() for slide in slides}
        if isinstance(slides_of, Mapping)
        else {}
    )
    unit = str(dig(run.split, "unit") or "patient")
    class_of = class_of_patient(run)
    classes = _groups(run, set(class_of.values()))
    rows: list[dict[str, Any]] = []
    design = str(run.setting("split", "design") or "patients")
    for fold in folds:
        cells = []
        for which in SETS:
            members = _members(fold, which, patient_of, unit)
            tally = Counter(class_of.get(patient, "?") for patient in members)
            known: list[int | str] = [tally[name] for name in classes]
            if tally["?"] and any(known):
                known.append(f"{tally['?']} not known")
            cells.append({"set": which, "total": len(members), "classes": known if any(known) else []})
        rows.append({"fold": fold.get("fold", len(rows)), "repeat": fold.get("repeat", 0), "cells": cells})
    return {
        "rows": rows,
        "classes": classes,
        "repeats": len({row["repeat"] for row in rows}),
        "digest": dig(run.split, "digest"),
        "source": dig(run.split, "source"),
        "seed": run.setting("split", "seed"),
        "how": _HOW.get(design, design),
        "times": kind(run).startswith("survival") or kind(run) == "competing_risks",
        "made_here": run.setting("split", "file") is None and not str(dig(run.split, "source")).startswith("column "),
        "leaks": leaks(run),
        "warnings": dig(run.split, "warnings") or [],
        "unit": unit,
    }


SECTION = Section("splits", 50, "Splits", Path(__file__).with_suffix(".html"), _build)
