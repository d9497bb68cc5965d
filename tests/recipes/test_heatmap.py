from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

import coverslip as cs
from coverslip.base.progress import SILENT
from coverslip.cohort import load_cohort
from coverslip.recipes.embed import feature_store
from coverslip.recipes.heatmap import choose_slides, cut_slices
from coverslip.recipes.job import Job
from coverslip.report.contents import read_contents
from coverslip.store import OutcomeLog, RunFolder

TASK = {"kind": "classification", "column": "y", "classes": ["0", "1"]}
PREDICTIONS = pd.DataFrame(
    {
        "slide": ["a", "b", "c", "d", "e", "f"],
        "y": ["0", "0", "0", "1", "1", "1"],
        # right: a (sure), b; wrong: c; right: d (sure), e; wrong: f
        "p_0": [0.9, 0.6, 0.2, 0.1, 0.4, 0.7],
        "p_1": [0.1, 0.4, 0.8, 0.9, 0.6, 0.3],
    }
)


def test_maps_of_chosen_slides_are_drawn(finished: Path, tmp_path: Path, coverslip: Callable[..., Any]) -> None:
    out = tmp_path / "maps"
    said = coverslip("heatmap", finished / "run", "case-01", "case-02", "--out", out, "--method", "attention")
    assert said.code == 0, said.err
    assert said.out.splitlines() == [str(out / "case-01.png"), str(out / "case-02.png")]
    with Image.open(out / "case-01.png") as picture:
        assert min(picture.size) > 100
    frame = pd.read_parquet(out / "case-01.parquet")
    assert set(frame["kind"]) == {"attention"}
    assert json.loads((out / "case-01.geojson").read_text())["features"]


def test_an_unknown_slide_is_refused_with_the_nearest(
    finished: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    said = coverslip("heatmap", finished / "run", "case-1", "--out", tmp_path)
    assert said.code == 2
    assert "The run has no slide 'case-1'. Did you mean" in said.err


def test_an_unknown_method_is_refused_with_the_nearest(
    finished: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    said = coverslip("heatmap", finished / "run", "case-01", "--out", tmp_path, "--method", "evidnce")
    assert said.code == 2
    assert "'evidnce'" in said.err and "'evidence'" in said.err


def test_a_slide_without_features_has_no_map_and_is_named(
    finished: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    before = (finished / "run" / "outcomes.csv").read_bytes()
    try:
        said = coverslip("heatmap", finished / "run", "case-13", "case-01", "--out", tmp_path)
    finally:
        (finished / "run" / "outcomes.csv").write_bytes(before)
    assert said.code == 1
    assert "failed\tcase-13\tno features" in said.err
    assert said.out.splitlines() == [str(tmp_path / "case-01.png")]


def test_a_map_in_python_lies_over_its_slide(finished: Path) -> None:
    run = cs.Run.open(finished / "run")
    found = cs.explain(run, cs.read_features(finished / "features" / "case-01.h5"), method="evidence")
    picture = found.image(mpp=1.0)
    assert picture.size[0] >= 256
    assert len(found.scores.score) == len(found.scores.xy)


def test_slides_of_groups_with_errors_get_example_tiles_where_they_have_no_map(finished: Path, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(finished / "run", tmp_path / "run"))
    for folder in (run.heatmaps, run.slices):
        shutil.rmtree(folder, ignore_errors=True)
    row = {"slice": "g", "finding": True, "slides": ["case-01", "case-02"]}
    other = {"slice": "h", "finding": False, "slides": ["case-03"]}
    run.audit.write_text(json.dumps({"slices": {"slices": [row, other]}}))
    study = cs.Run(run.folder).settings
    cohort = load_cohort(study.cohort, need_paths=True)
    cut_slices(Job(study, cohort, run, feature_store(study), OutcomeLog(run.outcomes), SILENT))
    assert sorted(path.stem for path in run.slices.glob("*.json")) == ["case-01", "case-02"]
    tiles = read_contents(run.folder).slices["case-01"]
    assert 0 < len(tiles) <= 3 and all(tile.rank == "top" and tile.image.is_file() for tile in tiles)


def test_few_maps_show_each_class_right_and_wrong() -> None:
    assert choose_slides("none", PREDICTIONS, TASK) == []
    assert choose_slides("auto", PREDICTIONS, TASK) == list("abcdef")
    assert choose_slides("all", PREDICTIONS, TASK) == list("abcdef")
    assert choose_slides(4, PREDICTIONS, TASK) == ["a", "c", "d", "f"]
    assert choose_slides(0, PREDICTIONS, TASK) == []
