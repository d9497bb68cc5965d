"""Whether the model works as well for everyone: each level of each covariate against all others, counts first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coverslip.report.contents import RunContents, dig
from coverslip.report.sections import Absent, Section
from coverslip.report.sections.shortcuts import NOT_ASKED
from coverslip.report.wording import metric_label

ENTRIES = {"subgroups": {"build": "SECTION", "summary": "Figures of each subgroup, with differences"}}


def _build(run: RunContents) -> dict[str, Any] | Absent:
    if run.audit is None:
        return Absent(NOT_ASKED)
    found = dig(run.audit, "subgroups") or {}
    if not found.get("attributes"):
        return Absent("The table has no covariate that makes groups, so whether the model works for all is unknown.")
    return {
        "attributes": found["attributes"],
        "skipped": found.get("skipped") or [],
        "tests": found.get("tests"),
        "least": found.get("least_events"),
        "metric": metric_label(str(found.get("metric") or "")),
        "overall": found.get("overall") or {},
    }


SECTION = Section("subgroups", 74, "Subgroups", Path(__file__).with_suffix(".html"), _build)
