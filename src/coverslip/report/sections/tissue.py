"""What was taken for tissue: a small overlay of every slide, so that a wrong mask is seen and not guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coverslip.report.contents import RunContents
from coverslip.report.facts import checked_slides, failed
from coverslip.report.pictures import OVERVIEW_PX, picture
from coverslip.report.sections import Absent, Section

ENTRIES = {"tissue": {"build": "SECTION", "summary": "Overlays of the tissue masks"}}

# More than this makes a file too heavy to mail; slides with trouble come first.
MOST = 80


def _build(run: RunContents) -> dict[str, Any] | Absent:
    if not run.tissue:
        return Absent(
            "There are no tissue pictures: this run was trained from feature files, or stopped before its slides "
            "were segmented."
        )
    troubled = {str(entry.get("slide")) for entry in checked_slides(run) if entry.get("verdict") != "ok"} | set(
        failed(run)
    )
    order = sorted(run.tissue, key=lambda slide: (slide not in troubled, slide))
    shown = sorted(order[:MOST]) if len(order) <= MOST else order[:MOST]
    return {
        "pictures": [(slide, picture(run.tissue[slide], OVERVIEW_PX), slide in troubled) for slide in shown],
        "hidden": len(order) - len(shown),
        "method": run.setting("tissue", "method"),
        "mpp": run.setting("tissue", "mpp"),
        "exclude": run.setting("tissue", "exclude"),
    }


SECTION = Section("tissue", 40, "Tissue", Path(__file__).with_suffix(".html"), _build)
