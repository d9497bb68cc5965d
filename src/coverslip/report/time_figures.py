"""What evaluation.json holds of times: survival and incidence by risk, calibration and ranking at fixed times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from coverslip.eval.survival import round_up
from coverslip.report import figures
from coverslip.report.contents import RunContents, dig
from coverslip.report.figures import Curve
from coverslip.report.wording import count, has_interval, is_number, listing, number, p_value, plural, span

_HUES = ("hue0", "hue1")


def time_figures(run: RunContents) -> list[dict[str, Any]]:
    """Each figure with its title and caption; none where the task has no times."""
    return [*_survival(run), *_incidence(run), *_ranking(run), *_calibration(run)]


def _survival(run: RunContents) -> list[dict[str, Any]]:
    """Survival of those of higher and of lower out-of-fold risk."""
    block = dig(run.evaluation, "risk_groups")
    groups = _followed(block)
    if not groups:
        return []
    drawn = [_steps(group, hue, 1.0) for hue, group in zip(_HUES, groups)]
    bands = [_band(group, hue) for hue, group in zip(_HUES, groups)]
    # The usual p takes groups for given; that of a control knows that they were made.
    p = dig(run.control, "logrank", "p") if dig(run.evaluation, "set") != "external" else None
    test = f"; log-rank {p_value(p)} by permuting the whole cross-validation" if is_number(p) else ""
    at_risk = [(hue, group.get("at_risk") or []) for hue, group in zip(_HUES, groups)]
    limits = "; bands are pointwise 95 % limits (Greenwood, log-log)" if any(bands) else ""
    text = f"Kaplan-Meier curves of {listing([c.label for c in drawn])}, {run.level} level{test}."
    seen = dig(block, "at_risk_at") or []
    return [
        {
            "title": "Survival by risk",
            "svg": _over_time(drawn, text, "free of the event", bands=bands, seen=seen, at_risk=at_risk),
            "caption": f"{run.level.capitalize()} level, Kaplan-Meier curves by out-of-fold risk, cut at the "
            f"{dig(block, 'cut')}{limits}; below, how many were still followed{test}.",
        }
    ]


def _incidence(run: RunContents) -> list[dict[str, Any]]:
    """For each cause, the share that has had it among those of higher and of lower out-of-fold risk of it."""
    found = []
    for block in dig(run.evaluation, "incidence") or []:
        groups = _followed(block)
        if not groups:
            continue
        cause = f"cause {block['cause']}" if str(block["cause"]).isdigit() else str(block["cause"])
        drawn = [_steps(group, hue, 0.0) for hue, group in zip(_HUES, groups)]
        text = f"Cumulative incidence of {cause}: {listing([c.label for c in drawn])}, {run.level} level."
        found.append(
            {
                "title": f"Incidence of {cause} by its risk",
                "svg": _over_time(drawn, text, f"has had {cause}"),
                "caption": f"{run.level.capitalize()} level: the observed share that has had {cause}, by "
                f"out-of-fold risk of it, cut at the {block.get('cut')}. Whoever had another event first cannot have "
                "it any more and stays counted.",
            }
        )
    return found


def _ranking(run: RunContents) -> list[dict[str, Any]]:
    """The AUROC of the event by each time of the grid."""
    entries = [one for one in dig(run.evaluation, "auroc_at") or [] if is_number(dig(one, "auroc"))]
    if not entries:
        return []
    curve = Curve([one["time"] for one in entries], [one["auroc"] for one in entries], "model")
    known = [one for one in entries if has_interval(one)]
    band = Band([one["time"] for one in known], [one["low"] for one in known], [one["high"] for one in known], "model")
    said = listing(
        [
            f"{number(one['auroc'])}{f' ({span(one)})' if has_interval(one) else ''} by {one['time']:g} "
            f"({plural(one['events'], 'event')})"
            for one in entries
        ]
    )
    how = next((f" The band is of {one['interval']}, at each time." for one in known if one.get("interval")), "")
    text = f"Time-dependent AUROC, {run.level} level: {said}."
    return [
        {
            "title": "AUROC by time",
            "svg": _over_time([curve], text, "AUROC", bands=[band], points=True, chance=0.5),
            "caption": f"{run.level.capitalize()} level: who has had the event by a time against who is free of it "
            f"then, within a fold, weighted against censoring; the dashed line is guessing. {said}.{how}",
        }
    ]


def _calibration(run: RunContents) -> list[dict[str, Any]]:
    """Stated against observed chance of the event by fixed times."""
    found = []
    for block in dig(run.evaluation, "calibration_at") or []:
        bins = [b for b in dig(block, "bins") or [] if is_number(b.get("stated")) and is_number(b.get("observed"))]
        if not bins:
            continue
        said = listing([f"stated {number(b['stated'])}, observed {number(b['observed'])} of {b['n']}" for b in bins])
        reasons = Counter(str(b["reason"]) for b in block["bins"] if b.get("reason"))
        without = "".join(f" {reason[0].upper()}{reason[1:]} ({plural(n, 'group')})." for reason, n in reasons.items())
        found.append(
            {
                "title": f"Calibration at {block['time']:g}",
                "svg": figures.reliability(bins, f"Calibration of {block['of']}, {run.level} level: {said}."),
                "caption": f"{run.level.capitalize()} level, stated and observed chance of {block['of']} in groups of "
                "alike predictions. A calibrated model lies on the dashed line; bars are "
                f"{block['interval']}.{without}",
            }
        )
    return found


@dataclass(frozen=True)
class Band:
    """The area between two curves over the same times; `style` is the class of the curve that it belongs to."""

    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    style: str

    def __bool__(self) -> bool:
        return len(self.x) > 1


def _followed(block: Any) -> list[Mapping[str, Any]]:
    """The groups that anybody was followed in."""
    return [one for one in dig(block, "groups") or [] if isinstance(one, Mapping) and max(one.get("time") or [0]) > 0]


def _steps(group: Mapping[str, Any], style: str, start: float) -> Curve:
    """The staircase of a group; its label counts the events."""
    x, y = [0.0], [start]
    for time, value in zip(group["time"], group["value"]):
        x, y = [*x, time, time], [*y, y[-1], value]
    return Curve(x, y, style, f"{group['name']} ({group['events']} of {group['patients']} with the event)")


def _band(group: Mapping[str, Any], style: str) -> Band:
    """The limits of a group's staircase, from its first event on; none in files without them."""
    x: list[float] = []
    low: list[float] = []
    high: list[float] = []
    for time, a, b in zip(group["time"], group.get("low") or [], group.get("high") or []):
        if not (is_number(a) and is_number(b)):
            continue
        if x:
            x, low, high = [*x, time], [*low, low[-1]], [*high, high[-1]]
        x, low, high = [*x, time], [*low, a], [*high, b]
    return Band(x, low, high, style)


