"""Settings that cannot be used: every wrong key in one message, with its value and what is accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REFUSED = {
    "tiles.siez_px=3": ["unknown setting 'tiles.siez_px'", "Did you mean 'size_px'?"],
    "tile.size_px=3": ["unknown setting 'tile'", "Did you mean 'tiles'?"],
    'tiles.size_px="224"': ["tiles.size_px = '224'", "integer"],
    "tiles.mpp=nan": ["tiles.mpp = nan", "finite"],
    "tiles.mpp=inf": ["tiles.mpp = inf", "finite"],
    "split.folds=1": ["split.folds = 1", "greater than or equal to 2"],
    "split.by=slide": ["split.by = 'slide'", "'patient'"],
    "encoder.name=textur": ["no encoder 'textur'", "Did you mean 'texture'?"],
    "aggregator.name=abml": ["no aggregator 'abml'", "Did you mean 'abmil'?"],
    "aggregator.options.gatd=true": ["no option 'gatd'", "Did you mean 'gated'?"],
    "aggregator.options.gated=3": ["aggregator.options.gated = 3", "bool"],
    "task.kind=survivl": ["survivl", "survival"],
    "tissue.method=otzu": ["'otzu'", "Did you mean 'otsu'?"],
    "slides.reader=opnslide": ["'opnslide'", "Did you mean 'openslide'?"],
    "heatmaps.method=atention": ["'atention'", "Did you mean 'attention'?"],
    "task.column=slide": ["'slide'", "Copy it to a new name"],
    "split.file=nowhere": ["There are no folds at", "nowhere"],
    "tiles.mpp": ["'tiles.mpp'", "section.key=value"],
    "name.x=1": ["'name' is a value, not a section"],
}


@pytest.mark.parametrize("assignment", list(REFUSED))
def test_a_wrong_setting_is_told_with_what_is_accepted(
    assignment: str, cohort: Path, coverslip: Callable[..., Any]
) -> None:
    said = coverslip("train", cohort / "study.toml", "--set", assignment)
    assert said.code == 2
    errors = [line for line in said.err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    for word in REFUSED[assignment]:
        assert word in errors[0]
    assert not (cohort / "run" / "predictions.csv").exists()


def test_every_wrong_key_of_a_file_is_named_at_once(cohort: Path, coverslip: Callable[..., Any]) -> None:
    study = cohort / "wrong.toml"
    study.write_text('[cohort]\ntabel = "cohort.csv"\n[tsk]\ncolumn = "lesion"\n')
    said = coverslip("run", study)
    assert said.code == 2
    for word in ("'cohort.table' is missing", "'cohort.tabel'. Did you mean 'table'?", "'task' is missing", "'tsk'"):
        assert word in said.err


@pytest.mark.parametrize(
    ("text", "word"),
    [("format = coverslip", "line 1"), ('format = "coverslip.study/9"', "coverslip.study/1"), ("\xff", "UTF-8")],
)
def test_a_file_that_is_no_study_is_refused(text: str, word: str, cohort: Path, coverslip: Callable[..., Any]) -> None:
    (cohort / "wrong.toml").write_bytes(text.encode("latin-1"))
    said = coverslip("run", cohort / "wrong.toml")
    assert said.code == 2
    assert str(cohort / "wrong.toml") in said.err
    assert word in said.err


def test_a_folder_is_no_study(cohort: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("run", cohort)
    assert said.code == 2
    assert said.err.strip() == f"error {cohort} cannot be read: Is a directory. Give the path of a study's TOML file."


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_shard_that_is_none_is_refused(shard: str, cohort: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("embed", cohort / "study.toml", "--shard", shard)
    assert said.code == 2
    assert repr(shard) in said.err and "--shard 3/16" in said.err
    assert not (cohort / "run").exists()


@pytest.mark.parametrize("command", [["heatmap", "{}", "case-01"], ["report", "{}"], ["predict", "{}", "cohort.csv"]])
def test_a_folder_that_is_no_run_is_refused(command: list[str], cohort: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip(*(part.format(cohort) for part in command))
    assert said.code == 2
    assert str(cohort) in said.err
    assert "Give the folder" in said.err
