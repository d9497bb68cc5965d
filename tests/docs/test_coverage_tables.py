"""The tables of coverage are those that the kept figures make."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_tables_of_coverage_are_what_the_kept_figures_make() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "coverage_tables.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
