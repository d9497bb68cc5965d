"""Slides that vanish or are damaged while a cohort is embedded, and a clock that runs backwards."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coverslip.base.geometry import Box
from coverslip.slide import Slide
from coverslip.store import FeatureStore
from coverslip.synthetic import damage
from coverslip.synthetic.pyramid import write_pyramid


def _contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


def test_a_slide_that_vanishes_midway_is_named_and_the_others_are_finished(
    fresh: Path, coverslip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is cut to nothing at the moment its tiles are asked for, as a network disk that goes away does."""
    real = Slide.tiles

    def gone(self: Slide, *arguments: Any, **options: Any) -> Any:
        if self.id == "case-02":
            os.truncate(self.path, 0)
        return real(self, *arguments, **options)

    monkeypatch.setattr(Slide, "tiles", gone)
    said = coverslip("embed", fresh / "study.toml")
    assert said.code == 1, said.err
    assert "case-02" in said.err
    outcomes = pd.read_csv(fresh / "run" / "outcomes.csv").set_index("slide")
    assert outcomes.status.to_dict() == {f"case-0{i}": "failed" if i == 2 else "done" for i in range(1, 5)}
    assert sorted(p.name for p in (fresh / "features").glob("*.h5")) == ["case-01.h5", "case-03.h5", "case-04.h5"]


def test_a_slide_that_is_removed_midway_is_named_and_the_others_are_finished(
    fresh: Path, coverslip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Slide.open.__func__  # type: ignore[attr-defined]

    def gone(cls: type[Slide], path: Path, **options: Any) -> Slide:
        (fresh / "slides" / "case-03.tif").unlink(missing_ok=True)
        return real(cls, path, **options)

    assert (fresh / "slides" / "case-03.tif").is_file()
    monkeypatch.setattr(Slide, "open", classmethod(gone))
    said = coverslip("embed", fresh / "study.toml")
    assert said.code == 1, said.err
    assert "case-03" in said.err and "There is no file" in (fresh / "run" / "outcomes.csv").read_text()
    assert len(list((fresh / "features").glob("*.h5"))) == 3


def test_a_clock_that_runs_backwards_changes_nothing(
    fresh: Path, coverslip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = fresh / "study.toml"
    assert coverslip("embed", study, "--set", "features.store=right", "--set", "output=right-run").code == 0
    start = time.time()
    asked = [0]

    def backwards() -> float:
        asked[0] += 1
        return start - 3600.0 * asked[0]

    monkeypatch.setattr(time, "time", backwards)
    monkeypatch.setattr(time, "time_ns", lambda: int(backwards() * 1e9))
    assert coverslip("embed", study).code == 0
    assert _contents(fresh / "features") == _contents(fresh / "right")
    # Finished files that seem to be from the future, and slides that seem newer than they, are used again.
    for path in (fresh / "features").iterdir():
        os.utime(path, (start + 1e6, start + 1e6))
    for path in (fresh / "slides").glob("*.tif"):
        os.utime(path, (start + 2e6, start + 2e6))
    before = _contents(fresh / "features")
    said = coverslip("embed", study)
    assert said.code == 0, said.err
    assert _contents(fresh / "features") == before
    outcomes = pd.read_csv(fresh / "run" / "outcomes.csv")
    assert outcomes.groupby("slide").status.last().tolist() == ["reused"] * 4
    assert (outcomes.seconds.dropna() >= 0).all()


def test_a_damaged_tile_fails_its_slide_or_is_left_out_and_recorded(fresh: Path, coverslip: Callable[..., Any]) -> None:
    study, slide = fresh / "study.toml", fresh / "slides" / "case-01.tif"
    # Large enough that tissue and overview are read from a coarser level than the tiles.
    with Slide.open(slide) as small:
        image = small.read_level(0, Box(0, 0, *small.size)).repeat(6, axis=0).repeat(6, axis=1)
    write_pyramid(slide, image, mpp=0.5)
    table = (fresh / "cohort.csv").read_text().splitlines()
    (fresh / "cohort.csv").write_text("\n".join(row for row in table if row.startswith(("slide", "case-01"))) + "\n")
    study.write_text(study.read_text().replace("size_px = 64", "size_px = 256"))
    assert coverslip("embed", study, "--set", "features.store=right", "--set", "output=right-run").code == 0
    positions = FeatureStore(fresh / "right").read("case-01").coords
    assert positions is not None
    x, y = (positions[len(positions) // 2] + 128) // 256
    damage(slide, "tile", tile=int(y) * 12 + int(x))
    said = coverslip("embed", study)
    assert said.code == 1 and "case-01" in said.err
    assert not (fresh / "features" / "case-01.h5").exists()
    said = coverslip("embed", study, "--set", 'tiles.on_bad="skip"', "--set", "output=skipping")
    assert said.code == 0, said.err
    right, found = (FeatureStore(fresh / name).read("case-01") for name in ("right", "features"))
    assert 0 < len(found.skipped) < len(right) and len(found) + len(found.skipped) == len(right)
    assert all(one.reason for one in found.skipped)
    # What is left are the rows of the sound slide, and no row stands for a damaged tile.
    kept = np.setdiff1d(np.arange(len(right)), [one.index for one in found.skipped])
    np.testing.assert_array_equal(found.x, right.x[kept])
    assert found.coords is not None and right.coords is not None
    np.testing.assert_array_equal(found.coords, right.coords[kept])
    note = pd.read_csv(fresh / "skipping" / "outcomes.csv").set_index("slide").reason["case-01"]
    assert str(len(found.skipped)) in note and "damaged" in note
