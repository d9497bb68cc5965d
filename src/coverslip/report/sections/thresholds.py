"""What inner predictions taught: probabilities before and after recalibration, and what the operating points do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverslip.report.contents import RunContents, dig
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import is_number, listing, number, plural

ENTRIES = {"thresholds": {"build": "SECTION", "summary": "Recalibration and operating points"}}

_RULES = {"youden": "most sensitivity + specificity (Youden)"}
_RATES = (("sensitivity", "Sensitivity"), ("specificity", "Specificity"), ("ppv", "PPV"), ("npv", "NPV"))


def corrections(run: RunContents) -> str:
    """How often folds learnt what: "Platt's two numbers (4 times) and nothing (1 time)"; empty where none could."""
    block = dig(run.evaluation, "recalibration")
    if not isinstance(block, Mapping):
        return ""
    told = {"none": "nothing", "temperature": "a temperature", "platt": "Platt's two numbers"}
    found = Counter(one["method"] for fold in block.get("folds") or [] for one in fold["of"].values())
    return listing([f"{told.get(name, name)} ({plural(n, 'time')})" for name, n in found.most_common()])


def _rows(block: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Raw and corrected probabilities, one under the other."""
    rows = []
    for before, after in zip(block.get("before") or [], block.get("after") or []):
        rows += [{**before, "which": "raw"}, {**after, "which": "recalibrated"}]
    return rows


def _point(point: Mapping[str, Any]) -> dict[str, Any]:
    rule, aim = str(point.get("rule")), point.get("aim")
    known = [value for value in point.get("thresholds") or [] if is_number(value)]
    return {
        **point,
        "title": f"{point.get('of')}: {_RULES.get(rule, rule)}" + (f" {number(aim)}" if is_number(aim) else ""),
        "between": f"{number(min(known))} to {number(max(known))}" if known else None,
    }


def _build(run: RunContents) -> dict[str, Any] | Absent:
    block, points = dig(run.evaluation, "recalibration"), run.metric("operating_points")
    if not isinstance(block, Mapping) and not dig(points, "points"):
        reason = dig(points, "reason")
        return Absent(
            f"Nothing was learnt on inner predictions: {reason}."
            if reason
            else "The run has no inner predictions: evaluation.inner_folds makes them."
        )
    reasons = dig(run.metrics, "inner", "without") or {}
    return {
        "methods": corrections(run),
        "rows": _rows(block) if isinstance(block, Mapping) else [],
        "points": [_point(point) for point in dig(points, "points") or []],
        "rates": _RATES,
        "no_points": dig(points, "reason"),
        "inner": dig(run.metrics, "inner", "folds"),
        "reasons": listing([f"{fold}: {why.rstrip('.')}" for fold, why in reasons.items()]),
    }


SECTION = Section("thresholds", 66, "Recalibration and operating points", Path(__file__).with_suffix(".html"), _build)
