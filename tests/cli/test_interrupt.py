"""Ctrl-C in the middle: 130, what is finished stays, and the same command ends with what an undisturbed run gives."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest


def _start(*arguments: object) -> subprocess.Popen[str]:
    script = "import sys; from coverslip.cli.main import main; main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _interrupt_after(line: str, process: subprocess.Popen[str]) -> tuple[int, str]:
    """Ctrl-C once standard error says `line`; the exit code and all that was said."""
    assert process.stderr is not None
    said = ""
    for text in process.stderr:
        said += text
        if line in text:
            process.send_signal(signal.SIGINT)
            break
    rest = process.communicate(timeout=120)[1]
    return process.returncode, said + rest


def _features(store: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in sorted(store.glob("*.h5")):
        with h5py.File(path) as file:
            found[path.name] = file["features"][()]
    return found


def test_embedding_goes_on_after_ctrl_c(cohort: Path, coverslip: Callable[..., Any]) -> None:
    # A batch of two tiles makes the slides slow enough to be caught in the middle.
    options = ("--set", "features.store=again", "--set", "encoder.batch=2", "--set", "output=again-run")
    code, said = _interrupt_after("embed: 3/12", _start("embed", cohort / "study.toml", *options))
    assert code == 130, said
    assert "Interrupted. What is finished is kept: the same command goes on from there." in said
    assert "Traceback" not in said
    finished = sorted((cohort / "again").glob("*.h5"))
    assert 3 <= len(finished) < 12
    times = {path: path.stat().st_mtime_ns for path in finished}
    said_again = coverslip("embed", cohort / "study.toml", *options)
    assert said_again.code == 0, said_again.err
    assert all(path.stat().st_mtime_ns == before for path, before in times.items())
    assert sorted(path.suffix for path in (cohort / "again").iterdir()) == [".h5"] * 12
    undisturbed, resumed = _features(cohort / "features"), _features(cohort / "again")
    assert list(undisturbed) == list(resumed)
    for name, rows in undisturbed.items():
        np.testing.assert_array_equal(rows, resumed[name])


def test_training_goes_on_after_ctrl_c(cohort: Path, coverslip: Callable[..., Any]) -> None:
    options = ("--set", "fit.epochs=25", "--set", "fit.patience=25", "--set", "split.folds=4")
    code, said = _interrupt_after("train: 1/4", _start("train", cohort / "study.toml", *options))
    assert code == 130, said
    assert "Interrupted." in said and "Traceback" not in said
    assert not (cohort / "run" / "metrics.json").exists()
    assert (cohort / "run" / "models" / "fold0" / "weights.safetensors").is_file()
    assert coverslip("train", cohort / "study.toml", *options).code == 0
    assert "fold0 reused" in (cohort / "run" / "run.log").read_text()
    assert coverslip("train", cohort / "study.toml", *options, "--set", "output=undisturbed").code == 0
    for path in sorted((cohort / "undisturbed" / "models").rglob("*.safetensors")):
        resumed = cohort / "run" / path.relative_to(cohort / "undisturbed")
        assert resumed.read_bytes() == path.read_bytes()
    ours, theirs = ((cohort / name / "predictions.csv").read_bytes() for name in ("run", "undisturbed"))
    assert ours == theirs


@pytest.mark.slow
def test_a_kill_loses_no_finished_slide(cohort: Path, coverslip: Callable[..., Any]) -> None:
    options = ("--set", "features.store=again", "--set", "encoder.batch=2")
    process = _start("embed", cohort / "study.toml", *options)
    assert process.stderr is not None
    for text in process.stderr:
        if "embed: 2/12" in text:
            time.sleep(0.03)
            process.kill()
            break
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert len(list((cohort / "again").glob("*.h5"))) >= 2
    assert coverslip("embed", cohort / "study.toml", *options).code == 0
    undisturbed, resumed = _features(cohort / "features"), _features(cohort / "again")
    for name, rows in undisturbed.items():
        np.testing.assert_array_equal(rows, resumed[name])
    assert not [path for path in (cohort / "again").iterdir() if path.suffix != ".h5"]
