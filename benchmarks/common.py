"""What every benchmark prints beside its figures: on what machine they were measured, and as a markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from coverslip import __version__
from coverslip.store import describe_environment


def machine() -> str:
    """The hardware and the versions in one line."""
    found = describe_environment(now=datetime.now(UTC), seeds={}, digests={})
    hardware, packages = found["hardware"], found["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("numpy", "torch", "scikit-learn") if name in packages)
    return (
        f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gb']:.0f} GB; "
        f"Coverslip {__version__}, Python {found['python']}, {versions}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
