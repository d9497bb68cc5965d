"""Outlines of four tools become the same polygons, with the areas a person can check by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shapely.geometry import shape

from coverslip.base.errors import StoreError
from coverslip.store import read_annotations

SQUARE = [[0, 0], [1000, 0], [1000, 1000], [0, 1000]]
INNER = [[250, 250], [750, 250], [750, 750], [250, 750]]


def vertices(ring: list) -> str:
    return "<Vertices>" + "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ring) + "</Vertices>"


def imagescope(*regions: str, name: str = "Tumor", mpp: str = 'MicronsPerPixel="0.5"') -> str:
    layer = f'<Annotation Id="1" Name="{name}" LineColor="65280"><Regions>{"".join(regions)}</Regions></Annotation>'
    return f"<Annotations {mpp}>{layer}</Annotations>"


def save(folder: Path, text: str, name: str = "a.xml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_an_imagescope_region_has_its_area_and_class(tmp_path) -> None:
    path = save(tmp_path, imagescope(f'<Region Id="7" Type="0" Text="">{vertices(SQUARE)}</Region>'))
    found = read_annotations(path)
    assert (found.layout, found.mpp) == ("ImageScope", 0.5)
    region = found.regions[0]
    assert (region.label, region.name, region.colour, region.geometry.area) == ("Tumor", "7", (0, 255, 0), 1e6)
    assert found.area_mm2() == pytest.approx({"Tumor": 0.25})  # 1000 px x 0.5 µm = 0.5 mm a side


def test_a_negative_region_is_a_hole_of_its_layer(tmp_path) -> None:
    regions = (
        f'<Region Id="1" Type="0" NegativeROA="0">{vertices(SQUARE)}</Region>',
        f'<Region Id="2" Type="0" NegativeROA="1">{vertices(INNER)}</Region>',
    )
    found = read_annotations(save(tmp_path, imagescope(*regions)))
    assert [region.geometry.area for region in found.regions] == [750_000]
    assert len(found.regions[0].geometry.interiors) == 1


@pytest.mark.parametrize(
    ("attributes", "ring"),
    [
        ('Type="2"', [[0, 0], [200, 100]]),
        ('Type="0" GeoShape="Ellipse"', [[100, 0], [200, 50], [100, 100], [0, 50]]),
    ],
)
def test_an_ellipse_is_kept_by_its_box(tmp_path, attributes, ring) -> None:
    found = read_annotations(save(tmp_path, imagescope(f"<Region Id='1' {attributes}>{vertices(ring)}</Region>")))
    assert found.regions[0].geometry.area == pytest.approx(3.14159 * 100 * 50, rel=0.005)
    assert found.regions[0].geometry.bounds == pytest.approx((0, 0, 200, 100))


def test_arrows_and_rulers_have_no_area_and_are_counted(tmp_path) -> None:
    regions = (
        f'<Region Id="1" Type="3">{vertices(SQUARE[:2])}</Region>',
        f'<Region Id="2" Type="0">{vertices(SQUARE)}</Region>',
    )
    found = read_annotations(save(tmp_path, imagescope(*regions)))
    assert len(found.regions) == 1
    assert "1 points, lines and measurements" in found.notes[0]


def test_a_scale_that_is_given_wins_and_the_difference_is_told(tmp_path) -> None:
    path = save(tmp_path, imagescope(f'<Region Id="1" Type="0">{vertices(SQUARE)}</Region>'))
    found = read_annotations(path, mpp=0.25)
    assert found.mpp == 0.25
    assert "The file says 0.5 µm per pixel; 0.25 is used" in found.notes[0]
    with pytest.raises(StoreError, match="no number over 0"):
        read_annotations(path, mpp=0)


@pytest.mark.parametrize("mpp", ["", 'MicronsPerPixel=""', 'MicronsPerPixel="0"'])
def test_without_a_scale_there_are_no_areas_in_mm2(tmp_path, mpp) -> None:
    found = read_annotations(save(tmp_path, imagescope(f'<Region Id="1">{vertices(SQUARE)}</Region>', mpp=mpp)))
    assert found.mpp is None
    assert "area_mm2" not in found.to_geojson()["features"][0]["properties"]
    with pytest.raises(StoreError, match="need the slide's µm per pixel"):
        found.area_mm2()


def asap(*annotations: tuple[str, str, str, list]) -> str:
    body = "".join(
        f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>'
        + "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in reversed(list(enumerate(ring))))
        + "</Coordinates></Annotation>"
        for name, kind, group, ring in annotations
    )
    groups = '<AnnotationGroups><Group Name="_0" Color="#00ff00"><Attributes/></Group></AnnotationGroups>'
    return f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{body}</Annotations>{groups}</ASAP_Annotations>'


def test_asap_points_are_taken_in_their_order_and_groups_are_labels(tmp_path) -> None:
    text = asap(
        ("Annotation 0", "Spline", "_0", SQUARE),
        ("Annotation 1", "Polygon", "_2", INNER),
        ("dot", "Dot", "None", [[1, 1]]),
    )
    found = read_annotations(save(tmp_path, text), mpp=0.5)
    assert [(r.label, r.name, r.colour) for r in found.regions] == [
        ("_0", "Annotation 0", (0, 255, 0)),
        ("_2", "Annotation 1", (244, 250, 88)),
    ]
    assert found.regions[0].geometry.area == 1e6
    assert len(found.notes) == 1


def test_a_label_can_be_cut_out_of_the_others(tmp_path) -> None:
    text = asap(("t", "Polygon", "_0", SQUARE), ("healthy island", "Polygon", "_2", INNER))
    found = read_annotations(save(tmp_path, text), mpp=1, subtract=["_2"])
    assert found.area_mm2() == pytest.approx({"_0": 0.75})


def test_camelyon_polygons_keep_their_sign_as_label(tmp_path) -> None:
    value = {"positive": [{"name": "_0", "vertices": SQUARE}], "negative": [{"name": "_1", "vertices": INNER}]}
    path = save(tmp_path, json.dumps(value), "a.json")
    found = read_annotations(path, mpp=1)
    assert found.area_mm2() == pytest.approx({"positive": 1.0, "negative": 0.25})
    assert read_annotations(path, mpp=1, subtract=["negative"]).area_mm2() == pytest.approx({"positive": 0.75})


def geojson(kind: str, coordinates: object, **properties: object) -> dict:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


@pytest.mark.parametrize("wrap", ["feature", "list", "collection", "geometry", "group"])
def test_geojson_in_any_wrapping_keeps_holes_and_parts(tmp_path, wrap) -> None:
    far = [[[x + 5000, y] for x, y in [*SQUARE, SQUARE[0]]]]
    feature = geojson(
        "MultiPolygon",
        [[[*SQUARE, SQUARE[0]], [*INNER, INNER[0]]], far],
        name="n",
        classification={"name": "Tumor", "colorRGB": -3670016},
    )
    value: object = {
        "feature": feature,
        "list": [feature],
        "collection": {"type": "FeatureCollection", "features": [feature]},
        "geometry": feature["geometry"],
        "group": {**feature, "geometry": {"type": "GeometryCollection", "geometries": [feature["geometry"]]}},
    }[wrap]
    found = read_annotations(save(tmp_path, "\ufeff" + json.dumps(value), "a.geojson"), mpp=1)
    assert len(found.regions) == 1
    assert found.regions[0].geometry.area == 1_750_000
    if wrap != "geometry":
        assert (found.regions[0].label, found.regions[0].colour) == ("Tumor", (200, 0, 0))


def test_points_and_lines_in_geojson_are_counted(tmp_path) -> None:
    value = [geojson("Point", [1, 2]), geojson("LineString", SQUARE), geojson("Polygon", [SQUARE])]
    found = read_annotations(save(tmp_path, json.dumps(value), "a.geojson"))
    assert len(found.regions) == 1
    assert found.notes[0].startswith("2 points, lines")


def test_what_is_written_is_read_back(tmp_path) -> None:
    text = imagescope(
        f'<Region Id="1" Text="Necrosis">{vertices(SQUARE)}</Region>',
        f'<Region Id="2" NegativeROA="1">{vertices(INNER)}</Region>',
    )
    first = read_annotations(save(tmp_path, text))
    written = first.to_geojson()
    properties = written["features"][0]["properties"]
    assert properties["classification"] == {"name": "Necrosis", "color": [0, 255, 0]}
    assert properties["area_mm2"] == pytest.approx(0.1875)
    assert properties["objectType"] == "annotation"
    second = read_annotations(save(tmp_path, json.dumps(written), "b.geojson"), mpp=0.5)
    assert [(r.label, r.name, r.colour) for r in second.regions] == [(r.label, r.name, r.colour) for r in first.regions]
    assert second.regions[0].geometry.equals(first.regions[0].geometry)
    outer = shape(written["features"][0]["geometry"]).exterior
    assert outer.is_ccw


def test_an_outline_that_runs_over_its_own_start_keeps_the_overlap(tmp_path) -> None:
    # A square whose end runs on over the first corner: the overlap is inside, and counts once.
    ring = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 2], [3, 2], [3, 5], [-2, 5], [-2, 0]]
    found = read_annotations(save(tmp_path, imagescope(f'<Region Id="1">{vertices(ring)}</Region>')))
    assert found.regions[0].geometry.area == 110
    assert found.notes == ("1 outlines crossed themselves and were repaired.",)


def test_overlapping_outlines_of_one_label_count_once(tmp_path) -> None:
    regions = (f'<Region Id="1">{vertices(SQUARE)}</Region>', f'<Region Id="2">{vertices(INNER)}</Region>')
    assert read_annotations(save(tmp_path, imagescope(*regions)), mpp=1).area_mm2() == pytest.approx({"Tumor": 1.0})


BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<Annotations><Annotation Name="&b;"/></Annotations>"""
FILE = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/hostname">]><Annotations>&a;</Annotations>'


