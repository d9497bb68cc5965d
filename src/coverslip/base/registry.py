"""What can be chosen by name: readers, tissue methods, encoders, aggregators, augments, tasks, explainers, engines.

A plug-in is a file in its kind's folder with a literal table at the top:

    ENTRIES = {"abmil": {"build": "Abmil", "summary": "...", "origin": "...", "licence": "Apache-2.0", "needs": ""}}

The table is read from the source text, so listing names costs no import (torch alone takes seconds). Other packages add
theirs through the entry points `coverslip.<kind>`. To add a method, add a file; nothing else is edited.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from coverslip.base.errors import SettingsError

_ROOT = Path(__file__).resolve().parents[1]
_FIELDS = frozenset({"build", "summary", "origin", "licence", "needs"})

# A list of accepted names that is longer than the first is cut to the second: a cohort may have thousands of slides.
_MOST_NAMED, _FEW_NAMED = 40, 5


@dataclass(frozen=True)
class Entry:
    """One choosable name. `module` and `build` say where it is made; the rest is for people."""

    name: str
    module: str
    build: str
    summary: str = ""
    origin: str = ""
    licence: str = ""
    needs: str = ""


class Registry:
    """The plug-ins of one kind, found by scanning `package`'s folder and the entry points `coverslip.<kind>`."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package

    @cached_property
    def entries(self) -> dict[str, Entry]:
        folder = _ROOT.joinpath(*self.package.split(".")[1:])
        found: dict[str, Entry] = {}
        for path in sorted(folder.glob("*.py")):
            for name, fields in _read_table(path).items():
                assert name not in found, f"{self.kind} {name!r} is defined twice"
                found[name] = Entry(name, f"{self.package}.{path.stem}", **fields)
        for point in entry_points(group=f"coverslip.{self.kind}"):
            if point.name in found:
                raise SettingsError(
                    f"{self.kind}: the package {_origin(point)} adds {point.name!r}, which exists already.",
                    fix="Rename or uninstall it.",
                )
            found[point.name] = Entry(point.name, point.module, point.attr, summary="plug-in", origin=_origin(point))
        return found

    def names(self) -> list[str]:
        return sorted(self.entries)

    def entry(self, name: str) -> Entry:
        """The entry of that name; `timm:<arch>` style names look up the part before the colon with the colon kept."""
        for candidate in (name, name.partition(":")[0] + ":" if ":" in name else name):
            if candidate in self.entries:
                return self.entries[candidate]
        raise SettingsError(f"There is no {self.kind.rstrip('s')} {name!r}.", fix=suggest(name, self.names()))

    def load(self, name: str) -> Any:
        """The class or function behind the name; imports its module, and torch with it where it needs torch."""
        entry = self.entry(name)
        return getattr(importlib.import_module(entry.module), entry.build)


def suggest(name: str, accepted: list[str]) -> str:
    """ "Did you mean ...?" where something is near, and what is accepted."""
    near = difflib.get_close_matches(name, accepted, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    if len(accepted) > _MOST_NAMED:
        some = ", ".join(sorted(accepted)[:_FEW_NAMED])
        return f"{hint}Accepted: {some} and {len(accepted) - _FEW_NAMED} more."
    return f"{hint}Accepted: {', '.join(accepted)}."


def _read_table(path: Path) -> dict[str, dict[str, str]]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "ENTRIES":
            assert isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            table: dict[str, dict[str, str]] = ast.literal_eval(node.value)
            for name, fields in table.items():
                unknown = set(fields) - _FIELDS
                assert not unknown, f"{path}: {name} has unknown fields {sorted(unknown)}"
            return table
    return {}


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module


READERS = Registry("readers", "coverslip.slide.readers")
TISSUE = Registry("tissue", "coverslip.tissue.methods")
ENCODERS = Registry("encoders", "coverslip.encoders.zoo")
AGGREGATORS = Registry("aggregators", "coverslip.mil.methods")
AUGMENTS = Registry("augments", "coverslip.mil.augment")
TASKS = Registry("tasks", "coverslip.mil.tasks")
EXPLAINERS = Registry("explainers", "coverslip.explainers.methods")
ENGINES = Registry("engines", "coverslip.recipes.engines")

REGISTRIES = {r.kind: r for r in (ENCODERS, AGGREGATORS, AUGMENTS, READERS, TISSUE, TASKS, EXPLAINERS, ENGINES)}
