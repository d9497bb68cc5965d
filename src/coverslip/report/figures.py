"""Figures as inline SVG: crisp on screen and on paper, a few kB each, no script. Colours come from the page's classes.

Every figure is drawn in its own pixels and scales with the page; its text alternative says what it shows in a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

from coverslip.report.wording import count, has_interval, is_number, number, percent

Point = tuple[float, float]


class Canvas:
    """An SVG image that is being drawn; `label` is its text alternative."""

    def __init__(self, width: float, height: float, label: str, kind: str = "") -> None:
        self.width, self.height, self.label, self.kind = width, height, label, kind
        self._parts: list[Markup] = []

    def add(self, tag: str, content: Any = None, **attributes: Any) -> None:
        """One element; attribute names use '_' for '-', and `cls` for class."""
        pairs = (("class" if k == "cls" else k.replace("_", "-"), v) for k, v in attributes.items())
        text = "".join(f' {k}="{escape(_short(v))}"' for k, v in pairs if v is not None)
        body = Markup("/>") if content is None else Markup(">{}</{}>").format(content, Markup(tag))
        self._parts.append(Markup(f"<{tag}{text}") + body)

    def line(self, a: Point, b: Point, cls: str) -> None:
        self.add("line", x1=a[0], y1=a[1], x2=b[0], y2=b[1], cls=cls)

    def path(self, points: Iterable[Point], cls: str) -> None:
        self.add("path", d="M" + "L".join(f"{_short(x)} {_short(y)}" for x, y in points), cls=cls)

    def text(self, at: Point, content: Any, cls: str = "", anchor: str = "start", turn: float | None = None) -> None:
        rotate = None if turn is None else f"rotate({_short(turn)} {_short(at[0])} {_short(at[1])})"
        self.add("text", content, x=at[0], y=at[1], cls=cls or None, text_anchor=anchor, transform=rotate)

    def svg(self) -> Markup:
        head = Markup('<svg class="figure {}" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            self.kind, _short(self.width), _short(self.height), self.label
        )
        return head + Markup("").join(self._parts) + Markup("</svg>")


@dataclass(frozen=True)
class Square:
    """The unit square of a curve plot, in the pixels of its canvas."""

    left: float = 46
    top: float = 14
    side: float = 280

    def at(self, x: float, y: float) -> Point:
        return self.left + x * self.side, self.top + (1 - y) * self.side

    def draw(
        self,
        canvas: Canvas,
        x_title: str,
        y_title: str,
        x_range: tuple[float, float] = (0.0, 1.0),
        y_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        """The panel, its grid, and ticks that say what the ends of the square stand for."""
        canvas.add("rect", x=self.left, y=self.top, width=self.side, height=self.side, cls="panel")
        for i in range(6):
            value = i / 5
            x, y = self.at(value, value)
            canvas.line((x, self.top), (x, self.top + self.side), "grid")
            canvas.line((self.left, y), (self.left + self.side, y), "grid")
            canvas.text((x, self.top + self.side + 15), _tick(value, x_range), "tick", "middle")
            canvas.text((self.left - 7, y + 3.5), _tick(value, y_range), "tick", "end")
        middle = self.left + self.side / 2
        canvas.text((middle, self.top + self.side + 34), x_title, "axis", "middle")
        canvas.text((13, self.top + self.side / 2), y_title, "axis", "middle", turn=-90)


@dataclass(frozen=True)
class Curve:
    """One curve in the unit square; `style` is a class of the page, `label` is written in the figure."""

    x: Sequence[float]
    y: Sequence[float]
    style: str
    label: str = ""


def roc(curves: Sequence[Curve], label: str) -> Markup:
    """ROC curves over the diagonal of guessing."""
    canvas, square = Canvas(344, 338, label, "curve"), Square()
    square.draw(canvas, "false positive rate", "true positive rate (sensitivity)")
    canvas.line(square.at(0, 0), square.at(1, 1), "chance")
    for curve in curves:
        canvas.path([square.at(x, y) for x, y in zip(curve.x, curve.y)], f"curve {curve.style}")
    legend(canvas, square, [c for c in curves if c.label], above=0.06)
    return canvas.svg()


def scatter(true: Sequence[float], predicted: Sequence[float], label: str) -> Markup:
    """Predicted over true values, both over their common range; the line is where they agree."""
    low, high = min(*true, *predicted), max(*true, *predicted)
    width = (high - low) or 1.0
    canvas, square = Canvas(344, 338, label, "curve"), Square()
    square.draw(canvas, "true", "predicted", (low, low + width), (low, low + width))
    canvas.line(square.at(0, 0), square.at(1, 1), "chance")
    for t, p in zip(true, predicted):
        x, y = square.at((t - low) / width, (p - low) / width)
        canvas.add("circle", cx=x, cy=y, r=2, cls="dot model")
    return canvas.svg()


def precision_recall(curves: Sequence[Curve], prevalence: float | None, label: str) -> Markup:
    """Precision over recall in steps, and the prevalence, which is what guessing gives."""
    canvas, square = Canvas(344, 338, label, "curve"), Square()
    square.draw(canvas, "recall (sensitivity)", "precision (positive predictive value)")
    if is_number(prevalence):
        canvas.line(square.at(0, prevalence), square.at(1, prevalence), "chance")
        canvas.text(square.at(0.985, min(prevalence + 0.02, 0.96)), "prevalence", "tick", "end")
    for curve in curves:
        steps: list[Point] = []
        before = 0.0
        for recall, precision in zip(curve.x, curve.y):
            steps += [square.at(before, precision), square.at(recall, precision)]
            before = recall
        canvas.path(steps, f"curve {curve.style}")
    low = is_number(prevalence) and prevalence < 0.3
    legend(canvas, square, [c for c in curves if c.label], above=0.4 if low else 0.06)
    return canvas.svg()


def reliability(bins: Sequence[Mapping[str, Any]], label: str) -> Markup:
    """Observed over stated frequency with intervals; the area of a point says how many stand behind it."""
    canvas, square = Canvas(344, 338, label, "curve"), Square(top=26, side=268)
    square.draw(canvas, "stated probability", "observed fraction")
    canvas.line(square.at(0, 0), square.at(1, 1), "chance")
    most = max((b["n"] for b in bins), default=1)
    for b in bins:
        x, y = square.at(b["stated"], b["observed"])
        if has_interval(b):
            canvas.line(square.at(b["stated"], b["low"]), square.at(b["stated"], b["high"]), "whisker model")
        canvas.add("circle", cx=x, cy=y, r=3 + 5.5 * math.sqrt(b["n"] / most), cls="dot model")
    # Over the middle of the bin: two means may lie side by side, two bins do not.
    middles = [
        (b["from"] + b["to"]) / 2 if is_number(b.get("from")) and is_number(b.get("to")) else b["stated"] for b in bins
    ]
    wide = max((len(count(b["n"])) for b in bins), default=1)
    for b, x in zip(bins, _apart([square.at(middle, 1)[0] for middle in middles], max(17.0, 6.5 * wide + 4.0))):
        canvas.text((x, square.top - 7), count(b["n"]), "tick", "middle")
    canvas.text((square.left - 22, square.top - 7), "n", "tick", "end")
    return canvas.svg()


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], label: str) -> Markup:
    """Counts with the share of each true class; darker is a larger share."""
    k, side = len(classes), 280.0
    cell = side / k
    canvas = Canvas(344, 338, label, "matrix")
    left, top = 46.0, 14.0
    for i, row in enumerate(counts):
        total = sum(row)
        for j, n in enumerate(row):
            share = n / total if total else 0.0
            x, y = left + j * cell, top + i * cell
            kind = "right" if i == j else "wrong"
            canvas.add("rect", x=x + 1, y=y + 1, width=cell - 2, height=cell - 2, rx=3, cls="cell")
            canvas.add(
                "rect", x=x + 1, y=y + 1, width=cell - 2, height=cell - 2, rx=3, cls=f"fill {kind}",
                fill_opacity=round(0.08 + 0.72 * share, 3),
            )  # fmt: skip
            tone = "on" if share > 0.75 else ""
            big = "count" if k <= 3 else "count small"
            canvas.text((x + cell / 2, y + cell / 2 + (0 if k <= 4 else 4)), count(n), f"{big} {tone}", "middle")
            if k <= 4:
                canvas.text((x + cell / 2, y + cell / 2 + 17), percent(n, total), f"share {tone}", "middle")
        canvas.text((left - 9, top + i * cell + cell / 2), _cut(classes[i]), "tick", "middle", turn=-90)
    for j, name in enumerate(classes):
        canvas.text((left + j * cell + cell / 2, top + side + 15), _cut(name), "tick", "middle")
    canvas.text((left + side / 2, top + side + 34), "decided", "axis", "middle")
    canvas.text((13, top + side / 2), "true class", "axis", "middle", turn=-90)
    return canvas.svg()


@dataclass(frozen=True)
class History:
    """The losses of one fold: (epoch, loss) of training and of tuning, and the epoch whose weights were kept."""

    name: str
    train: Sequence[Point]
    tune: Sequence[Point]
    kept: float | None


def history(one: History) -> Markup:
    """A small plot of the losses over epochs."""
    last = max((x for x, _ in (*one.train, *one.tune)), default=1.0)
    high = max((y for _, y in (*one.train, *one.tune)), default=1.0) or 1.0
    kept = next((y for x, y in one.tune if x == one.kept), None)
    label = f"Losses of {one.name} up to epoch {count(last)}"
    if kept is not None:
        label += f"; tuning loss {number(kept, 3)} at epoch {count(one.kept)}, whose weights were kept"
    canvas = Canvas(200, 118, label + ".", "history")
    left, top, width, height = 30.0, 20.0, 164.0, 78.0

    def at(x: float, y: float) -> Point:
        return left + width * x / (last or 1.0), top + height * (1 - y / (1.05 * high))

    canvas.add("rect", x=left, y=top, width=width, height=height, cls="panel")
    canvas.text((left, 12), one.name, "legend")
    canvas.text((left - 5, at(0, high)[1] + 4), number(high, 1), "tick", "end")
    canvas.text((left - 5, top + height), "0", "tick", "end")
    canvas.text((left + width, top + height + 14), f"epoch {count(last)}", "tick", "end")
    for points, style in ((one.train, "thin"), (one.tune, "model")):
        if points:
            canvas.path([at(x, y) for x, y in points], f"curve {style}")
    if kept is not None and one.kept is not None:
        x, y = at(one.kept, kept)
        canvas.add("circle", cx=x, cy=y, r=4, cls="dot model")
    return canvas.svg()


@dataclass(frozen=True)
class Row:
    """One line of a forest plot: a value with its interval, and single values (folds) as points above it."""

    label: str
    note: str = ""
    figure: Mapping[str, Any] | None = None
    style: str = "model"
    points: Sequence[float] = field(default_factory=tuple)
    absent: str = ""
    group: bool = False  # a little air above, where a new group begins


def forest(
    rows: Sequence[Row],
    label: str,
    *,
    title: str = "",
    reference: float | None = None,
    reference_label: str = "guessing",
    label_width: float = 190,
    width: float = 760,
    digits: int = 2,
) -> Markup:
    """Values with intervals, one a line, on a common axis: what differs is seen at once, and how surely."""
    low, high, step = _range(rows, reference)
    left, right = label_width, width - 130
    line_height, top = 27.0, 24.0 if reference is not None else 12.0
    air = [8.0 if row.group and i else 0.0 for i, row in enumerate(rows)]
    bottom = top + line_height * len(rows) + sum(air)
    canvas = Canvas(width, bottom + (40 if title else 24), label, "forest")

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (right - left)

    ticks = round((high - low) / step)
    for i in range(ticks + 1):
        value = low + i * step
        canvas.line((x(value), top), (x(value), bottom), "grid")
        canvas.text((x(value), bottom + 15), number(value, 1 if step >= 0.1 else 2), "tick", "middle")
    if reference is not None:
        canvas.line((x(reference), top - 6), (x(reference), bottom), "chance")
        canvas.text((x(reference), top - 10), reference_label, "tick", "middle")
    if title:
        canvas.text(((left + right) / 2, bottom + 34), title, "axis", "middle")
    y = top + line_height / 2
    for row, space in zip(rows, air):
        y += space
        canvas.text((0, y + 4), _cut(row.label, 34), f"name {row.style}")
        if row.note:
            canvas.text((left - 12, y + 4), row.note, "tick", "end")
        _mark(canvas, row, x, y, (left, right), digits)
        y += line_height
    return canvas.svg()


def _mark(canvas: Canvas, row: Row, x: Any, y: float, ends: tuple[float, float], digits: int) -> None:
    left, right = ends
    value = row.figure.get("value") if row.figure else None
    if not is_number(value):
        canvas.text((left + 8, y + 4), row.absent or "not computed", "tick")
        return
    assert row.figure is not None
    if has_interval(row.figure):
        a, b = x(row.figure["low"]), x(row.figure["high"])
        canvas.line((a, y), (b, y), f"whisker {row.style}")
        for end in (a, b):
            canvas.line((end, y - 4), (end, y + 4), f"whisker {row.style}")
    for point, aside in _aside([x(point) for point in row.points]):
        canvas.add("circle", cx=point, cy=y + aside, r=3.4, cls=f"fold {row.style}")
    centre = x(value)
    canvas.add("path", d=f"M{_short(centre)} {_short(y - 6)}l6 6l-6 6l-6 -6z", cls=f"dot {row.style}")
    canvas.text((right + 14, y + 4), number(value, digits), f"value {row.style}")
    if has_interval(row.figure):
        text = f"{number(row.figure['low'], digits)} – {number(row.figure['high'], digits)}"
        canvas.text((right + 130, y + 4), text, "tick", "end")


def _aside(points: Sequence[float]) -> list[tuple[float, float]]:
    """Points on a line with how far each steps aside, so that equal ones are seen as several."""
    placed: list[tuple[float, float]] = []
    for point in sorted(points):
        steps = (0.0, -6.0, 6.0, -12.0, 12.0)
        free = [s for s in steps if all(abs(point - p) > 6 or s != taken for p, taken in placed)]
        placed.append((point, free[0] if free else steps[len(placed) % len(steps)]))
    return placed


def _range(rows: Sequence[Row], reference: float | None) -> tuple[float, float, float]:
    """Lowest and highest value on the axis and the step of its ticks, all values inside."""
    values: list[Any] = [reference]
    for row in rows:
        figure = row.figure or {}
        values += [figure.get(key) for key in ("value", "low", "high")]
        values += list(row.points)
    known: list[float] = [value for value in values if is_number(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    step = 0.1 if high - low > 0.25 else 0.05
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    if high - low > 1.05:
        step = 0.5 if high - low > 2 else 0.2
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return (low, high, step) if high > low else (low - step, high + step, step)


def legend(canvas: Canvas, square: Square, curves: Sequence[Curve], *, above: float) -> None:
    """Labels in the lower right corner, where curves that are any good do not go."""
    for i, curve in enumerate(reversed(curves)):
        x, y = square.at(0.97, above + 0.065 * i)
        canvas.text((x - 26, y + 4), curve.label, "legend", "end")
        canvas.line((x - 20, y), (x, y), f"curve {curve.style}")


def _cut(text: str, most: int = 18) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _apart(places: Sequence[float], gap: float = 17.0) -> list[float]:
    """Rising places, moved as little as can be so that numbers over them do not touch: those that would are spread
    about their common middle."""
    groups: list[list[float]] = []  # runs of neighbours that touch: their places
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _ends(groups[-2], gap)[1] + gap > _ends(groups[-1], gap)[0]:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_ends(group, gap)[0] + gap * i for group in groups for i in range(len(group))]


def _ends(group: Sequence[float], gap: float) -> tuple[float, float]:
    middle, half = sum(group) / len(group), gap * (len(group) - 1) / 2
    return middle - half, middle + half


def _tick(share: float, ends: tuple[float, float]) -> str:
    """What a share of the way between two ends is."""
    low, high = ends
    return f"{share:.1f}" if ends == (0.0, 1.0) else _plain(low + share * (high - low))


def _plain(value: float) -> str:
    """At most four digits that say something, never as a power of ten."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _short(value: Any) -> str:
    """A coordinate with at most one decimal; anything else as text."""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 1 else f"{value:.1f}".rstrip("0").rstrip(".")
    return str(value)
