"""Features, annotations and tables to other layouts and back; conversions that would do nothing, or harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import coverslip as cs
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


@pytest.mark.parametrize("layout", ["clam", "trident", "stamp", "npz"])
def test_features_go_to_another_layout_and_back(
    layout: str, finished: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    said = coverslip("convert", "features", finished / "features", there, "--to", layout)
    assert said.code == 0, said.err
    said = coverslip("convert", "features", there, back, "--mpp", "0.5")
    assert said.code == 0, said.err
    assert len(list(back.iterdir())) == 12
    first = cs.read_features(finished / "features" / "case-02.h5")
    last = cs.read_features(back / "case-02.h5")
    np.testing.assert_array_equal(first.x, last.x)
    assert first.coords is not None and last.coords is not None
    assert np.abs(first.coords - last.coords).max() <= 1  # STAMP keeps µm, in float32
    assert last.span == pytest.approx(first.span)
    assert last.mpp == pytest.approx(0.5)


def test_one_file_is_converted_alone(finished: Path, tmp_path: Path, coverslip: Callable[..., Any]) -> None:
    source = finished / "features" / "case-02.h5"
    assert coverslip("convert", "features", source, tmp_path / "out", "--to", "npz").code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["case-02.npz"]


def test_a_damaged_feature_file_is_named_and_the_others_are_written(
    cohort: Path, tmp_path: Path, coverslip: Callable[..., Any]
) -> None:
    (cohort / "features" / "case-02.h5").write_bytes(b"nothing")
    said = coverslip("convert", "features", cohort / "features", tmp_path / "out", "--to", "clam")
    assert said.code == 1
    assert "failed\tcase-02\tcase-02.h5 cannot be read" in said.err
    assert len(list((tmp_path / "out").rglob("*.h5"))) == 11


def test_annotations_become_geojson(tmp_path: Path, coverslip: Callable[..., Any]) -> None:
    xml = tmp_path / "a.xml"
    xml.write_text(
        '<ASAP_Annotations><Annotations><Annotation Name="t" Type="Polygon" PartOfGroup="Tumor" Color="#F00">'
        '<Coordinates><Coordinate Order="0" X="0" Y="0"/><Coordinate Order="1" X="10" Y="0"/>'
        '<Coordinate Order="2" X="10" Y="20"/></Coordinates></Annotation></Annotations>'
        "<AnnotationGroups/></ASAP_Annotations>"
    )
    (tmp_path / "bad.xml").write_text("<oops")
    said = coverslip("convert", "annotations", tmp_path, tmp_path / "out")
    assert said.code == 1
    assert "failed\tbad.xml\t" in said.err
    collection = json.loads((tmp_path / "out" / "a.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    assert [10, 20] in np.array(collection["features"][0]["geometry"]["coordinates"][0]).astype(int).tolist()


def test_a_table_goes_to_parquet_and_back(finished: Path, tmp_path: Path, coverslip: Callable[..., Any]) -> None:
    assert coverslip("convert", "table", finished / "cohort.csv", tmp_path / "t.parquet").code == 0
    assert coverslip("convert", "table", tmp_path / "t.parquet", tmp_path / "t.csv").code == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), pd.read_csv(finished / "cohort.csv"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["feature", "a", "b"], ["'feature'", "Did you mean 'features'?"]),
        (["features", "gone", "b"], ["There is nothing at gone"]),
        (["features", "{store}", "b", "--to", "clm"], ["'clm'", "Did you mean 'clam'?"]),
        (["features", "{store}", "b", "--frame", "mm"], ["'mm'", "level0_px, um"]),
        (["table", "{table}", "b.xlsx"], ["b.xlsx", ".csv or .parquet"]),
        (["annotations", "{store}", "b"], ["holds no annotations", ".geojson"]),
    ],
)
def test_what_cannot_be_converted_is_refused(
    arguments: list[str], words: list[str], finished: Path, coverslip: Callable[..., Any]
) -> None:
    places = {"store": finished / "features", "table": finished / "cohort.csv"}
    said = coverslip("convert", *(argument.format(**places) for argument in arguments))
    assert said.code == 2
    for word in words:
        assert word in said.err
