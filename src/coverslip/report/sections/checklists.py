"""TRIPOD+AI and CLAIM of 2020: what this run answers, where, and what the authors must add."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from coverslip.report.checklists import checklists
from coverslip.report.contents import RunContents
from coverslip.report.sections import Absent, Section

ENTRIES = {"checklists": {"build": "SECTION", "summary": "Reporting checklists, filled from the run"}}


def _build(run: RunContents) -> dict[str, Any] | Absent:
    if run.metrics is None:
        return Absent("The run was not evaluated: there is nothing to report yet.")
    lists = checklists(run)["lists"]
    return {"lists": [{**one, "counts": Counter(item["status"] for item in one["items"])} for one in lists]}


SECTION = Section("checklists", 114, "Reporting checklists", Path(__file__).with_suffix(".html"), _build)
