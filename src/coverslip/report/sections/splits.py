"""Who was trained on, tuned on and tested on, fold by fold, and whether anyone stands on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import class_of_patient, leaks
from coverslip.report.sections import Absent, Section

ENTRIES = {"splits": {"build": "SECTION", "summary": "Patients of each class in each fold, and leaks"}}

SETS = ("train", "tune", "test")


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
    classes = [*run.classes, *(["mixed"] if "mixed" in class_of.values() else [])]
    rows: list[dict[str, Any]] = []
    for fold in folds:
        cells = []
        for which in SETS:
            members = _members(fold, which, patient_of, unit)
            tally = Counter(class_of.get(patient, "?") for patient in members)
            cells.append({"set": which, "total": len(members), "classes": [tally[name] for name in classes]})
        rows.append({"fold": fold.get("fold", len(rows)), "repeat": fold.get("repeat", 0), "cells": cells})
    return {
        "rows": rows,
        "classes": classes,
        "repeats": len({row["repeat"] for row in rows}),
        "digest": dig(run.split, "digest"),
        "source": dig(run.split, "source"),
        "seed": run.setting("split", "seed"),
        "made_here": run.setting("split", "file") is None,
        "leaks": leaks(run),
        "warnings": dig(run.split, "warnings") or [],
        "unit": unit,
    }


SECTION = Section("splits", 50, "Splits", Path(__file__).with_suffix(".html"), _build)
