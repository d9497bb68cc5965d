"""Several runs side by side, and what forbids comparing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coverslip.report import figures
from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import encoder, fold_values, leaks, mean_of
from coverslip.report.figures import Row
from coverslip.report.headline import chance, headline_label, headline_metric
from coverslip.report.wording import number, span


def comparison(runs: Sequence[tuple[str, RunContents]]) -> dict[str, Any]:
    """Rows, a figure and cautions for runs given with their anchors; empty rows for one run alone."""
    if len(runs) < 2:
        return {"rows": [], "cautions": [], "figure": None}
    labels = [headline_label(run) for _, run in runs]
    metrics = [headline_metric(run) for _, run in runs]
    one = len(set(labels)) == 1
    drawn = [
        Row(
            run.name,
            run.level if one else f"{run.level}, {label}",
            mean_of(run, metric),
            "model",
            fold_values(run, metric),
            absent=f"no {label}",
        )
        for (_, run), metric, label in zip(runs, metrics, labels)
    ]
    title = labels[0] if one else "Headline figure"
    text = f"{title} of each run: " + "; ".join(
        f"{row.label} ({row.note} level) {number(dig(row.figure, 'value'))} ({span(row.figure)})" for row in drawn
    )
    return {
        "rows": [_row(anchor, run) for anchor, run in runs],
        "cautions": _cautions([run for _, run in runs]),
        "title": title,
        # Figures of different kinds have no common value for guessing.
        "figure": figures.forest(
            drawn, text, title=title, reference=chance(metrics[0]) if one else None, label_width=270
        ),
    }


def _row(anchor: str, run: RunContents) -> dict[str, Any]:
    return {
        "anchor": anchor,
        "name": run.name,
        "column": run.column,
        "level": run.level,
        "patients": run.metric("counts", "patients"),
        "slides": run.metric("counts", "slides"),
        "encoder": encoder(run).get("name") or "–",
        "method": run.setting("aggregator", "name") or "–",
        "metric": headline_label(run),
        "figure": mean_of(run, headline_metric(run)),
        "baseline": run.metric("baseline", headline_metric(run), "value"),
        "brier": run.metric("primary", "brier", "value"),
        "ece": run.metric("primary", "ece", "value"),
        "leaking": bool(leaks(run)),
    }


def _cautions(runs: Sequence[RunContents]) -> list[str]:
    found = []
    if len({dig(run.split, "digest") for run in runs}) > 1 or any(run.split is None for run in runs):
        found.append(
            "These runs do not share their folds: a difference between rows mixes the models with their patients."
        )
    if len({(run.column, run.level, tuple(run.classes)) for run in runs}) > 1:
        found.append("These runs answer different questions (target, classes or level): their figures do not compare.")
    if any(leaks(run) for run in runs):
        found.append("At least one run leaks patients between training and test; its figures are too good.")
    return found
