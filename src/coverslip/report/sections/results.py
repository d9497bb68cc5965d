"""How good: figures with intervals beside the baseline's, the spread over folds, and the curves. Levels are said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from coverslip.report import figures
from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import fold_values, leaks, num_folds
from coverslip.report.figures import Curve, Row
from coverslip.report.sections import Absent, Section
from coverslip.report.time_figures import time_figures
from coverslip.report.wording import METRICS, is_number, listing, metric_label, number, plural, span

ENTRIES = {"results": {"build": "SECTION", "summary": "Metrics, baseline, folds and curves"}}

# Those that live on one axis from bad to good; the others would have to be read backwards.
_IN_FIGURE = ("auroc", "auprc", "balanced_accuracy", "c_index", "uno_c_index", "auroc_time", "quadratic_kappa", "r2")


def _names(run: RunContents) -> list[str]:
    """The metrics of the run in the report's order, others after them."""
    known = {**(run.metric("primary") or {}), **(run.metric("pooled") or {})}
    figured = [name for name, figure in known.items() if isinstance(figure, Mapping)]
    return [name for name in METRICS if name in figured] + [name for name in figured if name not in METRICS]


def _folds(run: RunContents) -> list[Mapping[str, Any]]:
    return [fold for fold in run.metric("folds") or [] if isinstance(fold, Mapping)]


def _spread(run: RunContents) -> Markup:
    rows = []
    for name in (n for n in _IN_FIGURE if n in _names(run)):
        label = metric_label(name)
        rows.append(Row(label, "model", run.metric("primary", name), "model", fold_values(run, name), group=True))
        rows.append(Row("", "baseline", run.metric("baseline", name), "baseline"))
        pooled = run.metric("pooled", name)
        if isinstance(pooled, Mapping):
            rows.append(Row("", "pooled", pooled, "pooled"))
    text = f"Spread over {plural(num_folds(run), 'fold')}, {run.level} level. " + " ".join(
        f"{metric_label(name)}: folds {listing([number(v) for v in fold_values(run, name)]) or 'not computed'}; "
        f"mean {number(run.metric('primary', name, 'value'))} ({span(run.metric('primary', name))}); "
        f"baseline {number(run.metric('baseline', name, 'value'))}."
        for name in _IN_FIGURE
        if name in _names(run)
    )
    return figures.forest(rows, text, title=f"figure at {run.level} level; higher is better", label_width=210)


def _class_curves(run: RunContents, kind: str) -> list[Mapping[str, Any]]:
    """The curve of each class that has one: the mean of the folds', in runs from before that pooled."""
    entries = dig(run.evaluation, "discrimination") or []
    return [entry for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get(kind), Mapping)]


def _fold_curves(run: RunContents, kind: str, x: str, y: str) -> list[Curve]:
    """Thin curves of the folds, for two classes only: more would be a thicket."""
    if len(_class_curves(run, kind)) != 1:
        return []
    found = []
    for fold in dig(run.evaluation, "folds") or []:
        for entry in dig(fold, "discrimination") or []:
            curve = dig(entry, kind)
            if isinstance(curve, Mapping):
                found.append(Curve(curve[x], curve[y], "thin"))
    return found


def _drawn(run: RunContents, kind: str, x: str, y: str) -> list[Curve]:
    entries = _class_curves(run, kind)
    pooled = [
        Curve(
            entry[kind][x],
            entry[kind][y],
            "model" if len(entries) == 1 else f"hue{i % 8}",
            _name_of(entry[kind]) if len(entries) == 1 else str(entry.get("class")),
        )
        for i, entry in enumerate(entries)
    ]
    folds = _fold_curves(run, kind, x, y)
    if folds:
        folds[-1] = Curve(folds[-1].x, folds[-1].y, "thin", "single folds")
    return [*folds, *pooled]


def _name_of(curve: Mapping[str, Any]) -> str:
    folds = curve.get("folds")
    return "mean of folds" if is_number(folds) and folds > 1 else "all test patients"


def _curves(run: RunContents) -> list[dict[str, Any]]:
    """Each figure with its caption; one that cannot be drawn is left out and told."""
    level, found = run.level, []
    rocs = _drawn(run, "roc", "fpr", "tpr")
    positive = dig(next(iter(_class_curves(run, "roc")), None), "class")
    of = f" for class {positive}" if positive is not None and len(_class_curves(run, "roc")) == 1 else ""
    if rocs:
        said = _area(run, "roc", "auroc", "area")
        found.append(
            {
                "title": "ROC",
                "svg": figures.roc(rocs, f"ROC curve{of}, {level} level, {said}."),
                "caption": f"{level.capitalize()} level{of}, {said}.",
            }
        )
    prs = _drawn(run, "pr", "recall", "precision")
    if prs:
        entries = _class_curves(run, "pr")
        prevalence = entries[0].get("prevalence") if len(entries) == 1 else None
        said = _area(run, "pr", "auprc", "average precision")
        base = f"; prevalence {number(prevalence)}" if is_number(prevalence) else ""
        found.append(
            {
                "title": "Precision and recall",
                "svg": figures.precision_recall(
                    prs, prevalence, f"Precision-recall curve{of}, {level} level, {said}{base}."
                ),
                "caption": f"{level.capitalize()} level{of}, {said}{base}.",
            }
        )
    found += [*_reliability(run), *_confusion(run), *time_figures(run), *_scatter(run)]
    return found


