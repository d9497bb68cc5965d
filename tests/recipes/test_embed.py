from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile

from coverslip.base.errors import SettingsError
from coverslip.recipes.embed import parse_shard
from coverslip.store import FeatureStore, read_outcomes


def test_shards_together_make_what_one_run_makes(cohort: Path, coverslip: Callable[..., Any]) -> None:
    study, options = cohort / "study.toml", ("--set", "features.store=parts")
    assert coverslip("embed", study, *options, "--shard", "1/2").code == 0
    first = {path.name for path in (cohort / "parts").iterdir()}
    assert len(first) == 6
    assert coverslip("embed", study, *options, "--shard", "2/2").code == 0
    whole = sorted((cohort / "features").iterdir())
    assert [path.name for path in sorted((cohort / "parts").iterdir())] == [path.name for path in whole]
    for path in whole:
        with h5py.File(path) as one, h5py.File(cohort / "parts" / path.name) as other:
            np.testing.assert_array_equal(one["features"][()], other["features"][()])
            np.testing.assert_array_equal(one["coords"][()], other["coords"][()])
            assert one.attrs["fingerprint"] == other.attrs["fingerprint"]


def test_a_dry_run_counts_and_writes_no_features(finished: Path, cohort: Path, coverslip: Callable[..., Any]) -> None:
    study = cohort / "study.toml"
    said = coverslip("embed", study, "--dry-run", "--set", "features.store=elsewhere")
    assert said.code == 0
    tiles = sum(h5py.File(path)["features"].shape[0] for path in (finished / "features").iterdir())
    assert f"12 slides, 0 embedded already, 0 failed\n{tiles} tiles, {tiles} to do" in said.out
    assert "hours on this machine" in said.out and "GB of features (137 numbers a tile" in said.out
    assert not (cohort / "elsewhere").exists()
    said = coverslip("embed", study, "--dry-run")
    assert f"12 slides, 12 embedded already, 0 failed\n{tiles} tiles, 0 to do" in said.out


def test_a_dry_run_names_slides_that_would_fail(cohort: Path, coverslip: Callable[..., Any]) -> None:
    (cohort / "slides" / "case-03.tif").write_text("no slide")
    said = coverslip("embed", cohort / "study.toml", "--dry-run")
    assert said.code == 1
    assert "failed\tcase-03\t" in said.err
    assert "the estimate is of the others" in said.err


def test_embed_needs_paths_and_no_target(cohort: Path, coverslip: Callable[..., Any]) -> None:
    table = pd.read_csv(cohort / "cohort.csv").drop(columns="lesion")
    table.to_csv(cohort / "cohort.csv", index=False)
    assert coverslip("embed", cohort / "study.toml").code == 0
    table.drop(columns="path").to_csv(cohort / "cohort.csv", index=False)
    said = coverslip("embed", cohort / "study.toml")
    assert said.code == 2
    assert "no column 'path'" in said.err


def test_another_tile_size_embeds_anew(cohort: Path, coverslip: Callable[..., Any]) -> None:
    before = {path.name: path.read_bytes() for path in (cohort / "features").iterdir()}
    assert coverslip("embed", cohort / "study.toml", "--set", "tiles.size_px=96").code == 0
    outcomes = pd.read_csv(cohort / "run" / "outcomes.csv")
    assert set(outcomes["status"]) == {"done"}
    for name, data in before.items():
        assert (cohort / "features" / name).read_bytes() != data
        with h5py.File(cohort / "features" / name) as file:
            assert file.attrs["tile_px"] == 96


@pytest.mark.parametrize(("text", "shard"), [("1/1", (1, 1)), (" 3/16 ", (3, 16)), ("16/16", (16, 16))])
def test_a_shard_is_a_part_of_a_number(text: str, shard: tuple[int, int]) -> None:
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["0/1", "2/1", "1", "/", "-1/2", "1/2/3", "1.0/2"])
def test_anything_else_is_no_shard(text: str) -> None:
    with pytest.raises(SettingsError, match="from 1 to n"):
        parse_shard(text)


def _damage(path: Path) -> None:
    """Zeroes one stored tile of the finest level, as a bad sector does."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        middle = len(page.dataoffsets) // 2
        where, length = page.dataoffsets[middle], page.databytecounts[middle]
    with path.open("r+b") as out:
        out.seek(where)
        out.write(bytes(length))


@pytest.fixture
def small_overlays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's picture of a slide is made from a smaller level, as it is of slides of the usual size."""
    monkeypatch.setattr("coverslip.recipes.slides.OVERLAY_PX", 64)