@pytest.mark.parametrize("text", [BOMB, FILE])
def test_entities_that_grow_or_read_files_are_refused(tmp_path, text) -> None:
    with pytest.raises(StoreError, match=r"document type \(DTD\)") as caught:
        read_annotations(save(tmp_path, text))
    assert caught.value.code == "unsafe"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither XML nor JSON"),
        ("hello", "neither XML nor JSON"),
        ("<Annotations><Annotation>", "cannot be read as XML"),
        ("<svg/>", r"XML with the root <svg>.*ASAP"),
        ("<Annotations>&unknown;</Annotations>", "cannot be read as XML"),
        ('{"type": "Feature"', "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"a": 1}', "neither GeoJSON nor CAMELYON16"),
        ("[1, 2]", "neither GeoJSON nor CAMELYON16"),
        ('{"type": "Feature", "geometry": null}', "no geometry"),
        ('{"positive": [{"name": "x"}]}', "no 'vertices'"),
        ('{"positive": [{"vertices": [[1, "x"], [2, 3], [4, 5]]}]}', "'x' is no coordinate"),
        ('{"positive": [{"vertices": [1, 2]}]}', "no list of"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, NaN], [1, 1]]]}', "nan is no coordinate"),
        (imagescope(f'<Region Id="1">{vertices([["a", 1], [1, 1], [2, 2]])}</Region>'), "'a' is no coordinate"),
        (imagescope('<Region Id="1"><Vertices><Vertex X="1"/></Vertices></Region>'), "None is no coordinate"),
    ],
)
def test_what_is_no_annotation_is_one_clear_error(tmp_path, text, message) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        read_annotations(save(tmp_path, text, "a.txt"))
    assert "a.txt" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(StoreError, match=r"none\.xml cannot be read"):
        read_annotations(tmp_path / "none.xml")


