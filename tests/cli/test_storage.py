"""Disks that are full or may not be written: one message that names the path, exit code 2, and nothing lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

# In a process of its own: no file may grow over so many bytes, which is what a full disk looks like to a program.
_LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from coverslip.cli.main import main
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
main(sys.argv[2:])
"""


def _limited(limit: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _LIMITED, str(limit), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def _errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error")]


@pytest.mark.skipif(sys.platform == "darwin", reason="RLIMIT_FSIZE is not kept on macOS")
def test_a_disk_that_fills_up_while_embedding_loses_nothing(cohort: Path, coverslip: Callable[..., Any]) -> None:
    study, options = cohort / "study.toml", ("--set", "features.store=again", "--set", "output=out")
    sizes = {path.stem: path.stat().st_size for path in (cohort / "features").iterdir()}
    largest = max(sizes, key=lambda slide: sizes[slide])
    assert sorted(sizes).index(largest) > 0
    done = _limited(sizes[largest] - 1, "embed", study, *options)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (error,) = _errors(done.stderr)
    assert "No space left while writing" in error and "again" in error
    assert "Free some space" in error
    finished = {path.stem: path.stat().st_mtime_ns for path in (cohort / "again").glob("*.h5")}
    assert finished
    assert not list((cohort / "again").glob("*.part"))
    assert coverslip("embed", study, *options).code == 0
    for path in (cohort / "again").iterdir():
        assert finished.get(path.stem, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
        with h5py.File(path) as one, h5py.File(cohort / "features" / path.name) as other:
            np.testing.assert_array_equal(one["features"][()], other["features"][()])


@pytest.mark.skipif(sys.platform == "darwin", reason="RLIMIT_FSIZE is not kept on macOS")
@pytest.mark.parametrize(
    "limit",
    [
        pytest.param(100, id="the settings"),
        pytest.param(1_300, id="the folds, and then the log"),
        pytest.param(50_000, id="the first model"),
    ],
)
def test_a_disk_that_fills_up_while_training_loses_nothing(
    limit: int, cohort: Path, coverslip: Callable[..., Any]
) -> None:
    (cohort / "run").mkdir()
    (cohort / "run" / "run.log").write_text("x" * (limit - 1))  # so that the log cannot grow either
    done = _limited(limit, "train", cohort / "study.toml")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "Logging error" not in done.stderr, done.stderr
    (error,) = _errors(done.stderr)
    assert f"No space left while writing {cohort / 'run'}" in error
    assert not (cohort / "run" / "metrics.json").exists()
    assert coverslip("train", cohort / "study.toml").code == 0


@pytest.mark.skipif(sys.platform == "darwin", reason="RLIMIT_FSIZE is not kept on macOS")
def test_a_disk_that_fills_up_under_the_report_leaves_no_half_page(finished: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = _limited(20_000, "report", finished / "run", "--out", page)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (error,) = _errors(done.stderr)
    assert f"No space left while writing {page}" in error
    assert not list(tmp_path.iterdir())


@pytest.fixture
def read_only(cohort: Path) -> Iterator[Path]:
    """A folder that cannot be written; for root, whom permissions do not stop, made so by the system's own answer."""
    folder = cohort / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    yield folder
    folder.chmod(0o755)


@pytest.mark.parametrize("command", ["run", "train", "embed"])
def test_a_folder_that_may_not_be_written_is_named(
    command: str, cohort: Path, read_only: Path, coverslip: Callable[..., Any]
) -> None:
    said = coverslip(command, cohort / "study.toml", "--set", "output=closed/run")
    assert said.code == 2
    assert f"{read_only / 'run'} cannot be written: Permission denied. Choose a folder you may write to." in said.err


@pytest.mark.parametrize("command", ["run", "train", "embed", "predict", "report", "heatmap", "convert"])
def test_a_read_only_disk_is_named(
    command: str, finished: Path, cohort: Path, coverslip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a read-only mount answers, whoever asks: nothing can be made below `closed`."""
    closed = cohort / "closed"

    def refuse(real: Callable[..., Any]) -> Callable[..., Any]:
        def maker(path: Any, *arguments: Any, **options: Any) -> Any:
            if Path(os.fsdecode(path)).is_relative_to(closed):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
            return real(path, *arguments, **options)

        return maker

    monkeypatch.setattr(os, "mkdir", refuse(os.mkdir))
    run, study = finished / "run", cohort / "study.toml"
    arguments: dict[str, tuple[object, ...]] = {
        "run": (study, "--set", "output=closed/run"),
        "train": (study, "--set", "output=closed/run"),
        "embed": (study, "--set", "features.store=closed/store"),
        "predict": (run, cohort / "cohort.csv", "--features", cohort / "features", "--out", closed / "out"),
        "report": (run, "--out", closed / "report.html"),
        "heatmap": (run, "case-01", "--out", closed / "maps"),
        "convert": ("features", cohort / "features", closed / "out", "--to", "clam"),
    }
    said = coverslip(command, *arguments[command])
    assert said.code == 2, said.err
    (error,) = _errors(said.err)
    assert str(closed) in error
    assert "cannot be written: Read-only file system. Choose a folder you may write to." in error
