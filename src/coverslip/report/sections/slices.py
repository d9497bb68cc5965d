"""Where the model fails: groups that look alike or share a covariate, with more errors than chance gives any group."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from coverslip.eval.slices import worth_a_look
from coverslip.report.contents import RunContents, TilePicture, dig
from coverslip.report.pictures import TILE_PX, Picture, picture
from coverslip.report.sections import Absent, Section
from coverslip.report.sections.shortcuts import NOT_ASKED

ENTRIES = {"slices": {"build": "SECTION", "summary": "Groups in which the errors gather"}}

_TILES = 12


def _build(run: RunContents) -> dict[str, Any] | Absent:
    if run.audit is None:
        return Absent(NOT_ASKED)
    found = dig(run.audit, "slices") or {}
    rows = [one for one in found.get("slices") or [] if isinstance(one, dict)]
    if not rows:
        return Absent(str(found.get("reason") or "No group has more errors than the others."))
    tiles_of = {**{one.slide: [t for t in one.tiles if t.rank == "top"] for one in run.maps}, **run.slices}
    opened = worth_a_look(found)
    shown = []
    for row in rows:
        slides = [str(slide) for slide in row.get("slides") or []]
        pictures = _examples([tiles_of.get(slide, ()) for slide in slides]) if row in opened else []
        shown.append({**row, "slides": slides, "pictures": pictures})
    return {
        "findings": [row for row in shown if row.get("finding")],
        "others": [row for row in shown if not row.get("finding")],
        "looked_at": found.get("looked_at"),
        "error": found.get("error"),
        "is_shrunk": any(row.get("shrunk") for row in rows),
        "has_pictures": any(row["pictures"] for row in shown),
    }


def _examples(by_slide: list[Sequence[TilePicture]]) -> list[Picture]:
    """Some tiles, slide by slide in turn, so that none speaks for all."""
    turns = (tile for tiles in zip_longest(*by_slide) for tile in tiles if tile is not None)
    made = (picture(tile.image, TILE_PX) for tile in turns)
    return list(islice((one for one in made if one is not None), _TILES))


SECTION = Section("slices", 76, "Where the errors are", Path(__file__).with_suffix(".html"), _build)
