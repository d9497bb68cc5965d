"""What every test may use: the folder of real slides and features, where there is one, and a small finished study."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from coverslip.cli.main import run as run_command
from coverslip.synthetic import make_cohort
from small_study import QUICK_TRAINING, STUDY


@dataclass(frozen=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def say(*arguments: object) -> Said:
    """Runs a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command([str(argument) for argument in arguments])
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return Said(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder named by COVERSLIP_TEST_DATA; skips where it is absent."""
    folder = os.environ.get("COVERSLIP_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("COVERSLIP_TEST_DATA names no folder of real slides and features")
    return Path(folder)


@pytest.fixture(scope="session")
def coverslip() -> Callable[..., Said]:
    """Runs a command as the command line does: exit code, stdout, stderr; never a traceback."""
    return say


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `coverslip run study.toml` has ended: 12 slides of 512 px, of which "run" has learnt, and a
    damaged one, case-13. To be looked at only."""
    folder = tmp_path_factory.mktemp("finished")
    make_cohort(folder, slides=12, damaged=1, side_px=512)
    (folder / "study.toml").write_text(STUDY + QUICK_TRAINING)
    said = say("run", folder / "study.toml")
    assert said.code == 1, said.err
    return folder


@pytest.fixture
def cohort(finished: Path, tmp_path: Path) -> Path:
    """A folder of one's own with the slides, features and table of `finished`, without run and damaged slide."""
    folder = tmp_path / "cohort"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("run", "case-13*"))
    table = folder / "cohort.csv"
    rows = [row for row in table.read_text().splitlines() if "case-13" not in row]
    table.write_text("\n".join(rows) + "\n")
    return folder
