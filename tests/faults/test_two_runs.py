"""Two runs on one store at once: both finish, and every slide is embedded once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd


def test_two_runs_at_once_share_the_work_and_give_the_files_of_one(fresh: Path, coverslip: Callable[..., Any]) -> None:
    assert coverslip("embed", fresh / "study.toml", "--set", "features.store=alone").code == 0
    script = "import sys; from coverslip.cli.main import main; sys.stdin.read(1); main(sys.argv[1:])"
    options = ("embed", str(fresh / "study.toml"), "--set", "features.store=shared", "--set")
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, *options, f"output=run{number}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
        )
        for number in (1, 2)
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("g")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(said)
    alone, shared = (
        {path.name: path.read_bytes() for path in (fresh / name).iterdir()} for name in ("alone", "shared")
    )
    assert alone == shared
    outcomes = pd.concat([pd.read_csv(fresh / f"run{number}" / "outcomes.csv") for number in (1, 2)])
    assert outcomes[outcomes.status == "done"].slide.value_counts().to_dict() == {f"case-0{i}": 1 for i in range(1, 5)}
    assert set(outcomes.status) <= {"done", "reused"}
