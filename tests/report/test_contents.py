"""Reading a run folder: damage is named, and a list of tiles pulls in no other file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coverslip.base.errors import CoverslipError
from coverslip.report.contents import dig, read_contents

JSONS = ["split.json", "cohort.json", "metrics.json", "evaluation.json", "check.json", "environment.json"]


@pytest.mark.parametrize("name", [*JSONS, "models/fold0/model.json", "heatmaps/tiles/biopsy-1000-a.json"])
@pytest.mark.parametrize("text", ['{"format": "cut', "[1, 2]", '"words"', "\x00\x01"])
def test_a_damaged_json_file_is_named(name: str, text: str, copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    (folder / name).write_text(text)
    with pytest.raises(CoverslipError) as caught:
        read_contents(folder)
    assert str(folder / name) in str(caught.value)


@pytest.mark.parametrize("name", JSONS)
def test_bytes_that_are_no_text_are_named(name: str, copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    (folder / name).write_bytes(b"\xff\xfe\x80{}")
    with pytest.raises(CoverslipError, match="UTF-8"):
        read_contents(folder)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("metrics.json", "folds", 3),
        ("metrics.json", "warnings", [1, 2]),
        ("metrics.json", "primary", []),
        ("split.json", "folds", {}),
        ("check.json", "slides", "all"),
        ("evaluation.json", "sites", {"north": 1}),
    ],
)
def test_a_part_of_the_wrong_shape_is_named(
    name: str, key: str, value: Any, copy_of: Callable[..., Path], edit: Any
) -> None:
    folder = copy_of()
    edit(folder / name, lambda content: content.update({key: value}))
    with pytest.raises(CoverslipError, match=key) as caught:
        read_contents(folder)
    assert str(folder / name) in str(caught.value)


@pytest.mark.parametrize("name", ["predictions.csv", "outcomes.csv", "settings.toml"])
def test_a_damaged_table_or_settings_file_is_named(name: str, copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    (folder / name).write_text('a,b\n"1')
    with pytest.raises(CoverslipError) as caught:
        read_contents(folder)
    assert str(folder / name) in str(caught.value)


def test_a_list_of_tiles_cannot_pull_in_other_files(copy_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = copy_of()
    outside = tmp_path / "secret.jpg"
    outside.write_bytes((folder / "tissue" / "biopsy-1000-a.jpg").read_bytes())
    entry = {"rank": "top", "score": 1.0, "x": 0, "y": 0}
    listed = [entry | {"file": str(outside)}, entry | {"file": "../../../secret.jpg"}, entry | {"file": "../x.jpg"}]
    (folder / "heatmaps" / "tiles" / "biopsy-1000-a.json").write_text(json.dumps(listed))
    first = next(one for one in read_contents(folder).maps if one.slide == "biopsy-1000-a")
    assert first.tiles == ()


def test_a_bare_list_of_tiles_is_read_and_the_kind_comes_from_the_scores(copy_of: Callable[..., Path]) -> None:
    pd = pytest.importorskip("pandas")
    folder = copy_of()
    path = folder / "heatmaps" / "tiles" / "biopsy-1000-a.json"
    path.write_text(json.dumps(json.loads(path.read_text())["tiles"]))
    scores = pd.DataFrame({"x": [0], "y": [0], "span": [224.0], "score": [0.5], "kind": ["attention"], "target": [""]})
    scores.to_parquet(folder / "heatmaps" / "biopsy-1000-a.parquet")
    first = next(one for one in read_contents(folder).maps if one.slide == "biopsy-1000-a")
    assert first.kind == "attention" and len(first.tiles) == 12
    (folder / "heatmaps" / "biopsy-1000-a.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(CoverslipError, match="parquet"):
        read_contents(folder)


def test_models_stand_in_the_order_of_their_numbers(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    for name in ("fold10", "repeat1_fold2"):
        (folder / "models" / name).mkdir()
        (folder / "models" / name / "model.json").write_text("{}")
    names = [model.fold for model in read_contents(folder).models]
    assert names == ["fold0", "fold1", "fold2", "fold3", "fold4", "fold10", "repeat1_fold2"]


def test_digging_never_raises() -> None:
    assert dig({"a": {"b": 1}}, "a", "b") == 1
    assert dig({"a": 3}, "a", "b") is None
    assert dig(None, "a") is None
