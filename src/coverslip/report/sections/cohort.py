"""Who was studied: from the rows of the table to the patients that were analysed, and what was left out on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import checked_slides, excluded, failed, parts, reasons
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
    checked = {str(entry.get("slide")): entry for entry in checked_slides(run)}
    left = [(slide, reason) for slide, reason in excluded(run) if slide not in checked]
    rows, listed = dig(run.cohort, "rows"), dig(run.cohort, "slides")
    if rows is None and listed is not None:
        rows = len(listed) + len(excluded(run))
    if rows is not None:
        stops.append(Stop("Rows of the table", plural(rows, "slide"), _tally(reason for _, reason in left)))
    refused = {slide: entry for slide, entry in checked.items() if entry.get("verdict") == "fail"}
    if checked:
        codes = (str(dig(next(iter(reasons(entry)), None), "code") or "failed") for entry in refused.values())
        amount = plural(len(checked), "slide")
        stops.append(Stop("Opened by the preflight", amount, _tally(map(code_label, codes))))
    later = [f"{stage}: {reason}" for slide, (stage, reason) in failed(run).items() if slide not in refused]
    later += [reason for slide, reason in excluded(run) if slide in checked and slide not in refused]
    if later:
        passed = len(checked) - len(refused) if checked else None if rows is None else rows - len(left)
        name = "Passed the preflight" if checked else "Looked for in feature files"
        stops.append(Stop(name, "" if passed is None else plural(passed, "slide"), _tally(later)))
    counts = run.metric("counts")
    if counts and listed and run.split is not None:
        # Folds made elsewhere need not test everyone.
        untested = len(listed) - (counts.get("slides") or 0)
        if untested > 0:
            stops.append(
                Stop("With target and features", plural(len(listed), "slide"), (("in no test set", untested),))
            )
    if counts:
        amount = f"{plural(counts.get('slides'), 'slide')} of {plural(counts.get('patients'), 'patient')}"
        stops.append(Stop("Analysed", amount))
    return stops


def _tally(causes: Iterable[str]) -> tuple[tuple[str, int], ...]:
    return tuple(Counter(causes).most_common())


def _sites(run: RunContents) -> list[dict[str, Any]]:
    """Patients (or slides) of each class at each site, or with each event."""
    table = [
        {"site": entry.get("site"), "total": entry.get(f"{run.level}s"), "classes": parts(entry)}
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
    classes = parts(counts)
    return {
        "stops": stops,
        "counts": counts,
        "classes": classes,
        "total": sum(classes.values()),
        "sites": _sites(run),
        "slides_per_patient": (counts.get("slides") or 0) / counts["patients"] if counts.get("patients") else None,
    }


SECTION = Section("cohort", 20, "Cohort", Path(__file__).with_suffix(".html"), _build)
