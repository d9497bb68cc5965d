"""Figures of what may be done with a probability: decision curves, and errors among those who are decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from coverslip.report.figures import Canvas, Point
from coverslip.report.wording import has_interval, is_number, number


@dataclass(frozen=True)
class Panel:
    """A plot of 0 to 1 against values from `low` to `high`, in the pixels of its canvas."""

    low: float
    high: float
    left: float = 52
    top: float = 14
    side: float = 280

    def at(self, x: float, y: float) -> Point:
        inside = min(max(y, self.low), self.high)
        return self.left + x * self.side, self.top + (self.high - inside) / (self.high - self.low) * self.side

    def draw(self, canvas: Canvas, x_title: str, y_title: str) -> None:
        canvas.add("rect", x=self.left, y=self.top, width=self.side, height=self.side, cls="panel")
        for i in range(6):
            x, _ = self.at(i / 5, self.low)
            value = self.low + (self.high - self.low) * i / 5
            _, y = self.at(0, value)
            canvas.line((x, self.top), (x, self.top + self.side), "grid")
            canvas.line((self.left, y), (self.left + self.side, y), "grid")
            canvas.text((x, self.top + self.side + 15), f"{i / 5:.1f}", "tick", "middle")
            canvas.text((self.left - 7, y + 3.5), number(value), "tick", "end")
        middle = self.left + self.side / 2
        canvas.text((middle, self.top + self.side + 34), x_title, "axis", "middle")
        canvas.text((13, self.top + self.side / 2), y_title, "axis", "middle", turn=-90)

    def band(self, canvas: Canvas, x: Sequence[float], low: Sequence[float], high: Sequence[float]) -> None:
        """The area between two curves."""
        there = [self.at(a, b) for a, b in zip(x, high)]
        back = [self.at(a, b) for a, b in zip(reversed(x), reversed(low))]
        canvas.path([*there, *back], "band")


def decision(curve: Sequence[Mapping[str, Any]], label: str, *, raw: Sequence[Mapping[str, Any]] = ()) -> Markup:
    """Net benefit over thresholds: the model with its interval, treating all, and treating no one at 0. `raw` is the
    curve of the raw probabilities, drawn as dots beside that of recalibrated ones."""
    best = max([0.0, *(point["model"]["value"] for point in curve), *(point["all"] for point in curve)])
    high = max(0.05, 1.15 * best)
    canvas, panel = Canvas(350, 338, label, "curve"), Panel(-0.25 * high, high)
    panel.draw(canvas, "threshold of risk", "net benefit per patient")
    canvas.line(panel.at(0, 0), panel.at(1, 0), "chance")
    known = [point for point in curve if has_interval(point["model"])]
    panel.band(
        canvas,
        [point["threshold"] for point in known],
        [point["model"]["low"] for point in known],
        [point["model"]["high"] for point in known],
    )
    # Beyond the floor of the panel treating all is not worth drawing.
    falling = [point for point in curve if point["all"] > panel.low]
    canvas.path([panel.at(point["threshold"], point["all"]) for point in falling], "curve baseline")
    canvas.path([panel.at(point["threshold"], point["model"]["value"]) for point in curve], "curve model")
    for point in raw:
        # What lies under the floor of the panel is worse than anything that is drawn.
        if point["model"]["value"] > panel.low:
            x, y = panel.at(point["threshold"], point["model"]["value"])
            canvas.add("circle", cx=x, cy=y, r=2.5, cls="dot model")
    for i, (text, style) in enumerate((("model", "model"), ("treat all", "baseline"))):
        x, y = panel.left + panel.side - 12, panel.top + 16 + 18 * i
        canvas.text((x - 26, y + 4), text, "legend", "end")
        canvas.line((x - 20, y), (x, y), f"curve {style}")
    return canvas.svg()


def abstention(block: Mapping[str, Any], label: str) -> Markup:
    """The share of errors over the share of patients who are decided, the surest first; the line is deciding all."""
    coverage, risk, low, high = (list(block[name]) for name in ("coverage", "risk", "low", "high"))
    chance = block.get("aurc_by_chance")
    top = min(1.0, max(0.1, 1.5 * max([*risk[len(risk) // 5 :], chance if is_number(chance) else 0.0])))
    canvas, panel = Canvas(350, 338, label, "curve"), Panel(0.0, top)
    panel.draw(canvas, "share of patients decided, the surest first", "share of errors")
    if is_number(chance):
        canvas.line(panel.at(0, chance), panel.at(1, chance), "chance")
    panel.band(canvas, coverage, low, high)
    canvas.path([panel.at(x, y) for x, y in zip(coverage, risk)], "curve model")
    return canvas.svg()
