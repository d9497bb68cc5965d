from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from coverslip.base.errors import SettingsError
from coverslip.recipes.embed import parse_shard


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
