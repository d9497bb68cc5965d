"""Where the model fails: groups that look alike or share a covariate, with more errors than chance gives any group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coverslip.report.contents import RunContents, dig
from coverslip.report.pictures import TILE_PX, picture
from coverslip.report.sections import Absent, Section
from coverslip.report.sections.shortcuts import NOT_ASKED

ENTRIES = {"slices": {"build": "SECTION", "summary": "Groups in which the errors gather"}}

_TILES = 6


def _build(run: RunContents) -> dict[str, Any] | Absent:
    if run.audit is None:
        return Absent(NOT_ASKED)
    found = dig(run.audit, "slices") or {}
    rows = [one for one in found.get("slices") or [] if isinstance(one, dict)]
    if not rows:
        return Absent(str(found.get("reason") or "No group has more errors than the others."))
    maps = {one.slide: one for one in run.maps}
    shown = []
    for row in rows:
        slides = [str(slide) for slide in row.get("slides") or []]
        tiles = [tile for slide in slides if slide in maps for tile in maps[slide].tiles if tile.rank == "top"]
        pictures = [picture(tile.image, TILE_PX) for tile in tiles[:_TILES]] if row.get("finding") else []
        shown.append({**row, "slides": slides, "pictures": [one for one in pictures if one is not None]})
    return {"rows": shown, "looked_at": found.get("looked_at"), "error": found.get("error")}


SECTION = Section("slices", 76, "Where the errors are", Path(__file__).with_suffix(".html"), _build)
