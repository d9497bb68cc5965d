"""Conversions that would do nothing, or write over themselves, are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coverslip.base.errors import SettingsError
from coverslip.recipes.convert import convert

_SQUARE = {
    "type": "Feature",
    "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]},
    "properties": {},
}


def test_a_folder_without_feature_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in" / "case-1").mkdir(parents=True)
    with pytest.raises(SettingsError, match=r"holds no feature files.*\.h5"):
        convert("features", tmp_path / "in", tmp_path / "out")


def test_two_annotation_files_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for name in ("a.json", "a.geojson", "b.geojson"):
        (tmp_path / name).write_text(json.dumps({"type": "FeatureCollection", "features": [_SQUARE]}))
    failed = convert("annotations", tmp_path, tmp_path / "out")
    assert set(failed) == {"a.json", "a.geojson"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.geojson"]
