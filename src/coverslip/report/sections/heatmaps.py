"""Where the model looked: a map of each slide with its extreme tiles, wrong cases before right ones, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.report.contents import Map, RunContents, TilePicture
from coverslip.report.facts import SlideResult, SlideValue, kind, slide_results, slide_values
from coverslip.report.pictures import MAP_PX, TILE_PX, Picture, picture
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import has_interval, is_number, metric_label, number, plural, span

ENTRIES = {"heatmaps": {"build": "SECTION", "summary": "Maps and tiles of right and wrong cases"}}

MOST = 60
_TILES = 6  # of each rank

_MEANING = {
    "evidence": "Colour is evidence: how much a tile speaks for what is named beside it, by the model's own sum. "
    "It can be negative.",
    "attention": "Colour is attention: how much a tile counts in the average; 1 is an even share. It says where the "
    "model looked, not what it concluded there; a tile with high attention may speak for or against.",
}


@dataclass(frozen=True)
class Card:
    """One slide's map with what was decided and its highest and lowest tiles."""

    slide: str
    result: SlideResult | None
    value: SlideValue | None
    kind: str
    target: str  # in words: "class tumour", "higher risk"
    region_auroc: float | None  # how well the map finds the outlined region of this slide, tile level
    image: Picture | None
    top: tuple[tuple[TilePicture, Picture | None], ...]
    bottom: tuple[tuple[TilePicture, Picture | None], ...]


@dataclass(frozen=True)
class Group:
    """Cards of one true class that were decided alike."""

    title: str
    wrong: bool
    cards: list[Card]


def groups(run: RunContents) -> tuple[list[Group], int]:
    """The maps in groups, wrong ones first and the surest first in each, and how many are not shown. Where nothing is
    decided (labels, numbers, times) they are one group, the highest prediction first."""
    if values := slide_values(run):
        return _by_value(run, values)
    results, known = slide_results(run), run.metric("localisation", "by_slide") or {}
    ordered = sorted(run.maps, key=lambda one: _rank(one, results.get(one.slide)))
    shown = ordered[:MOST]
    prefix = "class " if kind(run) == "classification" else ""
    bins: dict[tuple[bool, str], list[Map]] = {}
    for one in shown:
        result = results.get(one.slide)
        key = (result is not None and not result.right, result.true if result else "")
        bins.setdefault(key, []).append(one)
    classes = [*run.classes, ""]
    found = []
    for wrong in (True, False):
        for name in classes:
            maps = bins.get((wrong, name), [])
            if maps:
                found.append(
                    Group(
                        _title(name, wrong=wrong, n=len(maps)),
                        wrong,
                        [_card(m, known, prefix, result=results.get(m.slide)) for m in maps],
                    )
                )
    return found, len(ordered) - len(shown)


def _by_value(run: RunContents, values: Mapping[str, SlideValue]) -> tuple[list[Group], int]:
    tested = [one for one in run.maps if one.slide in values]
    tested = sorted(tested, key=lambda one: (-values[one.slide].order, one.slide))
    ordered = [*tested, *(one for one in run.maps if one.slide not in values)]
    known = run.metric("localisation", "by_slide") or {}
    cards = [_card(one, known, "", value=values.get(one.slide)) for one in ordered[:MOST]]
    title = f"From the highest prediction to the lowest ({len(cards)})"
    return [Group(title, wrong=False, cards=cards)] if cards else [], len(ordered) - len(cards)


def _rank(one: Map, result: SlideResult | None) -> tuple[int, float, str]:
    if result is None:
        return 2, 0.0, one.slide
    return int(result.right), -result.confidence, one.slide


def _title(name: str, *, wrong: bool, n: int) -> str:
    if not name:
        return f"Not tested or without a label ({n})"
    return f"True class {name}, decided {'wrong' if wrong else 'right'} ({n})"


def _card(
    one: Map,
    known: Mapping[str, float],
    prefix: str,
    *,
    result: SlideResult | None = None,
    value: SlideValue | None = None,
) -> Card:
    ranks = {
        rank: tuple((t, picture(t.image, TILE_PX)) for t in [t for t in one.tiles if t.rank == rank][:_TILES])
        for rank in ("top", "bottom")
    }
    return Card(
        one.slide,
        result,
        value,
        one.kind,
        f"{prefix}{one.target}" if one.target else "",
        known.get(one.slide),
        picture(one.image, MAP_PX),
        ranks["top"],
        ranks["bottom"],
    )


def localisation(run: RunContents) -> dict[str, Any] | None:
    """How well the maps find regions that are known: its sentence, and its figures as rows of (name, value, 95 %)."""
    block = run.metric("localisation")
    if not isinstance(block, Mapping):
        return None
    rows = []
    for key, value in block.items():
        if isinstance(value, Mapping) and "value" in value:
            rows.append((metric_label(key), number(value["value"]), span(value) if has_interval(value) else ""))
        elif is_number(value):
            rows.append((metric_label(key), number(value, 0 if isinstance(value, int) else 2), ""))
    text = block.get("text")
    return {"text": str(text or "").rstrip("."), "rows": rows, "level": str(block.get("level") or "tile")}


def _build(run: RunContents) -> dict[str, Any] | Absent:
    found, hidden = groups(run)
    if not found:
        return Absent(
            'There are no maps: heatmaps.slides was "none", no slide could be opened (training from features alone), '
            "or the run stopped before they were drawn."
        )
    kinds = sorted({one.kind for one in run.maps if one.kind})
    return {
        "groups": found,
        "hidden": hidden,
        "meanings": [_MEANING.get(kind, f"Colour is “{kind}”.") for kind in kinds],
        "localisation": localisation(run),
        "count": plural(len(run.maps), "slide"),
    }


SECTION = Section("heatmaps", 80, "Heatmaps", Path(__file__).with_suffix(".html"), _build)
