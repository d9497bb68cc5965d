from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def test_the_sizing_tables_are_what_the_script_makes_of_the_kept_rates() -> None:
    script = [sys.executable, "sizing.py", "--rates", "sizing.json"]
    made = subprocess.run(script, cwd=_ROOT / "benchmarks", capture_output=True, text=True, check=True).stdout.strip()
    page = (_ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert made
    assert made in page
