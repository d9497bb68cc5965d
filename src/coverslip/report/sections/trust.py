"""May the probabilities be acted on? Calibration, decision curves, abstention and prediction sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverslip.report import figures, time_calibration, trust_figures
from coverslip.report.contents import RunContents, dig
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import is_number, listing, number, percent, span

ENTRIES = {"trust": {"build": "SECTION", "summary": "Calibration, decision curves, abstention, prediction sets"}}

# With fewer in the smaller class no threshold is said to be one at which the model is useful.
FEW = 10


def _calibration(block: Mapping[str, Any], level: str) -> list[dict[str, Any]]:
    """The reliability of each probability that is looked at, in bins of equal numbers."""
    found = []
    for entry in block.get("calibration") or []:
        if entry.get("bins"):
            said = "; ".join(f"stated {number(b['stated'])}, observed {number(b['observed'])}" for b in entry["bins"])
            found.append(
                {
                    "title": f"Reliability of {entry['of']}",
                    "svg": figures.reliability(entry["bins"], f"Reliability of {entry['of']}, {level} level: {said}."),
                    "caption": f"{level.capitalize()} level; bins {entry['bins_are']}. On the dashed line it comes "
                    "true as often as stated.",
                }
            )
    return found


def _decisions(block: Mapping[str, Any], level: str) -> list[dict[str, Any]]:
    found = []
    for entry, stated in zip(block.get("decision") or [], block.get("calibration") or []):
        curve = entry.get("curve") or []
        if curve:
            where = _useful(curve, min(stated["came_true"], stated["n"] - stated["came_true"]))
            found.append(
                {
                    "title": f"Decision curve of {entry['class']}",
                    "svg": trust_figures.decision(
                        curve,
                        f"Net benefit of acting on p({entry['class']}), {level} level. {where}",
                        raw=entry.get("raw") or (),
                    ),
                    "caption": f"{level.capitalize()} level; the band is its 95 % interval at each threshold "
                    f"({entry['interval']}). {_of(entry)}{where}",
                }
            )
    return found


def _of(entry: Mapping[str, Any]) -> str:
    """Which probabilities a curve is of; runs of earlier versions had the raw ones."""
    if entry.get("probabilities") == "recalibrated":
        raw = "; dots are the raw ones, as the models state them" if entry.get("raw") else ""
        return f"Of the recalibrated probabilities{raw}. "
    return "Of the probabilities as the models state them, not recalibrated. "


def _useful(curve: list[Mapping[str, Any]], scarce: int) -> str:
    """Where both intervals, against treating all and treating no one, lie over 0."""
    if scarce < FEW:
        return f"With {scarce} in the smaller class nothing is claimed."
    useful = [
        all(is_number(low) and low > 0 for low in (dig(point, name, "low") for name in ("model", "versus_all")))
        for point in curve
    ]
    if not any(useful):
        return "At no threshold is it shown to be more useful than treating all and treating no one."
    # Thresholds that stand side by side; a gap between two ranges is no place where it was shown.
    ranges: list[list[float]] = []
    for place, point in enumerate(curve):
        if useful[place] and place and useful[place - 1]:
            ranges[-1][1] = point["threshold"]
        elif useful[place]:
            ranges.append([point["threshold"], point["threshold"]])
    told = listing([f"from {low:.2f} to {high:.2f}" if high > low else f"at {low:.2f}" for low, high in ranges])
    return (
        f"Shown to be more useful than treating all and treating no one {told}: these models, each of the "
        f"{len(curve)} thresholds by itself."
    )


def _abstention(block: Mapping[str, Any], level: str) -> list[dict[str, Any]]:
    """One curve, or one a label."""
    several = block.get("labels")
    blocks = several if isinstance(several, Mapping) else {"": block}
    drawn = []
    for name, part in blocks.items():
        found = part.get("abstention")
        if not isinstance(found, Mapping):
            continue
        area, chance = number(found["aurc"], 3), number(found["aurc_by_chance"], 3)
        raw = f", the raw probabilities {number(found['raw_aurc'], 3)}" if is_number(found.get("raw_aurc")) else ""
        of = f" on {name}" if name else ""
        drawn.append(
            {
                "title": f"Abstention{f', {name}' if name else ''}",
                "svg": trust_figures.abstention(
                    found, f"Errors{of} over patients decided, {level} level; area {area}."
                ),
                "caption": f"{level.capitalize()} level; the band is Wilson's 95 % interval, the dashed line deciding "
                f"all. Area {area}; abstaining at random gives {chance}, an oracle "
                f"{number(found['aurc_at_best'], 3)}{raw}.",
            }
        )
    return drawn


def _sets(block: Mapping[str, Any], classes: list[str], level: str) -> list[dict[str, str]]:
    """Prediction sets in words, one paragraph a label where there are several: the average coverage with its spread, by
    class, and how much the sets say; or why there are none."""
    several = block.get("labels")
    if isinstance(several, Mapping):
        return [
            _sets_of(part.get("sets") or {}, [f"no {name}", name], level, of=f" of {name}")
            for name, part in several.items()
        ]
    return [_sets_of(block.get("sets") or {}, classes, level)]


def _sets_of(found: Mapping[str, Any], classes: list[str], level: str, of: str = "") -> dict[str, str]:
    coverage = found.get("coverage")
    if not isinstance(coverage, Mapping):
        reason = found.get("reason")
        return {"title": "", "text": f"No prediction sets{of} here: {reason}." if reason else ""}
    aim, spread = percent(found.get("aim"), 1), f"(sd {number(coverage.get('sd'))})"
    held = f"of {number(coverage.get('mean'))} of the {level}s on average over folds {spread}"
    # A class needs 1 / alpha - 1 patients, 19 at 95 %, to be left out of any set.
    missed = 1 - found["aim"] if is_number(found.get("aim")) else 0.05
    least = math.ceil(1 / missed - 1 - 1e-9)
    if found.get("of") == "ranges":
        reach = found.get("half_width")
        width = f"They reach {number(reach)} (units of the target) to either side, on average over folds."
        if not is_number(reach):
            share = percent(found.get("unlimited"), 1)
            width = f"{share} have no limits: fewer than {least} {level}s in the other folds are too few to set any."
        text = f"at {aim}, calibrated on the other folds, hold the true number {held}. {width}"
        return {"title": "Prediction ranges", "text": text}
    by_class = "; ".join(
        f"{name}: {number(figure.get('value'))} ({span(figure)})"
        for name, figure in zip(classes, found.get("classes") or [])
    )
    few = [name for name, n in (found.get("counts") or {}).items() if is_number(n) and n < least]
    one, every, empty = (percent(found.get(name), 1) for name in ("one_class", "every_class", "empty"))
    text = (
        f"at {aim}, calibrated on the other folds, class by class, hold the true class {held}; {by_class}. {one} of "
        f"the sets name one class, {every} every class (abstain), {empty} none."
    )
    if few:
        text += f" Of {', '.join(few)} there are fewer than {least}, too few to leave a class out of any set at {aim}."
    return {"title": f"Prediction sets{of}", "text": text}


def _build(run: RunContents) -> dict[str, Any] | Absent:
    block = dig(run.evaluation, "trust")
    if times := time_calibration.rows(run):
        return {"times": times, "summary": time_calibration.summary(run), "verdict": time_calibration.verdict(run)}
    if not isinstance(block, Mapping) or not (block.get("calibration") or block.get("no_probability")):
        return Absent(
            "The run's evaluation says nothing of calibration: its task states no chance of anything, or it was "
            "evaluated by an earlier version. Whether its probabilities come true is not known."
        )
    level = run.level
    return {
        "times": [],
        "estimates": block.get("estimates"),
        "no_probability": block.get("no_probability") or "",
        "entries": block.get("calibration") or [],
        "plots": [*_calibration(block, level), *_decisions(block, level), *_abstention(block, level)],
        "sets": [one for one in _sets(block, run.classes, level) if one["text"]],
    }


SECTION = Section("trust", 65, "Can the probabilities be trusted?", Path(__file__).with_suffix(".html"), _build)
