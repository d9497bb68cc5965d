"""The sections of a report, one a file. To add one, add a file with a `SECTION` and its template beside it.

`place` orders the sections. A section that has nothing to show for a run gives an `Absent` that says why, so that a
reader never wonders whether something was forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.base.registry import Registry
from coverslip.report.contents import RunContents

SECTIONS = Registry("sections", "coverslip.report.sections")


@dataclass(frozen=True)
class Absent:
    """Why a section has nothing to show."""

    reason: str


@dataclass(frozen=True)
class Section:
    """One section: `build` turns a run into the names its template shows, or says why there is nothing."""

    name: str
    place: int
    title: str
    template: Path
    build: Callable[[RunContents], dict[str, Any] | Absent]


def all_sections() -> list[Section]:
    """Every section in the order of the page."""
    return sorted((SECTIONS.load(name) for name in SECTIONS.names()), key=lambda section: section.place)
