"""Several methods on the same folds, as one HTML file: what was found, what of it is noise, what to choose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from coverslip.base.errors import SettingsError, StoreError
from coverslip.base.files import write_text
from coverslip.report import figures
from coverslip.report.contents import read_contents
from coverslip.report.figures import Canvas, Row
from coverslip.report.headline import chance
from coverslip.report.page import environment, frame
from coverslip.report.pseudonyms import Pseudonyms
from coverslip.report.wording import ABSENT, has_interval, is_number, metric_label, number, plural, seconds, span

RESULT, PAGE = "compare.json", "report.html"
FORMAT = "coverslip.compare/1"

_LABEL_WIDTH = 250


def write_comparison(folder: Path, *, title: str | None = None, pseudonymise: bool = False) -> Path:
    """The path of report.html, written beside the compare.json of a comparison's folder.

    Raises:
        SettingsError: the folder holds no comparison. StoreError: its compare.json is damaged.
    """
    found = _read(Path(folder) / RESULT)
    if pseudonymise:
        found = Pseudonyms([read_contents(folder)]).value(found)
    path = Path(folder) / PAGE
    write_text(path, render_comparison(found, title=title, pseudonymised=pseudonymise))
    return path


def render_comparison(found: Mapping[str, Any], *, title: str | None = None, pseudonymised: bool = False) -> str:
    """The page of a comparison, of what compare.json holds, as HTML text."""
    label = metric_label(found["metric"])
    methods, linear = found["methods"], found["linear"]
    leaks = [text for text in found["warnings"] if text.startswith("LEAK")]
    return (
        environment()
        .get_template("compared.html")
        .render(
            **frame(),
            title=title or found["name"],
            pseudonymised=pseudonymised,
            found=found,
            metric=label,
            leaking=bool(leaks),
            question=_question(found),
            facts=_facts(found),
            everyone=[*methods, linear],
            values=_values(found, label),
            families=[
                _family(found["reference"], label, f"against {found['reference']['reference']['method']}"),
                _family(found["baseline"], label, f"against the baseline, {linear['name']}"),
            ],
            ranks=rank_figure(
                [(one["name"], one["rank"]) for one in [*methods, linear] if one["rank"]],
                found["reference"]["reference"]["method"],
                linear["name"],
            ),
            folds=_folds(found),
            settings=[_settings(one) for one in methods],
            failures=[(one["name"], fold, why) for one in methods for fold, why in one["failed"].items()],
        )
    )


def rank_figure(rows: Sequence[tuple[str, Mapping[str, Any]]], reference: str, linear: str) -> Markup | None:
    """Mean ranks with their intervals, the best on top, and the reference's as a line through all; None for no row."""
    if not rows:
        return None
    rows = sorted(rows, key=lambda row: (row[1]["value"], row[0]))
    last, height, top = len(rows), 25.0, 24.0
    left, right = float(_LABEL_WIDTH), 760.0 - 130
    bottom = top + height * len(rows)
    said = "; ".join(f"{name} {number(rank['value'], 1)} ({span(rank, 1)})" for name, rank in rows)
    canvas = Canvas(760, bottom + 40, f"Mean rank over folds, 1 is best: {said}", "forest")

    def x(rank: float) -> float:
        return left + (rank - 1) / max(last - 1, 1) * (right - left)

    every = -(-last // 12)
    for tick in range(1, last + 1, every):
        canvas.line((x(tick), top), (x(tick), bottom), "grid")
        canvas.text((x(tick), bottom + 15), str(tick), "tick", "middle")
    held = dict(rows).get(reference)
    if held is not None:
        canvas.line((x(held["value"]), top - 6), (x(held["value"]), bottom), "chance")
        canvas.text((x(held["value"]), top - 10), "the reference", "tick", "middle")
    canvas.text(((left + right) / 2, bottom + 34), "mean rank over folds; 1 is the highest figure", "axis", "middle")
    for place, (name, rank) in enumerate(rows):
        y, style = top + height * (place + 0.5), "baseline" if name == linear else "model"
        canvas.text((0, y + 4), name if len(name) <= 34 else name[:33] + "…", f"name {style}")
        if has_interval(rank):
            ends = x(rank["low"]), x(rank["high"])
            canvas.line((ends[0], y), (ends[1], y), f"whisker {style}")
            for end in ends:
                canvas.line((end, y - 4), (end, y + 4), f"whisker {style}")
        canvas.add("circle", cx=x(rank["value"]), cy=y, r=5, cls=f"dot {style}")
        canvas.text((right + 14, y + 4), number(rank["value"], 1), f"value {style}")
        if has_interval(rank):
            text = f"{number(rank['low'], 1)} – {number(rank['high'], 1)}"
            canvas.text((right + 130, y + 4), text, "tick", "end")
    return canvas.svg()


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SettingsError(
            f"{path.parent} holds no comparison: it has no {path.name}.", fix="Give the folder of `coverslip compare`."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise StoreError(f"{path} is damaged: {error}.", fix="Compare again; what is trained is used again.") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        said = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise StoreError(f"{path} has format {said!r}; {FORMAT!r} is accepted.", fix="Compare again.")
    return found


def _question(found: Mapping[str, Any]) -> str:
    task, level = found["task"], found["level"]
    column = task.get("column") or ", ".join(task.get("columns") or []) or "the target"
    return (
        f"Which of {plural(len(found['methods']), 'method')} should tell “{column}” from slides, {level} by {level}? "
        f"All were trained on the same folds; {found['reference']['reference']['method']} was declared the reference."
    )


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    counts, folds = found["counts"], found["folds"]
    failed = sum(len(one["failed"]) for one in found["methods"])
    tests = [fold["test"] for fold in folds]
    hours = found["hours"]
    return [
        (str(counts["patients"]), "patients", f"{counts['slides']} slides"),
        (str(len(folds)), "folds", f"{min(tests)} to {max(tests)} {found['level']}s tested in each"),
        (str(len(found["methods"])), "methods", f"and a linear baseline{f'; {failed} folds failed' if failed else ''}"),
        (seconds(3600 * hours["clock"]), "of training", f"{seconds(3600 * hours['processor'])} of processors"),
    ]


def _values(found: Mapping[str, Any], label: str) -> Markup:
    rows = [
        Row(
            one["name"],
            "reference" if one["name"] == found["reference"]["reference"]["method"] else "",
            one["value"],
            "model",
            [value for value in one["folds"] if is_number(value)],
            absent="no fold",
        )
        for one in found["methods"]
    ]
    linear = found["linear"]
    known = [value for value in linear["folds"] if is_number(value)]
    rows.append(Row(linear["name"], "baseline", linear["value"], "baseline", known, group=True))
    said = "; ".join(
        f"{row.label} {number((row.figure or {}).get('value'), 3)} ({span(row.figure, 3)})" for row in rows
    )
    return figures.forest(
        rows,
        f"{label}, {found['level']} level: {said}",
        title=f"{label}, {found['level']} level: circles are folds, bars 95 % intervals",
        reference=chance(found["metric"]),
        label_width=_LABEL_WIDTH,
        digits=3,
    )


def _family(family: Mapping[str, Any], label: str, title: str) -> dict[str, Any]:
    """One family of tests: its figure and its table."""
    rows = [Row(one["method"], "", one["difference"], "model", absent="no test") for one in family["methods"]]
    said = "; ".join(
        f"{one['method']} {number(one['difference']['value'], 3)} ({span(one['difference'], 3)})"
        for one in family["methods"]
    )
    return {
        "title": title,
        "family": family["family"],
        "test": family["test"],
        "methods": [{**one, "verdict": _verdict(one)} for one in family["methods"]],
        "figure": figures.forest(
            rows,
            f"Difference in {label} {title}: {said}",
            title=f"difference in {label}, paired over folds, with 95 % intervals (each by itself)",
            reference=0.0,
            reference_label="no difference",
            label_width=_LABEL_WIDTH,
            digits=3,
        ),
    }


def _verdict(one: Mapping[str, Any]) -> tuple[str, str]:
    """What a test shows in a word, and the badge that it gets."""
    gap, p = one["difference"], one["p_holm"]
    if not is_number(p) or not is_number(gap["value"]):
        return gap.get("reason") or "no test", "note"
    if p > 0.05:
        return "no difference shown", "note"
    return ("better", "ok") if gap["value"] > 0 else ("worse", "fail")


def _folds(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    everyone = [*found["methods"], found["linear"]]
    return [{**fold, "values": [one["folds"][place] for one in everyone]} for place, fold in enumerate(found["folds"])]


def _settings(one: Mapping[str, Any]) -> dict[str, Any]:
    def said(values: Sequence[Any]) -> str:
        shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
        return ABSENT if not shown else shown[0] if len(shown) == 1 else f"{shown[0]} to {shown[-1]}"

    return {**one, "said": {name: said(values) for name, values in one["used"].items()}}