def _over_time(
    curves: Sequence[Curve],
    label: str,
    y_title: str,
    *,
    bands: Sequence[Band] = (),
    seen: Sequence[float] = (),
    at_risk: Sequence[tuple[str, Sequence[int]]] = (),
    points: bool = False,
    chance: float | None = None,
) -> Markup:
    """Shares over time, which the curves' x is; `bands` lie under them, `points` marks each of their places, `chance`
    is drawn across. Below, how many of each group (its style, and its counts) were followed at the times `seen`."""
    last = max((x for curve in curves for x in curve.x), default=1.0)
    end = float(seen[-1]) if seen else round_up(last)
    canvas, square = (
        figures.Canvas(344, 338 + (20 + 14 * len(at_risk) if seen else 0), label, "curve"),
        figures.Square(),
    )
    square.draw(canvas, "time", y_title, x_range=(0.0, end))
    if chance is not None:
        canvas.line(square.at(0, chance), square.at(1, chance), "chance")
    for band in filter(None, bands):
        there = [square.at(x / end, y) for x, y in zip(band.x, band.high)]
        back = [square.at(x / end, y) for x, y in zip(reversed(band.x), reversed(band.low))]
        canvas.path([*there, *back], f"band {band.style}")
    for curve in curves:
        places = [square.at(x / end, y) for x, y in zip(curve.x, curve.y)]
        canvas.path(places, f"curve {curve.style}")
        for x, y in places if points else ():
            canvas.add("circle", cx=x, cy=y, r=3.4, cls=f"dot {curve.style}")
    right = [y for curve in curves for x, y in zip(curve.x, curve.y) if x > 0.4 * end] or [1.0]
    figures.legend(canvas, square, [c for c in curves if c.label], above=0.06 if min(right) > 1 - max(right) else 0.87)
    if seen:
        below = square.top + square.side + 50
        canvas.text((square.left, below), "followed", "tick")
        for row, (style, counts) in enumerate(at_risk, start=1):
            y = below + 14 * row
            canvas.line((square.left - 26, y - 4), (square.left - 12, y - 4), f"curve {style}")
            for x, n in zip(seen, counts):
                canvas.text((square.at(x / end, 0)[0], y), count(n), "tick", "middle")
    return canvas.svg()
