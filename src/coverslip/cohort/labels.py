"""How values become class names, and in which order classes and files stand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from coverslip.cohort.table import NUMBER


def label_text(value: Any) -> str:
    """A value as the name of a class: whole numbers without a point (1.0 is "1"), everything else as it prints."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def natural_order(names: Iterable[str]) -> list[str]:
    """The names as people sort them: numbers by value ("2" before "10"), then text whatever its case."""
    names = list(names)
    if all(NUMBER.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (float(name), name))
    return sorted(names, key=natural_key)


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Sorts "splits_2.csv" before "splits_10.csv"."""
    parts = re.split(r"(\d+)", name.casefold())
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), name
