"""Who was studied: from the rows of the table to the patients that were analysed, and what was left out on the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import checked_slides, exclusions, failed
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import code_label, plural

ENTRIES = {"cohort": {"build": "SECTION", "summary": "Patients, slides, classes, and what was excluded"}}


@dataclass(frozen=True)
class Stop:
    """A station on the way from table to analysis: how many are left, and who left before the next."""

    name: str
    amount: str
    left: tuple[tuple[str, int], ...] = ()


def flow(run: RunContents) -> list[Stop]:
    """The way from the table's rows to the analysed patients; stations nothing is known of are left out."""
    stops = []
    rows, excluded = dig(run.cohort, "rows"), exclusions(run)
    if rows is None and run.cohort is not None:
        rows = len(dig(run.cohort, "slides") or []) + sum(excluded.values())
    if rows is not None:
        stops.append(Stop("Rows of the table", plural(rows, "slide"), tuple(excluded.most_common())))
    checked = checked_slides(run)
    if checked:
        refused = Counter(
            code_label(str(reason.get("code", "")))
            for entry in checked
            if entry.get("verdict") == "fail"
            for reason in (entry.get("reasons") or [{}])[:1]
        )
        stops.append(Stop("Opened by the preflight", plural(len(checked), "slide"), tuple(refused.most_common())))
    refused_slides = {str(entry.get("slide")) for entry in checked if entry.get("verdict") == "fail"}
    later = Counter(
        f"{stage}: {reason}" for slide, (stage, reason) in failed(run).items() if slide not in refused_slides
    )
    counts = run.metric("counts") or {}
    if later:
        amount = plural(len(checked) - len(refused_slides), "slide") if checked else ""
        stops.append(Stop("Passed to tiles, features and training", amount, tuple(later.most_common())))
    if counts:
        slides, patients = counts.get("slides"), counts.get("patients")
        stops.append(Stop("Analysed", f"{plural(slides, 'slide')} of {plural(patients, 'patient')}"))
    return stops


def _sites(run: RunContents) -> list[dict[str, Any]]:
    """Patients (or slides) of each class at each site."""
    table = [
        {"site": entry.get("site"), "total": entry.get(f"{run.level}s"), "classes": entry.get("classes") or {}}
        for entry in dig(run.evaluation, "sites") or []
        if isinstance(entry, dict)
    ]
    return table if len(table) > 1 else []


def _build(run: RunContents) -> dict[str, Any] | Absent:
    counts = run.metric("counts")
    stops = flow(run)
    if not counts and not stops:
        return Absent("This run holds neither a cohort nor metrics, so nothing is known of its patients.")
    counts = counts or {}
    classes = counts.get("classes") or {}
    return {
        "stops": stops,
        "counts": counts,
        "classes": classes,
        "total": sum(classes.values()),
        "sites": _sites(run),
        "slides_per_patient": (counts.get("slides") or 0) / counts["patients"] if counts.get("patients") else None,
    }


SECTION = Section("cohort", 20, "Cohort", Path(__file__).with_suffix(".html"), _build)
