"""What every page is made with: the templates, how they write numbers, and the style that is in each file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, Undefined, select_autoescape
from markupsafe import Markup

from coverslip._version import __version__
from coverslip.report import wording

_TEMPLATES = Path(__file__).with_name("templates")


def frame() -> dict[str, Any]:
    """What the head and the foot of a page say."""
    style = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    return {
        # The style is ours and its hash is all that the content policy lets in; nothing else can add one.
        "style": Markup(style),
        "style_hash": _hash(style),
        "version": __version__,
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    }


def environment() -> Environment:
    """Jinja with escaping always on: names, reasons and settings come from the user's files."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=_Missing,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=wording.number,
        count=wording.count,
        score=wording.score,
        # Under a heading that says "p" already.
        p=lambda value: wording.p_value(value).removeprefix("p "),
        percent=wording.percent,
        span=wording.span,
        listing=wording.listing,
        metric_label=wording.metric_label,
        plain=_plain,
    )
    return made


class _Missing(Undefined):
    """A key that a user's JSON lacks may be tested and defaulted; printing one is an error, as is a misspelt name."""

    __str__ = Undefined._fail_with_undefined_error


def _plain(value: Any) -> str:
    """A setting or a fact as people write it."""
    if value is None or value == "":
        return wording.ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or wording.ABSENT
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_plain(inner)}" for key, inner in value.items()) or wording.ABSENT
    return str(value)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
