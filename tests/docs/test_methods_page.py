"""The page of methods names every method, and the options that each has with their defaults."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coverslip.base.registry import AGGREGATORS

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
OPTIONS = PAGE[PAGE.index("## Options") : PAGE.index("## Other ways to pool")]
# Described in a section of their own.
PARTS = {"weights", "pooling", "rank", "groups"}


@pytest.mark.parametrize("name", AGGREGATORS.names())
def test_the_page_has_the_options_of_every_method(name: str) -> None:
    row = next(line for line in OPTIONS.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1])
    told = dict(re.findall(r"`(\w+)`(?: \(([^)]*)\))?", row.split("|")[2]))
    parameters = inspect.signature(AGGREGATORS.load(name)).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert set(told) - PARTS == set(options) - PARTS
    for option, default in told.items():
        if default and option not in PARTS:
            assert written(options[option]) == default.split(",")[0], option


def written(value: object) -> str:
    """A default as the page writes it: .25 and not 0.25, true and not True."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"^0\.", ".", re.sub(r"\.0$", "", text))


def test_the_measured_page_is_what_the_kept_figures_make() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "mil_tables.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
