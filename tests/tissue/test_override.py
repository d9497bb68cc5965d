"""Masks from elsewhere: what viewers wrote is used, what cannot be this slide's is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from PIL import Image

from coverslip.base.errors import SlideError
from coverslip.tissue import TissueMask, find_override, mask_from_geojson, mask_from_image, segment


def polygon(*corners: tuple[float, float], name: str | None = None) -> dict[str, Any]:
    ring = [list(c) for c in (*corners, corners[0])]
    properties = {"classification": {"name": name}} if name else {}
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}


def square(x: float, y: float, side: float, name: str | None = None) -> dict[str, Any]:
    return polygon((x, y), (x + side, y), (x + side, y + side), (x, y + side), name=name)


def collection(*features: dict[str, Any]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


def test_a_segmented_mask_comes_back_the_same(example: Any, tmp_path: Path) -> None:
    mask = segment(example.slide)
    path = tmp_path / "example.geojson"
    path.write_text(json.dumps(mask.to_geojson()), encoding="utf-8")
    back = find_override(tmp_path, example.slide)
    assert back is not None
    assert np.array_equal(back.mask, mask.mask)
    assert set(back.layers) == {name for name, layer in mask.layers.items() if layer.any()}
    for name, layer in back.layers.items():
        assert np.array_equal(layer, mask.layers[name])
    assert (back.scale, back.mpp, back.method) == (16.0, 0.5, "geojson")


def test_classes_say_what_is_tissue_and_what_is_not(example: Any) -> None:
    mask = mask_from_geojson(
        collection(
            square(0, 0, 800, "Tumor"),
            square(800, 0, 400),
            square(0, 0, 160, "Ignore*"),
            square(160, 160, 160, "Pen"),
        ),
        example.slide,
    )
    assert mask.mask.sum() == 50 * 50 + 25 * 25 - 100
    assert mask.layers["pen"].sum() == 100
    assert mask.usable().sum() == mask.mask.sum() - 100


def test_overlapping_areas_add_up_to_their_union(example: Any) -> None:
    mask = mask_from_geojson(collection(square(0, 0, 320), square(160, 0, 320)), example.slide)
    assert mask.mask.sum() == 30 * 20


@pytest.mark.parametrize("wrap", ["list", "feature", "geometry"])
def test_other_ways_to_write_geojson_are_read(example: Any, tmp_path: Path, wrap: str) -> None:
    feature = square(0, 0, 320)
    document: Any = {"list": [feature], "feature": feature, "geometry": feature["geometry"]}[wrap]
    path = tmp_path / "m.geojson"
    # With the byte order mark that Windows programs write.
    path.write_text(json.dumps(document), encoding="utf-8-sig")
    assert mask_from_geojson(path, example.slide).mask.sum() == 400


def test_a_self_crossing_outline_is_mended(example: Any) -> None:
    bow_tie = polygon((0, 0), (320, 320), (320, 0), (0, 320))
    assert 150 < mask_from_geojson(collection(bow_tie), example.slide).mask.sum() < 250


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{not json", "no valid JSON"),
        ("", "no valid JSON"),
        ("42", "without a 'type'"),
        ('{"type": "Topology"}', "'Topology'"),
        ('{"a": 1}', "without a 'type'"),
        (json.dumps(collection()), "no polygon of tissue"),
        (json.dumps(collection(square(0, 0, 99, "Pen"))), "no polygon of tissue"),
        (json.dumps(collection({"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}})), "Point"),
        (json.dumps(collection({"type": "Feature", "geometry": None})), "missing"),
        (json.dumps({"type": "FeatureCollection", "features": ["x"]}), "missing"),
        (json.dumps(collection({"geometry": {"type": "Polygon", "coordinates": [["a", "b"]]}})), "no polygon"),
        (json.dumps(collection({"geometry": {"type": "Polygon", "coordinates": []}})), "polygon"),
        (json.dumps(collection({"geometry": {"type": "Polygon"}})), "no polygon"),
        (json.dumps(collection(polygon((0, 0), (5, 5)))), "polygon"),
        (json.dumps(collection(square(1500, 0, 9000))), "outside the slide of 2048 × 2048"),
        (json.dumps(collection(square(-500, 0, 600))), "outside the slide"),
    ],
)
def test_a_file_that_is_no_mask_of_this_slide_is_refused(example: Any, tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "example.geojson"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SlideError, match=says) as error:
        find_override(tmp_path, example.slide)
    assert error.value.code == "mask_invalid"
    assert error.value.slide == "example"
    assert "example.geojson" in str(error.value)


def test_bytes_that_are_no_text_are_refused(example: Any, tmp_path: Path) -> None:
    (tmp_path / "example.geojson").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(SlideError, match="no valid JSON"):
        find_override(tmp_path, example.slide)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_painted_masks_of_every_mode_are_read(example: Any, tmp_path: Path, mode: str) -> None:
    values = np.zeros((128, 128), np.uint8)
    values[:64] = 255
    image = Image.fromarray(values)
    if mode == "RGBA":
        image = Image.merge("RGBA", [image.point(lambda _: 255)] * 3 + [image])
    elif mode != "L":
        image = image.convert(mode)
    image.save(tmp_path / "example.png")
    mask = find_override(tmp_path, example.slide)
    assert mask is not None
    assert np.array_equal(mask.mask, values > 0)
    assert mask.scale == 16
    assert mask.method == "image"


def test_a_mask_of_another_shape_is_refused_with_the_right_one(example: Any, tmp_path: Path) -> None:
    Image.fromarray(np.ones((100, 200), np.uint8)).save(tmp_path / "example.png")
    with pytest.raises(SlideError, match="200 px wide it is 200 px high"):
        find_override(tmp_path, example.slide)


def test_a_mask_that_is_no_image_is_refused(example: Any, tmp_path: Path) -> None:
    (tmp_path / "example.png").write_bytes(b"nothing")
    with pytest.raises(SlideError, match="cannot be read as an image"):
        mask_from_image(tmp_path / "example.png", example.slide)


def test_no_file_is_no_override(example: Any, tmp_path: Path) -> None:
    assert find_override(tmp_path, example.slide) is None


@pytest.mark.data
def test_a_qupath_file_with_holes_is_read(example: Any, test_data: Path) -> None:
    path = test_data / "annotations" / "histoqc" / "AnnotationModule" / "holed.geojson"
    document = json.loads(path.read_text(encoding="utf-8"))
    features = [document]

    def scaled(value: Any, factor: float) -> Any:
        return [scaled(v, factor) for v in value] if isinstance(value, list) else value * factor

    def largest(value: Any) -> float:
        return max(map(largest, value)) if isinstance(value, list) else value

    factor = 2000 / max(largest(f["geometry"]["coordinates"]) for f in features)
    for feature in features:
        feature["geometry"]["coordinates"] = scaled(feature["geometry"]["coordinates"], factor)
    hull = shapely.Polygon(document["geometry"]["coordinates"][0])
    mask = mask_from_geojson(collection(*features), example.slide)
    assert isinstance(mask, TissueMask)
    # The outer square and the hole in it.
    assert 0.5 < mask.mask.sum() * mask.scale**2 / hull.area < 0.99
