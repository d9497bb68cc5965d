"""`kill -9` at any moment: the next run ends with the files of an undisturbed one, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MOMENTS = 30
SLIDES = [f"case-0{number}.h5" for number in range(1, 5)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_is_killed_at_any_moment_is_gone_on_with_to_equal_files(fresh: Path) -> None:
    script = Path(__file__).with_name("killed.py")
    done = subprocess.run(
        [sys.executable, str(script), str(fresh / "study.toml"), str(MOMENTS), "0"],
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kills) == MOMENTS
    # The kills say something: some of them hit slides in the middle.
    assert sum(kill["begun"] > 0 for kill in kills) >= 3
    for kill in kills:
        assert not kill["half"], f"a half file passes for whole: {kill}"
        assert kill["code"] == 0, f"the next run fails: {kill}"
        assert kill["names"] == SLIDES, f"locks or half files are left: {kill}"
        assert kill["equal"], f"other files than an undisturbed run's: {kill}"
        assert not kill["parts"], f"half files are left in the run's folder: {kill}"
