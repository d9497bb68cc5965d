"""What the preflight saw: each slide's verdict, what was found, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coverslip.report.contents import RunContents
from coverslip.report.facts import checked_slides, reasons
from coverslip.report.sections import Absent, Section

ENTRIES = {"preflight": {"build": "SECTION", "summary": "Verdict, codes and fixes of each slide"}}

_ORDER = {"fail": 0, "warn": 1, "ok": 2}


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    size = entry.get("size")
    return {
        "slide": str(entry.get("slide")),
        "verdict": str(entry.get("verdict", "")),
        "reasons": reasons(entry),
        "vendor": entry.get("vendor") or "",
        "reader": entry.get("reader") or "",
        "size": size if isinstance(size, list) and len(size) == 2 else None,
        "mpp": entry.get("mpp"),
        "levels": len(entry.get("levels") or []),
    }


def _build(run: RunContents) -> dict[str, Any] | Absent:
    rows = [_row(entry) for entry in checked_slides(run)]
    if not rows:
        return Absent(
            "No slide was checked (there is no check.json): this run was trained from feature files, and no slide was "
            "opened. What is said here about slides rests on whoever made the features."
        )
    rows.sort(key=lambda row: (_ORDER.get(row["verdict"], 1), row["slide"]))
    return {
        "troubled": [row for row in rows if row["verdict"] != "ok"],
        "fine": [row for row in rows if row["verdict"] == "ok"],
        "tally": {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in _ORDER},
        "total": len(rows),
    }


SECTION = Section("preflight", 30, "Preflight", Path(__file__).with_suffix(".html"), _build)
