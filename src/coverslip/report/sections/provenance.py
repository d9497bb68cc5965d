"""What it takes to repeat the run: resolved settings, versions, hardware, digests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverslip.base.settings import dump_toml
from coverslip.report.contents import RunContents, dig
from coverslip.report.sections import Absent, Section

ENTRIES = {"provenance": {"build": "SECTION", "summary": "Settings, versions, hardware, digests"}}


# For programs, not for people.
_OURS = frozenset({"format", "pseudonymise"})


def tables(value: Mapping[str, Any], title: str = "Run") -> list[tuple[str, list[tuple[str, Any]]]]:
    """Nested facts as flat tables: plain values first, then a table for each group, named by its way."""
    plain = [(str(key), _line(inner)) for key, inner in value.items() if not isinstance(inner, Mapping)]
    found = [(title, plain)] if plain else []
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            found += tables(inner, str(key).replace("_", " ") if title == "Run" else f"{title} · {key}")
    return found


def _line(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _build(run: RunContents) -> dict[str, Any] | Absent:
    if run.settings is None and run.environment is None:
        return Absent(
            "Neither settings.toml nor environment.json is there: this run cannot be repeated from what it left behind."
        )
    facts = {key: value for key, value in (run.environment or {}).items() if key not in _OURS}
    for number, one in enumerate(run.embedding, start=1):
        name = "embedding" if len(run.embedding) == 1 else f"embedding {number}"
        facts[name] = {key: value for key, value in one.items() if key not in ("format", "skipped")}
    return {
        "settings": dump_toml(run.settings) if run.settings is not None else None,
        "tables": tables(facts),
        "split_digest": dig(run.split, "digest"),
        "no_environment": run.environment is None,
    }


SECTION = Section("provenance", 110, "Settings and versions", Path(__file__).with_suffix(".html"), _build)