def _area(run: RunContents, kind: str, metric: str, word: str) -> str:
    """Whose curves are drawn, with the area under them as drawn."""
    entries = _class_curves(run, kind)
    areas = [dig(entry, kind, "area") for entry in entries]
    if not all(is_number(area) for area in areas):
        # Runs from before curves were means of folds' curves: the area is of ranks within folds, the curve is not.
        pooled = run.metric("pooled", metric, "value")
        within = f"; {word} within folds {number(pooled)}, which is not that under this curve"
        return f"out-of-fold predictions pooled{within if is_number(pooled) else ''}"
    several = max(int(dig(entry, kind, "folds") or 1) for entry in entries) > 1
    by_class = [number(a) + (f" of {e.get('class')}" if len(areas) > 1 else "") for a, e in zip(areas, entries)]
    way = {"roc": "sensitivity at each false-positive rate", "pr": "precision at each recall"}[kind]
    whose = f"mean of the folds' curves ({way})" if several else "one curve of all predictions"
    return f"{whose}; {word} {listing(by_class)}"


def _scatter(run: RunContents) -> list[dict[str, Any]]:
    true, predicted = (dig(run.evaluation, "scatter", name) or [] for name in ("true", "predicted"))
    if not true or len(true) != len(predicted):
        return []
    text = f"Predicted over true {run.column} of {plural(len(true), run.level)}, out of fold."
    return [{"title": "Predicted and true", "svg": figures.scatter(true, predicted, text), "caption": text}]


def _reliability(run: RunContents) -> list[dict[str, Any]]:
    """Of runs from before calibration had a section of its own, which draws it now."""
    if dig(run.evaluation, "trust", "calibration"):
        return []
    block = dig(run.evaluation, "reliability")
    bins = [b for b in dig(block, "bins") or [] if isinstance(b, Mapping) and is_number(b.get("stated"))]
    if not bins:
        return []
    of, how = dig(block, "of") or "the stated probability", dig(block, "interval") or ""
    text = listing([f"stated {number(b['stated'])}, observed {number(b['observed'])} of {b['n']}" for b in bins])
    return [
        {
            "title": "Reliability",
            "svg": figures.reliability(bins, f"Reliability of {of}, {run.level} level: {text}."),
            "caption": f"{run.level.capitalize()} level, {of}. A calibrated model lies on the dashed line. "
            f"n counts {run.level}s{f'; bars are {how}' if how else ''}.",
        }
    ]


def _confusion(run: RunContents) -> list[dict[str, Any]]:
    block = dig(run.evaluation, "confusion")
    counts, classes = dig(block, "counts"), [str(name) for name in dig(block, "classes") or run.classes]
    if not (isinstance(counts, list) and counts and all(isinstance(row, list) for row in counts)):
        return []
    rule = dig(block, "decision") or "most probable class"
    text = listing(
        [
            f"of true {classes[i]}: {listing([f'{n} decided {classes[j]}' for j, n in enumerate(row)])}"
            for i, row in enumerate(counts)
        ]
    )
    return [
        {
            "title": "Confusion",
            "svg": figures.confusion(counts, classes, f"Confusion, {run.level} level: {text}."),
            "caption": f"{run.level.capitalize()} level, counts and share of the true class; decided by {rule}.",
        }
    ]


def _references(run: RunContents) -> dict[str, str]:
    """What a figure is to be read against, where that is not one number for all cohorts."""
    known = dig(run.evaluation, "ibs_by_chance")
    if not isinstance(known, Mapping):
        return {}
    if not is_number(known.get("value")):
        return {"ibs": f"of a model that knows nobody: not known, {known.get('reason')}"}
    ours = number(run.metric("primary", "ibs", "value"), 3)
    return {"ibs": f"here {ours}; of a model that knows nobody {number(known['value'], 3)} ({known.get('of')})"}


def _is_widened(figure: Any) -> bool:
    return "widened" in str(dig(figure, "interval") or "")


def _build(run: RunContents) -> dict[str, Any] | Absent:
    names = _names(run)
    if not names:
        return Absent("There is no metrics.json with figures: this run stopped before its evaluation.")
    difference = run.metric("versus_baseline") or {}
    return {
        "leaking": bool(leaks(run)),
        "names": names,
        "labels": METRICS,
        "references": _references(run),
        "primary": run.metric("primary") or {},
        "baseline": run.metric("baseline") or {},
        "difference": difference,
        "pooled": run.metric("pooled"),
        "external": run.metric("external"),
        "how": {
            what: next((found for f in (run.metric(what) or {}).values() if (found := dig(f, "interval"))), "")
            for what in ("primary", "pooled", "external")
        },
        "widened": [metric_label(name) for name in names if _is_widened(run.metric("primary", name))],
        "folds": _folds(run),
        "summary": run.metric("fold_summary") or {},
        "spread": _spread(run) if any(name in names for name in _IN_FIGURE) else None,
        "curves": _curves(run),
        "curve_note": dig(run.evaluation, "note"),
        "has_null": any(dig(run.metric("primary"), name, "value") is None for name in names)
        or any(fold.get(name) is None for fold in _folds(run) for name in names),
        "repeats": len({fold.get("repeat", 0) for fold in _folds(run)}),
        "fold_classes": any("classes" in fold for fold in _folds(run)),
    }


SECTION = Section("results", 60, "Results", Path(__file__).with_suffix(".html"), _build)
