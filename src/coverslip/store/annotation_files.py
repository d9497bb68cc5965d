"""The rings that annotation files hold, a function a layout. Coordinates are level-0 px in all of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from coverslip.base.errors import StoreError
from coverslip.base.units import is_mpp

Ring = list[tuple[float, float]]

_ELLIPSE_POINTS = 72


@dataclass(frozen=True)
class Drawn:
    """One outline as it stands in the file: parts (a shell and its holes each), and rings that are cut out of it."""

    parts: tuple[tuple[Ring, ...], ...]
    label: str = ""
    name: str = ""
    colour: tuple[int, int, int] | None = None
    cut: tuple[Ring, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a file holds."""

    layout: str
    drawn: tuple[Drawn, ...]
    mpp: float | None = None
    notes: tuple[str, ...] = ()


def read_imagescope(root: Element, path: Path) -> Found:
    """Aperio ImageScope: layers of regions of vertices; regions with NegativeROA are holes of their layer."""
    drawn: list[Drawn] = []
    left_out = 0
    for layer in root.iter("Annotation"):
        label = _layer_label(layer)
        colour = _windows_colour(layer.get("LineColor"))
        regions = [(region, _imagescope_ring(region, path)) for region in layer.iter("Region")]
        left_out += sum(len(ring) < 3 for _, ring in regions)
        holes = tuple(ring for region, ring in regions if region.get("NegativeROA") == "1" and len(ring) >= 3)
        for region, ring in regions:
            if region.get("NegativeROA") == "1" or len(ring) < 3:
                continue
            text = _said(region.get("Text"))
            drawn.append(Drawn(((ring,),), text or label, _said(region.get("Id")), colour, holes))
    text = root.get("MicronsPerPixel", "")
    mpp = _number(text, path) if text.strip() else None
    return Found("ImageScope", tuple(drawn), mpp if is_mpp(mpp) else None, _left_out(left_out))


def read_asap(root: Element, path: Path) -> Found:
    """ASAP, as CAMELYON16 and 17 use it: the group is the label; points of a spline are joined by straight lines."""
    colours = {group.get("Name", ""): _hex_colour(group.get("Color")) for group in root.iter("Group")}
    drawn: list[Drawn] = []
    left_out = 0
    for one in root.iter("Annotation"):
        points = sorted(one.iter("Coordinate"), key=lambda point: _number(point.get("Order", "0"), path))
        ring = [(_number(point.get("X"), path), _number(point.get("Y"), path)) for point in points]
        if one.get("Type") in ("Dot", "PointSet", "Measurement") or len(ring) < 3:
            left_out += 1
            continue
        label = _said(one.get("PartOfGroup"))
        colour = colours.get(label) or _hex_colour(one.get("Color"))
        drawn.append(Drawn(((ring,),), label, _said(one.get("Name")), colour))
    return Found("ASAP", tuple(drawn), None, _left_out(left_out))


def read_polygon_json(data: bytes, path: Path) -> Found | None:
    """CAMELYON16 as polygon JSON: lists `positive` and `negative` of named vertices. None where it is other JSON."""
    value = _json(data, path)
    if not isinstance(value, Mapping) or not ({"positive", "negative"} & set(value)) or "type" in value:
        return None
    drawn: list[Drawn] = []
    left_out = 0
    for label in ("positive", "negative"):
        for one in value.get(label, []):
            if not isinstance(one, Mapping) or "vertices" not in one:
                raise StoreError(f"{path.name}: an outline in {label!r} has no 'vertices'.", code="annotation")
            ring = _ring(one["vertices"], path)
            if len(ring) < 3:
                left_out += 1
                continue
            drawn.append(Drawn(((ring,),), label, str(one.get("name", ""))))
    return Found("CAMELYON16 JSON", tuple(drawn), None, _left_out(left_out))


def read_geojson(data: bytes, path: Path) -> Found:
    """GeoJSON as QuPath writes it: a collection, a list, one feature or a bare geometry; holes and parts are kept."""
    drawn: list[Drawn] = []
    left_out = 0
    for feature in _features(_json(data, path), path):
        properties = feature.get("properties") or {}
        label, colour = _qupath_class(properties.get("classification"))
        parts: list[tuple[Ring, ...]] = []
        for geometry in _geometries(feature.get("geometry"), path):
            coordinates = geometry.get("coordinates", [])
            if geometry["type"] == "Polygon":
                polygons = [coordinates]
            elif geometry["type"] == "MultiPolygon":
                polygons = coordinates
            else:
                left_out += 1
                continue
            for polygon in polygons:
                rings = [_ring(ring, path) for ring in polygon]
                if rings and len(rings[0]) >= 3:
                    parts.append(tuple(ring for ring in rings if len(ring) >= 3))
                else:
                    left_out += 1
        if parts:
            drawn.append(Drawn(tuple(parts), label, _said(properties.get("name")), colour))
    return Found("GeoJSON", tuple(drawn), None, _left_out(left_out))