@pytest.mark.usefixtures("small_overlays")
def test_a_damaged_slide_is_named_without_any_preflight(cohort: Path, coverslip: Callable[..., Any]) -> None:
    (cohort / "slides" / "case-03.tif").write_bytes((cohort / "slides" / "case-03.tif").read_bytes()[:5000])
    _damage(cohort / "slides" / "case-05.tif")
    said = coverslip("embed", cohort / "study.toml", "--set", "features.store=new")
    assert said.code == 1
    outcomes = pd.read_csv(cohort / "run" / "outcomes.csv").set_index("slide")
    assert outcomes[outcomes["status"] == "failed"].index.tolist() == ["case-03", "case-05"]
    assert "cannot be read" in outcomes.loc["case-05", "reason"] and "tiles.on_bad" in outcomes.loc["case-05", "reason"]
    assert sorted(path.stem for path in (cohort / "new").glob("*.h5")) == sorted(
        outcomes[outcomes["status"] == "done"].index
    )


@pytest.mark.usefixtures("small_overlays")
def test_damaged_tiles_are_left_out_recorded_and_reported(cohort: Path, coverslip: Callable[..., Any]) -> None:
    _damage(cohort / "slides" / "case-05.tif")
    study, skip = cohort / "study.toml", ("--set", "tiles.on_bad=skip", "--set", "features.store=new")
    for status in ("done", "reused"):
        assert coverslip("embed", study, *skip).code == 0
        outcome = read_outcomes(cohort / "run" / "outcomes.csv").set_index("slide").loc["case-05"]
        with h5py.File(cohort / "new" / "case-05.h5") as file:
            count = len(file["skipped"])
        assert outcome["status"] == status and count > 0
        assert outcome["reason"].endswith(f", {count} damaged tiles left out")
    assert coverslip("train", study, *skip).code == 0
    assert coverslip("report", cohort / "run").code == 0
    assert f"{count} damaged tiles of 1 slide left out" in (cohort / "run" / "report.html").read_text()
    # What was left out is no longer allowed to be: the file of the earlier run is not taken for whole.
    said = coverslip("embed", study, "--set", "features.store=new")
    assert said.code == 1 and "failed\tcase-05\t" in said.err


def test_what_limited_the_run_is_said_logged_and_kept(cohort: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("embed", cohort / "study.toml", "--set", "features.store=new")
    kept = json.loads((cohort / "run" / "embedding.json").read_text())
    assert "limited the run" in kept["sentence"] and kept["sentence"] in said.err
    assert kept["sentence"] in (cohort / "run" / "run.log").read_text()
    assert abs(sum(kept["shares"].values()) - 1) < 0.01 and kept["batch"] == 32
    coverslip("embed", cohort / "study.toml", "--set", "features.store=new")
    assert json.loads((cohort / "run" / "embedding.json").read_text()) == kept, "a run that did nothing tells nothing"


def test_files_are_the_same_to_the_last_bit_in_any_order(cohort: Path, coverslip: Callable[..., Any]) -> None:
    backwards = pd.read_csv(cohort / "cohort.csv").iloc[::-1]
    backwards.to_csv(cohort / "backwards.csv", index=False)
    options = ("--set", "cohort.table=backwards.csv", "--set", "features.store=new", "--set", "encoder.threads=1")
    assert coverslip("embed", cohort / "study.toml", *options).code == 0
    for path in (cohort / "features").glob("*.h5"):
        assert path.read_bytes() == (cohort / "new" / path.name).read_bytes()


def test_scaled_decoding_is_another_identity_and_exact_reading_the_old_one(
    cohort: Path, coverslip: Callable[..., Any]
) -> None:
    before = h5py.File(cohort / "features" / "case-01.h5").attrs["fingerprint"]
    options = ("--set", "features.store=new", "--set", "tiles.exact=false")
    assert coverslip("embed", cohort / "study.toml", *options).code == 0
    with h5py.File(cohort / "new" / "case-01.h5") as file:
        assert file.attrs["fingerprint"] != before and file.attrs["reading"] == "scaled decoding"
    assert FeatureStore(cohort / "new").read("case-01").identity.reading == "scaled decoding"
