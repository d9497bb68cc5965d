"""What a run keeps of its slides, so that a later cohort can be compared with them when files have gone: contents.json.

Per slide up to three things, each null where the run did not know it. `image` is the digest of the slide's file (of
samples, see `base.fingerprint`); `picture` its overview on a grid of 32 x 32 cells with `size` its pixels (level 0), by
which a slide that was saved again, scaled, turned or mirrored is known (`preflight.likeness`); `features` a digest of
its feature rows. What one side does not know is not compared, and is said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from coverslip.audit.twins import Sketch
from coverslip.base.errors import StoreError
from coverslip.base.geometry import Size
from coverslip.preflight.likeness import alike

FORMAT = "coverslip.contents/1"
KINDS = ("image", "picture", "features")
"""What can be compared: files by digest, pictures by their look, features by digest."""


@dataclass(frozen=True)
class Content:
    """What is known of one slide; None: not known."""

    image: str | None = None
    picture: str | None = None
    size: tuple[int, int] | None = None
    features: str | None = None


def contents_json(contents: Mapping[str, Content]) -> dict[str, Any]:
    """What contents.json holds."""
    return {"format": FORMAT, "slides": {slide: asdict(one) for slide, one in sorted(contents.items())}}


def read_contents(found: Mapping[str, Any]) -> dict[str, Content]:
    """The contents of a parsed contents.json; none of an empty one (a run that kept none).

    Raises:
        StoreError: another format.
    """
    if not found:
        return {}
    if found.get("format") != FORMAT:
        raise StoreError(
            f"contents.json has format {found.get('format')!r}; {FORMAT!r} is accepted.", fix="Update coverslip."
        )
    return {
        slide: Content(**{**one, "size": None if one["size"] is None else tuple(one["size"])})
        for slide, one in found["slides"].items()
    }


def sketch_digest(one: Sketch) -> str:
    """16 hex digits of a slide's sketch: equal for the same rows in the same order, whatever the slide is called."""
    rows = np.concatenate([one.mean[None], one.tiles]).astype("<f4")
    return hashlib.sha256(f"{rows.shape}".encode() + rows.tobytes()).hexdigest()[:16]


def shared_pictures(known: Mapping[str, Content], new: Mapping[str, Content]) -> tuple[tuple[str, str], ...]:
    """Pairs of a known and a new slide that show the same picture, turned and mirrored too; the same file is left to
    its digest."""
    mine, theirs = ([(s, c) for s, c in sorted(side.items()) if c.picture is not None] for side in (known, new))
    both = [*mine, *theirs]
    pairs = alike([c.picture for _, c in both], [None if c.size is None else Size(*c.size) for _, c in both])
    found = [(both[i], both[j]) for i, j, _ in pairs if i < len(mine) <= j]
    return tuple(sorted((a, b) for (a, one), (b, other) in found if one.image is None or one.image != other.image))


def not_compared(known: Mapping[str, Content], new: Mapping[str, Content]) -> dict[str, str]:
    """What could not be compared of the cohorts, by kind, each with how much of which side lacks."""
    reasons = {}
    for kind in KINDS:
        without = {
            side: (sum(getattr(one, kind) is None for one in slides.values()), len(slides))
            for side, slides in (("training", known), ("new", new))
        }
        lacking = [
            f"{number} of {total} {side} slides" for side, (number, total) in without.items() if number or not total
        ]
        if lacking:
            reasons[kind] = f"not known of {' and '.join(lacking)}"
    return reasons
