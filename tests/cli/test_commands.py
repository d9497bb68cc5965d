from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coverslip import __version__
from coverslip.base.registry import REGISTRIES

COMMANDS = (
    "demo",
    "check",
    "run",
    "embed",
    "status",
    "train",
    "compare",
    "predict",
    "heatmap",
    "report",
    "list",
    "convert",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, coverslip: Callable[..., Any]) -> None:
    said = coverslip(command, "--help")
    assert said.code == 0
    assert f"coverslip {command}" in said.out


def test_help_names_every_command_and_the_exit_codes(coverslip: Callable[..., Any]) -> None:
    said = coverslip("--help")
    assert said.code == 0
    for command in COMMANDS:
        assert f" {command} " in said.out
    assert "130 interrupted" in " ".join(said.out.split())


def test_the_version_is_told(coverslip: Callable[..., Any]) -> None:
    assert coverslip("--version").out.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["trian"], "trian"),
        (["check"], "PATH"),
        (["check", "--jobs", "x", "."], "--jobs"),
        (["train", "study.toml", "--nope"], "--nope"),
    ],
)
def test_a_wrong_command_line_is_one_message(arguments: list[str], named: str, coverslip: Callable[..., Any]) -> None:
    said = coverslip(*arguments)
    assert said.code == 2
    assert named in said.err


@pytest.mark.parametrize("kind", list(REGISTRIES))
def test_list_prints_one_plain_line_an_entry(kind: str, coverslip: Callable[..., Any]) -> None:
    said = coverslip("list", kind)
    assert said.code == 0
    lines = said.out.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(REGISTRIES[kind].names())
    for line in lines:
        name, summary, origin, licence, _needs = line.split("\t")
        assert name and summary and origin and licence
        assert "\x1b" not in line


def test_list_of_an_unknown_kind_gives_the_nearest(coverslip: Callable[..., Any]) -> None:
    said = coverslip("list", "encodrs")
    assert said.code == 2
    assert "Did you mean 'encoders'?" in said.err


def test_commands_that_only_look_import_no_torch(finished: Path) -> None:
    # One fresh interpreter for all of them: none may have loaded torch by the end.
    script = f"""
import sys
from coverslip.cli.main import run
study, slides = {str(finished / "study.toml")!r}, {str(finished / "slides" / "case-01.tif")!r}
for arguments in (["--help"], ["status", study], ["list", "encoders"], ["list", "aggregators"], ["check", slides],
                  ["report", {str(finished / "run")!r}, "--out", {str(finished / "again.html")!r}]):
    code = run(arguments)
    assert code == 0, (arguments, code)
    heavy = {{"torch", "timm", "lightning_fabric", "transformers"}} & set(sys.modules)
    assert not heavy, (arguments, heavy)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_and_lists_import_no_tables_either() -> None:
    script = """
import sys
from coverslip.cli.main import run
for arguments in (["--help"], ["train", "--help"], ["list", "aggregators"]):
    assert run(arguments) == 0, arguments
    heavy = {"torch", "pandas", "scipy", "sklearn", "jinja2"} & set(sys.modules)
    assert not heavy, (arguments, heavy)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_check_gives_json_on_stdout_and_progress_on_stderr(finished: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("check", finished / "slides", "--json")
    assert said.code == 1
    report = json.loads(said.out)
    assert report["format"] == "coverslip.check/1"
    verdicts = {slide["slide"]: slide["verdict"] for slide in report["slides"]}
    assert len(verdicts) == 13
    assert [slide for slide, verdict in verdicts.items() if verdict == "fail"] == ["case-13"]
    for slide in report["slides"]:
        for key in ("path", "reasons", "vendor", "reader", "size", "mpp", "levels", "digest"):
            assert key in slide
        for reason in slide["reasons"]:
            assert set(reason) == {"code", "message", "fix"}
    assert said.err.count("\n") == 13  # one line a slide where there is no terminal
    assert "13/13 slide" in said.err


def test_check_of_good_slides_ends_with_0(finished: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("check", finished / "slides" / "case-01.tif", "--table", finished / "cohort.csv")
    assert said.code == 0
    assert "1 slide: 1 ok" in said.out


@pytest.mark.parametrize("where", ["nothing-here", "truth"])
def test_check_of_a_place_without_slides_is_refused(where: str, finished: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("check", finished / where)
    assert said.code == 2
    assert str(finished / where) in said.err
    assert "Give slides" in said.err


def test_status_counts_what_is_done_failed_and_missing(
    finished: Path, cohort: Path, coverslip: Callable[..., Any]
) -> None:
    said = coverslip("status", finished / "study.toml")
    assert said.code == 0
    stages = {line.split()[0]: " ".join(line.split()[1:]) for line in said.out.splitlines()}
    assert stages["check"] == "done 13 failed 1 missing 0"
    assert stages["embed"] == "done 12 running 0 failed 1 missing 0"
    assert stages["train"] == "done 3 missing 0"
    assert stages["heatmaps"] == "done 2"
    assert stages["report"] == "done 1 missing 0"
    assert "truncated" in stages["case-13:"]
    # Before anything ran, everything is missing, and asking makes nothing.
    said = coverslip("status", cohort / "study.toml", "--set", "features.store=elsewhere")
    assert "embed      done 0  running 0  failed 0  missing 12" in said.out
    assert not (cohort / "run").exists() and not (cohort / "elsewhere").exists()


def test_errors_show_no_traceback_but_with_verbose(cohort: Path) -> None:
    command = [sys.executable, "-m", "coverslip.cli.main", "status", str(cohort / "gone.toml")]
    script = f"import sys; from coverslip.cli.main import main; main({command[3:]!r} + sys.argv[1:])"
    quiet = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert quiet.returncode == 2
    assert quiet.stderr.splitlines() == [
        f"error There is no settings file {cohort / 'gone.toml'}. Give the path of a study's TOML file."
    ]
    told = subprocess.run([sys.executable, "-c", script, "--verbose"], capture_output=True, text=True)
    assert told.returncode == 2
    assert "Traceback" in told.stderr


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "coverslip", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and __version__ in done.stdout
