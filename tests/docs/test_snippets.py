"""Every snippet of the README and of the docs runs, in the order of its page, in a folder with a small cohort.

Fences marked `python` and `bash` run; others do not. A `toml` fence that begins with a comment of a file name
(`# study.toml`) is written to that file. In `bash` fences the lines that install or build (`pip`,
`make`, `git`, `cd`) are what a reader has done already, and are left out; `|| true` in a page means a failure is meant.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coverslip.synthetic import make_cohort

_ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_DONE_ALREADY = ("pip ", "python -m pip", "python3 -m", "make ", "git ", "cd ", "source ", "sbatch ", "#")
_PAGES = sorted([_ROOT / "README.md", *(_ROOT / "docs").rglob("*.md")])


def _snippets(page: Path) -> list[tuple[str, str]]:
    return [
        (m[1], m[2]) for m in _FENCE.finditer(page.read_text(encoding="utf-8")) if m[1] in {"python", "bash", "toml"}
    ]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    make_cohort(folder, slides=12, damaged=0, side_px=1024, seed=0)
    return folder


@pytest.mark.parametrize("page", [p for p in _PAGES if _snippets(p)], ids=lambda p: str(p.relative_to(_ROOT)))
def test_the_snippets_of_a_page_run(page: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for item in cohort.iterdir():
        (tmp_path / item.name).symlink_to(item)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    names: dict[str, object] = {"__name__": "__main__"}
    for kind, text in _snippets(page):
        if kind == "toml":
            if name := re.match(r"#\s*(\S+\.toml)\b", text):
                Path(name[1]).write_text(text, encoding="utf-8")
        elif kind == "python":
            # One namespace a page, as a reader types them one after another.
            exec(compile(text, str(page), "exec"), names)  # noqa: S102
        else:
            command = ["bash", "-euo", "pipefail", "-c", _runnable(text)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{text}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"


def _runnable(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.strip().startswith(_DONE_ALREADY))


def test_there_are_snippets_to_run() -> None:
    assert any(_snippets(p) for p in _PAGES)
