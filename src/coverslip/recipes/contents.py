"""What a cohort's slides are known by: gathered at the end of training, and of a new cohort when it is predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from coverslip.audit import Content, Sketch, read_contents, sketch, sketch_digest
from coverslip.base.files import read_json
from coverslip.preflight import SlideReport
from coverslip.store import Features, Run


def contents_of(
    features: Mapping[str, Features], sketches: Mapping[str, Sketch], check: Mapping[str, Any]
) -> dict[str, Content]:
    """What is known of each slide: from its features and, where slides were opened, from a check report."""
    seen = {entry["slide"]: SlideReport.from_json(entry) for entry in check.get("slides", ())}
    made = {}
    for slide, one in features.items():
        looked = _looked_at(seen[slide]) if slide in seen else Content()
        image = one.identity.slide_fingerprint if one.identity is not None else looked.image
        made[slide] = replace(looked, image=image, features=sketch_digest(sketches[slide]))
    return made


def kept_contents(run: Run, features: Mapping[str, Features]) -> dict[str, Content]:
    """What a run knows of its slides. A run of before contents.json has what its check report and those `features`
    that still lie where it read them tell.

    Raises:
        StoreError: contents.json is of another format.
    """
    kept = read_contents(read_json(run.files.contents))
    if kept:
        return kept
    known = contents_of(features, sketches_of(features), run.check or {})
    seen = {entry["slide"]: entry for entry in (run.check or {}).get("slides", ())}
    for slide in run.split.patients:
        if slide not in known:
            known[slide] = _looked_at(SlideReport.from_json(seen[slide])) if slide in seen else Content()
    return known


def sketches_of(features: Mapping[str, Features]) -> dict[str, Sketch]:
    return {slide: sketch(one.x) for slide, one in features.items()}


def _looked_at(found: SlideReport) -> Content:
    size = None if found.size is None else (found.size.width, found.size.height)
    return Content(found.digest, found.thumbnail, size)
