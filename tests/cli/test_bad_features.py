"""Feature files that cannot be used: a damaged one is named and left out, a foreign one ends the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest


def _poke(value: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["features"][2, 3] = value

    return change


def _rows(count: int, dim: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file["features"]
            file["features"] = np.ones((count, dim), np.float16)

    return change


DAMAGED: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "NaN": (_poke(np.nan), ["1 of 29 rows hold NaN or infinity (the first is row 2)", "Embed the slide again"]),
    "Inf": (_poke(np.inf), ["1 of 29 rows hold NaN or infinity (the first is row 2)", "Embed the slide again"]),
    "no rows": (_rows(0, 137), ["has no rows", "Embed the slide again"]),
    "no bytes": (lambda path: path.write_bytes(b"") and None, ["case-03.h5 cannot be read", "embed the slide again"]),
    "cut": (
        lambda path: path.write_bytes(path.read_bytes()[:3000]) and None,
        ["case-03.h5 cannot be read", "embed the slide again"],
    ),
}


@pytest.mark.parametrize("case", list(DAMAGED))
def test_a_damaged_feature_file_is_named_and_left_out(case: str, cohort: Path, coverslip: Callable[..., Any]) -> None:
    change, words = DAMAGED[case]
    change(cohort / "features" / "case-03.h5")
    said = coverslip("train", cohort / "study.toml")
    assert said.code == 1
    line = next(line for line in said.err.splitlines() if line.startswith("failed\tcase-03\t"))
    outcomes = pd.read_csv(cohort / "run" / "outcomes.csv").set_index("slide")
    for word in words:
        assert word in line
        assert word in outcomes.loc["case-03", "reason"]
    assert outcomes.loc["case-03", "stage"] == "features"
    assert len(pd.read_csv(cohort / "run" / "predictions.csv")) == 11
    warnings = json.loads((cohort / "run" / "metrics.json").read_text())["warnings"]
    assert any("case-03" in warning for warning in warnings)


def test_a_damaged_feature_file_is_made_again_by_embed(cohort: Path, coverslip: Callable[..., Any]) -> None:
    whole = (cohort / "features" / "case-03.h5").read_bytes()
    (cohort / "features" / "case-03.h5").write_bytes(whole[:3000])
    assert coverslip("embed", cohort / "study.toml").code == 0
    with h5py.File(cohort / "features" / "case-03.h5") as file:
        assert file["features"].shape == (29, 137)


def test_a_file_of_another_width_is_named(cohort: Path, coverslip: Callable[..., Any]) -> None:
    _rows(29, 5)(cohort / "features" / "case-03.h5")
    said = coverslip("train", cohort / "study.toml")
    assert said.code == 2
    assert "error case-03: 5 numbers a row, while 11 other files have 137." in said.err
    assert "embed it again" in said.err


def test_a_slide_without_features_is_told(cohort: Path, coverslip: Callable[..., Any]) -> None:
    (cohort / "features" / "case-03.h5").unlink()
    said = coverslip("train", cohort / "study.toml")
    assert said.code == 0
    assert "Left out for want of a feature file: case-03 (1 of 12 slides)" in said.out


def test_an_empty_store_says_how_to_fill_it(cohort: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("train", cohort / "study.toml", "--set", "features.store=nowhere")
    assert said.code == 2
    assert str(cohort / "nowhere") in said.err
    assert "coverslip embed" in said.err


def test_a_store_that_names_slides_otherwise_says_so(cohort: Path, coverslip: Callable[..., Any]) -> None:
    table = pd.read_csv(cohort / "cohort.csv")
    table.assign(slide=table["slide"] + ".svs").to_csv(cohort / "cohort.csv", index=False)
    said = coverslip("train", cohort / "study.toml")
    assert said.code == 2
    assert "'case-01.svs'" in said.err and "'case-01'" in said.err
    assert "without the suffix" in said.err
