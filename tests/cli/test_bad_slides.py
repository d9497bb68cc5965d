"""Slides that cannot be used: each is named with what was found and the way out, and harms no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

from coverslip.synthetic import damage

# slide: (stage at which it fails, words of the reason)
BAD = {
    "cut": ("check", ["cut short", "Copy it again"]),
    "noise": ("check", ["No reader knows this file", "its first bytes are", "copy it again"]),
    "tile": ("check", ["do not decode", "(0, 256)", "Copy the slide again"]),
    "folder": ("check", ["folder.svs is a folder without a DICOM slide", "Give the slide's file"]),
    "text": ("check", ["it is text that begins 'this is no slide'", "Readers: "]),
    "empty": ("check", ["it is empty", "Readers: "]),
    "gone": ("check", ["There is no file", "gone.tif", "Check the path"]),
    "white": ("check", ["No tissue", "leave the slide out"]),
    "small": ("embed", ["50 × 50 px", "64 × 64", "Choose smaller tiles"]),
    "nompp": ("embed", ["No µm per pixel is known", "'mpp' column", "--set slides.mpp"]),
    "print": ("embed", ["72 dots per inch", "accepted is 0.05 to 20", "--set slides.mpp"]),
}
TWINS = {"twin": "case-03", "Fäll µ 1": "case-04"}


@dataclass(frozen=True)
class Bad:
    """A cohort of 8 good slides, two copies of good ones under other names, and every bad one; what a run said."""

    folder: Path
    said: Any
    outcomes: pd.DataFrame


@pytest.fixture(scope="module")
def bad(finished: Path, coverslip: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Bad:
    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(finished / "slides", folder / "slides", ignore=shutil.ignore_patterns("case-13*"))
    shutil.copytree(finished / "truth", folder / "truth")
    shutil.copy(finished / "study.toml", folder)
    slides = folder / "slides"
    _spoil(slides)
    table = pd.read_csv(finished / "cohort.csv").iloc[:8]
    names = [*BAD, *TWINS]
    suffix = {"folder": "svs", "text": "svs"}
    more = {
        "slide": names,
        "patient": [f"of {name}" for name in names],
        "path": [f"slides/{name}.{suffix.get(name, 'tif')}" for name in names],
        "lesion": [table.set_index("slide")["lesion"].get(TWINS.get(name, "case-01")) for name in names],
    }
    pd.concat([table, pd.DataFrame(more)]).to_csv(folder / "cohort.csv", index=False)
    said = _run(folder, coverslip)
    return Bad(folder, said, pd.read_csv(folder / "run" / "outcomes.csv").set_index(["slide", "stage"]))


def _spoil(slides: Path) -> None:
    for name, kind in (("cut", "truncate"), ("noise", "random_bytes"), ("tile", "tile")):
        shutil.copy(slides / "case-01.tif", slides / f"{name}.tif")
        damage(slides / f"{name}.tif", kind)
    (slides / "folder.svs").mkdir()
    (slides / "text.svs").write_text("this is no slide")
    (slides / "empty.tif").write_bytes(b"")
    half_um = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "photometric": "rgb"}
    pixels = tifffile.imread(slides / "case-02.tif", level=0)
    tifffile.imwrite(slides / "white.tif", np.full((512, 512, 3), 245, np.uint8), **half_um)
    tifffile.imwrite(slides / "small.tif", pixels[150:200, 150:200], **half_um)
    tifffile.imwrite(slides / "nompp.tif", pixels, photometric="rgb", resolution=(1, 1), resolutionunit="NONE")
    pixels = tifffile.imread(slides / "case-05.tif", level=0)
    tifffile.imwrite(slides / "print.tif", pixels, photometric="rgb", resolution=(72, 72), resolutionunit="INCH")
    for name, twin in TWINS.items():
        shutil.copy(slides / f"{twin}.tif", slides / f"{name}.tif")


def _run(folder: Path, coverslip: Callable[..., Any]) -> Any:
    return coverslip("run", folder / "study.toml", "--set", "heatmaps.slides=1", "--set", "fit.epochs=1")


@pytest.mark.parametrize("slide", list(BAD))
def test_a_bad_slide_is_named_with_its_reason_and_the_way_out(slide: str, bad: Bad) -> None:
    stage, words = BAD[slide]
    row = bad.outcomes.loc[(slide, stage)]
    assert row["status"] == "failed"
    line = next(line for line in bad.said.err.splitlines() if line.startswith(f"failed\t{slide}\t"))
    for word in words:
        assert word in row["reason"]
        assert word in line


def test_bad_slides_end_with_1_and_harm_no_other(bad: Bad) -> None:
    assert bad.said.code == 1
    assert f"{len(BAD)} failed; everything else is finished" in bad.said.err
    done = sorted(path.stem for path in (bad.folder / "features").iterdir())
    assert done == sorted([*TWINS, *(f"case-{number:02d}" for number in range(1, 9))])
    assert (bad.folder / "run" / "report.html").is_file()


def test_the_same_file_under_two_names_is_a_warning_of_the_check(bad: Bad) -> None:
    check = json.loads((bad.folder / "run" / "check.json").read_text())
    for slide, twin in TWINS.items():
        entry = next(one for one in check["slides"] if one["slide"] == slide)
        assert entry["verdict"] == "warn"
        reason = next(reason for reason in entry["reasons"] if reason["code"] == "duplicate_of")
        assert twin in reason["message"]


def test_the_same_slide_on_two_sides_of_a_fold_is_told_as_a_leak(bad: Bad) -> None:
    metrics = json.loads((bad.folder / "run" / "metrics.json").read_text())
    split = json.loads((bad.folder / "run" / "split.json").read_text())
    sides = [{p: key for key in ("train", "tune", "test") for p in fold[key]} for fold in split["folds"]]
    patients = pd.read_csv(bad.folder / "cohort.csv").set_index("slide")["patient"]
    torn = [
        slide for slide, twin in TWINS.items() if any(side[patients[slide]] != side[patients[twin]] for side in sides)
    ]
    assert torn  # twins of patients who are dealt by their own are hardly ever on one side in every fold
    told = next(warning for warning in metrics["warnings"] if warning.startswith("LEAK."))
    for slide in torn:
        assert slide in told and TWINS[slide] in told
    assert f"warning  {told}" in bad.said.out


def test_what_was_finished_is_reused_once_the_slide_is_mended(
    bad: Bad, finished: Path, coverslip: Callable[..., Any]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (bad.folder / "features").iterdir()}
    shutil.copy(finished / "slides" / "case-09.tif", bad.folder / "slides" / "cut.tif")
    said = _run(bad.folder, coverslip)
    assert said.code == 1
    after = {path.name: path.stat().st_mtime_ns for path in (bad.folder / "features").iterdir()}
    assert set(after) - set(before) == {"cut.h5"}
    assert all(after[name] == time for name, time in before.items())
    outcomes = pd.read_csv(bad.folder / "run" / "outcomes.csv")
    embedded = outcomes[outcomes["stage"] == "embed"].set_index("slide")["status"]
    assert embedded["cut"] == "done"
    assert embedded["case-01"] == "reused"


def test_a_run_in_which_every_slide_fails_says_why(bad: Bad, tmp_path: Path, coverslip: Callable[..., Any]) -> None:
    table = pd.read_csv(bad.folder / "cohort.csv")
    few = table[table["slide"].isin(["noise", "text", "white", "empty"])]
    few.assign(lesion=[0, 1, 0, 1]).to_csv(bad.folder / "few.csv", index=False)
    said = coverslip(
        "run",
        bad.folder / "study.toml",
        *("--set", "cohort.table=few.csv", "--set", f'output="{tmp_path / "run"}"', "--set", "features.store=none"),
        *("--set", "split.folds=2"),
    )
    assert said.code == 2
    error = next(line for line in said.err.splitlines() if line.startswith("error"))
    assert "No slide is left to learn from: 4 failed; the first, " in error


def test_a_run_that_ends_for_want_of_slides_names_those_that_failed(
    bad: Bad, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    table = pd.read_csv(bad.folder / "cohort.csv")
    few = table[table["slide"].isin(["noise", "text", "case-01", "case-02"])]
    few.assign(lesion=[0, 1, 0, 1]).to_csv(bad.folder / "few.csv", index=False)
    said = coverslip(
        "run",
        bad.folder / "study.toml",
        *("--set", "cohort.table=few.csv", "--set", f'output="{tmp_path / "run"}"', "--set", "split.folds=2"),
    )
    assert said.code == 2
    assert "2 folds need 2 patients of each class of 'lesion': '0' has 1, '1' has 1." in said.err
    assert "Before that 2 slides failed (noise, text)" in said.err
    assert str(tmp_path / "run" / "outcomes.csv") in said.err


def test_a_scale_for_slides_without_one_is_used_where_the_file_has_none(
    bad: Bad, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    table = pd.read_csv(bad.folder / "cohort.csv")
    table[table["slide"].isin(["nompp", "case-01"])].to_csv(bad.folder / "scale.csv", index=False)
    said = coverslip(
        "embed",
        bad.folder / "study.toml",
        *("--set", "cohort.table=scale.csv", "--set", "slides.mpp=0.4", "--set", f'output="{tmp_path / "run"}"'),
        *("--set", f'features.store="{tmp_path / "store"}"'),
    )
    assert said.code == 0, said.err
    outcomes = pd.read_csv(tmp_path / "run" / "outcomes.csv").set_index("slide")
    assert set(outcomes["status"]) == {"done"}


@pytest.mark.parametrize("scale", ["0", "-0.5", "nan", "50"])
def test_an_impossible_scale_in_the_settings_is_refused(
    scale: str, cohort: Path, coverslip: Callable[..., Any]
) -> None:
    said = coverslip("run", cohort / "study.toml", "--set", f"slides.mpp={scale}")
    assert said.code == 2
    assert f"slides.mpp = {scale}" in said.err
    assert "20" in said.err or "greater" in said.err or "finite" in said.err
    assert not (cohort / "run").exists()


@pytest.mark.parametrize("scale", ["0", "-0.5", "NaN", "50", "half"])
def test_an_impossible_scale_in_the_table_is_refused_with_its_row(
    scale: str, cohort: Path, coverslip: Callable[..., Any]
) -> None:
    table = pd.read_csv(cohort / "cohort.csv")
    table["mpp"] = ["0.5", "", scale, *["0.5"] * (len(table) - 3)]
    table.to_csv(cohort / "cohort.csv", index=False)
    said = coverslip("run", cohort / "study.toml")
    assert said.code == 2
    assert "cohort.csv, row 4, column 'mpp'" in said.err
    assert scale in said.err
    assert "Accepted: numbers from 0.05 to 20" in said.err
    assert not (cohort / "run").exists()