def test_real_annotations_have_the_areas_their_tool_wrote(test_data) -> None:
    folder = test_data / "annotations"
    found = read_annotations(folder / "histoqc" / "AnnotationModule" / "TCGA-EJ-5518-01Z-00-DX1.xml")
    by_hand = {29046449.6: 1844565.8, 641099844.1: None}  # Area (px) and AreaMicrons as ImageScope wrote them
    large = [region for region in found.regions if region.label == "CaP"]
    for region, (area, area_um2) in zip(large, by_hand.items()):
        assert region.geometry.area == pytest.approx(area, rel=1e-6)
        if area_um2 is not None:
            assert region.geometry.area * found.mpp**2 == pytest.approx(area_um2, rel=1e-3)
    assert len(found.regions) == 4


def test_real_geojson_and_polygons_are_read(test_data) -> None:
    folder = test_data / "annotations"
    holed = read_annotations(folder / "histoqc" / "AnnotationModule" / "holed.geojson")
    assert len(holed.regions[0].geometry.interiors) == 1
    several = read_annotations(folder / "histoqc" / "AnnotationModule" / "geojson_example.json")
    assert [(r.label, r.geometry.geom_type) for r in several.regions] == [
        ("Tumor", "MultiPolygon"),
        ("Invborder", "MultiPolygon"),
    ]
    for path in sorted((folder / "ncrf_camelyon16").glob("*.json")):
        found = read_annotations(path, mpp=0.243)
        raw = json.loads(path.read_text())
        assert len(found.regions) == len(raw["positive"]) + len(raw["negative"])
        assert json.dumps(found.to_geojson(), allow_nan=False)
