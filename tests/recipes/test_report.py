from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_a_pseudonymised_report_names_no_one(finished: Path, tmp_path: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("report", finished / "run", "--out", tmp_path / "r.html", "--pseudonymise", "--title", "Shared")
    assert said.code == 0
    assert said.out.strip() == str(tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    assert "Shared" in html
    text = re.sub(r"data:[^\"')]+", "", html)  # pictures are base64
    for secret in ("case-01", "case-13", "patient-01", str(finished), finished.name):
        assert secret not in text


def test_two_runs_are_compared(finished: Path, tmp_path: Path, coverslip: Callable[..., Any]) -> None:
    shutil.copytree(finished / "run", tmp_path / "other")
    said = coverslip("report", finished / "run", tmp_path / "other", "--out", tmp_path / "both.html")
    assert said.code == 0
    html = (tmp_path / "both.html").read_text()
    assert 'id="run-1"' in html and 'id="run-2"' in html and 'id="comparison"' in html
