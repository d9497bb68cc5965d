"""The same model site by site: a model that reads the scanner instead of the tissue shows here first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverslip.report import figures
from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import parts
from coverslip.report.figures import Row
from coverslip.report.headline import chance, headline_label, headline_metric
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import number, span

# What files without "shown" have of each site.
_BEFORE = ("auroc", "balanced_accuracy")

ENTRIES = {"sites": {"build": "SECTION", "summary": "Figures of each site"}}


def _build(run: RunContents) -> dict[str, Any] | Absent:
    sites = [entry for entry in dig(run.evaluation, "sites") or [] if isinstance(entry, Mapping)]
    if not sites:
        return Absent(
            "The sites of the slides are not known: the cohort's table has no column “site”, or the run was not "
            "evaluated. Whether the model works at one site and fails at another cannot be seen here."
        )
    if len(sites) == 1:
        return Absent(
            f"All slides are from one site ({sites[0].get('site')}): how the model does elsewhere is unknown."
        )
    metric = headline_metric(run)
    label = headline_label(run)
    rows = [
        Row(
            str(entry.get("site")),
            f"n = {entry.get(f'{run.level}s', '–')}",
            entry.get(metric) if isinstance(entry.get(metric), Mapping) else None,
            "model",
            absent=str(entry.get("reason") or "not computed"),
        )
        for entry in sites
    ]
    pooled = run.metric("pooled", metric)
    if isinstance(pooled, Mapping):
        rows.append(Row("All sites, pooled", "", pooled, "pooled", group=True))
    text = f"{label} of each site, {run.level} level: " + "; ".join(
        f"{row.label} {number(dig(row.figure, 'value'))} ({span(row.figure)})" for row in rows
    )
    shown = [str(name) for name in run.metric("shown") or _BEFORE]
    names = list(dict.fromkeys([metric, *(name for name in shown if any(name in entry for entry in sites))]))
    return {
        "sites": [{**entry, "parts": parts(entry)} for entry in sites],
        "parts": list(dict.fromkeys(name for entry in sites for name in parts(entry))),
        "names": names,
        "label": label,
        "accuracy": any("accuracy" in entry for entry in sites) and "accuracy" not in names,
        "svg": figures.forest(
            rows,
            text,
            title=f"{label}, {run.level} level",
            reference=chance(metric),
            label_width=270,
        ),
        "how": next((dig(entry, metric, "interval") for entry in sites if dig(entry, metric, "interval")), None),
    }


SECTION = Section("sites", 70, "Sites", Path(__file__).with_suffix(".html"), _build)