def _imagescope_ring(region: Element, path: Path) -> Ring:
    ring = [(_number(v.get("X"), path), _number(v.get("Y"), path)) for v in region.iter("Vertex")]
    if ring and (region.get("GeoShape") == "Ellipse" or (region.get("Type") == "2" and len(ring) == 2)):
        # An ellipse is kept by its extreme points or by the corners of its box; both span the same box.
        return _ellipse([x for x, _ in ring], [y for _, y in ring])
    return ring


def _ellipse(xs: Sequence[float], ys: Sequence[float]) -> Ring:
    centre_x, centre_y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    radius_x, radius_y = (max(xs) - min(xs)) / 2, (max(ys) - min(ys)) / 2
    angles = [2 * math.pi * i / _ELLIPSE_POINTS for i in range(_ELLIPSE_POINTS)]
    return [(centre_x + radius_x * math.cos(angle), centre_y + radius_y * math.sin(angle)) for angle in angles]


def _layer_label(layer: Element) -> str:
    """A layer's name; else the value or the name that its first attribute carries instead."""
    if name := _said(layer.get("Name")):
        return name
    for attribute in layer.findall("./Attributes/Attribute"):
        name, value = _said(attribute.get("Name")), _said(attribute.get("Value"))
        if value or name not in ("", "Description"):
            return value or name
    return ""


def _features(value: Any, path: Path) -> Iterator[Mapping[str, Any]]:
    values = value if isinstance(value, list) else [value]
    for one in values:
        kind = one.get("type") if isinstance(one, Mapping) else None
        if kind == "FeatureCollection" and isinstance(one.get("features"), list):
            yield from _features(one["features"], path)
        elif kind == "Feature":
            yield one
        elif isinstance(kind, str) and ("coordinates" in one or "geometries" in one):
            yield {"geometry": one}
        else:
            raise StoreError(
                f"{path.name} is JSON, but neither GeoJSON nor CAMELYON16 polygons.",
                fix="GeoJSON is a FeatureCollection, a Feature, or a list of them, each with a 'type'.",
                code="annotation",
            )


def _geometries(geometry: Any, path: Path) -> Iterator[Mapping[str, Any]]:
    if not isinstance(geometry, Mapping) or not isinstance(geometry.get("type"), str):
        raise StoreError(f"{path.name}: a feature has no geometry.", code="annotation")
    if geometry["type"] == "GeometryCollection":
        for inner in geometry.get("geometries", []):
            yield from _geometries(inner, path)
    else:
        yield geometry


def _qupath_class(value: Any) -> tuple[str, tuple[int, int, int] | None]:
    if isinstance(value, str):
        return value, None
    if not isinstance(value, Mapping):
        return "", None
    names = value.get("names")
    name = ": ".join(map(str, names)) if isinstance(names, list) else str(value.get("name", ""))
    colour = value.get("color")
    if isinstance(colour, list) and len(colour) >= 3 and all(isinstance(c, int) for c in colour):
        return name, (colour[0], colour[1], colour[2])
    packed = value.get("colorRGB")  # a signed 32-bit 0xAARRGGBB
    if isinstance(packed, int):
        return name, ((packed >> 16) & 255, (packed >> 8) & 255, packed & 255)
    return name, None


def _ring(points: Any, path: Path) -> Ring:
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) >= 2 for point in points):
        raise StoreError(f"{path.name}: an outline is no list of [x, y] points.", code="annotation")
    return [(_number(point[0], path), _number(point[1], path)) for point in points]


def _number(value: Any, path: Path) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise StoreError(
            f"{path.name}: {value!r} is no coordinate.", fix="Level-0 pixels are expected.", code="annotation"
        )
    return number


def _windows_colour(text: str | None) -> tuple[int, int, int] | None:
    """ImageScope's LineColor is 0xBBGGRR as a decimal number."""
    if text is None or not text.strip().isdigit():
        return None
    packed = int(text)
    return packed & 255, (packed >> 8) & 255, (packed >> 16) & 255


def _hex_colour(text: str | None) -> tuple[int, int, int] | None:
    digits = (text or "").lstrip("#")
    if len(digits) != 6 or any(c not in "0123456789abcdefABCDEF" for c in digits):
        return None
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def _said(text: Any) -> str:
    """The text, or nothing where a tool wrote a word for nothing."""
    value = str(text).strip() if text is not None else ""
    return "" if value in ("null", "None") else value


def _left_out(count: int) -> tuple[str, ...]:
    return (f"{count} points, lines and measurements have no area and were left out.",) if count else ()


def _json(data: bytes, path: Path) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path.name} cannot be read as JSON: {error}.", code="annotation") from error
