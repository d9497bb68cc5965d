"""Outlines that people drew on a slide, whatever tool they used: polygons in level-0 px with a label.

    outlines = read_annotations(Path("a.xml"), mpp=0.25)
    outlines.area_mm2()              # {"Tumor": 12.3}
    outlines.to_geojson()            # opens in QuPath

Read are ImageScope XML, ASAP XML (CAMELYON16 and 17), the CAMELYON16 polygon JSON, and GeoJSON as QuPath writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import MultiPolygon, Polygon, mapping

from coverslip.base.errors import StoreError
from coverslip.base.units import is_mpp, mm2
from coverslip.store.annotation_files import Drawn, Found, read_asap, read_geojson, read_imagescope, read_polygon_json
from coverslip.store.xml_text import parse_xml

# QuPath draws a class without a colour in one of its own.
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Region:
    """One outline: a valid polygon (holes and several parts are possible) in level-0 px, its label and its name."""

    geometry: Polygon | MultiPolygon
    label: str = ""
    name: str = ""
    colour: Colour | None = None


@dataclass(frozen=True)
class Annotations:
    """All outlines of one slide; `mpp` (µm per level-0 px) is None where nobody said it, and then areas are too."""

    regions: tuple[Region, ...]
    layout: str
    mpp: float | None = None
    notes: tuple[str, ...] = ()

    def area_mm2(self) -> dict[str, float]:
        """Area in mm² a label; overlapping outlines of one label count once.

        Raises:
            StoreError: the µm per pixel is not known.
        """
        if self.mpp is None:
            raise StoreError(
                "areas in mm² need the slide's µm per pixel, which the annotation file does not say.",
                fix="Give it: mpp=0.25.",
                code="mpp_missing",
            )
        labels = sorted({region.label for region in self.regions})
        unions = {
            label: shapely.union_all([region.geometry for region in self.regions if region.label == label])
            for label in labels
        }
        return {label: mm2(union.area, self.mpp) for label, union in unions.items()}

    def to_geojson(self) -> dict[str, Any]:
        """A GeoJSON FeatureCollection that QuPath opens, with `area_px2` and, where mpp is known, `area_mm2`."""
        return {"type": "FeatureCollection", "features": [_feature(region, self.mpp) for region in self.regions]}


def read_annotations(path: Path, *, mpp: float | None = None, subtract: Iterable[str] = ()) -> Annotations:
    """The outlines of a file; the layout is told by its content.

    `mpp` wins over what the file says (ImageScope keeps it). Regions whose label is in `subtract` are cut out of all
    others and dropped: CAMELYON16 draws healthy islands inside a tumour as `_2`, other cohorts as `Exclusion`.

    Raises:
        StoreError: not readable, of no known layout, or with coordinates that are no numbers; names the file.
    """
    path = Path(path)
    if mpp is not None and not is_mpp(mpp):
        raise StoreError(f"mpp = {mpp!r} is no number over 0 (µm per level-0 px).", code="mpp")
    found = _read(path)
    notes = list(found.notes)
    if mpp is not None and found.mpp is not None and abs(mpp / found.mpp - 1) > 0.01:
        notes.append(f"The file says {found.mpp:g} µm per pixel; {mpp:g} is used, as given.")
    regions, repaired = _regions(found.drawn, path)
    if repaired:
        notes.append(f"{repaired} outlines crossed themselves and were repaired.")
    regions = _subtract(regions, set(subtract))
    mpp = mpp if mpp is not None else found.mpp
    return Annotations(tuple(regions), found.layout, mpp, tuple(notes))


def _read(path: Path) -> Found:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"the annotation file {path} cannot be read: {error.strerror}.", code="annotation") from error
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start == b"<":
        root = parse_xml(data, path)
        if root.tag == "ASAP_Annotations":
            return read_asap(root, path)
        if root.tag == "Annotations":
            return read_imagescope(root, path)
        raise StoreError(
            f"{path.name} is XML with the root <{root.tag}>.",
            fix="Accepted: <Annotations> (ImageScope) and <ASAP_Annotations> (ASAP).",
            code="annotation",
        )
    if start in (b"{", b"["):
        return read_polygon_json(data, path) or read_geojson(data, path)
    raise StoreError(
        f"{path.name} is neither XML nor JSON.",
        fix="Accepted: ImageScope XML, ASAP XML, CAMELYON16 polygon JSON, GeoJSON.",
        code="annotation",
    )


def _regions(drawn: Iterable[Drawn], path: Path) -> tuple[list[Region], int]:
    regions, repaired = [], 0
    for one in drawn:
        try:
            parts = [Polygon(shell, holes) for shell, *holes in one.parts]
        except (ValueError, TypeError, shapely.errors.GEOSException) as error:
            raise StoreError(
                f"{path.name}: the outline {one.name or one.label!r} has no usable coordinates: {error}.",
                code="annotation",
            ) from error
        crossed = not all(part.is_valid for part in parts)
        repaired += crossed
        # A union and not a MultiPolygon: parts of one outline may touch or overlap, which GeoJSON does not allow.
        geometry = _union(parts) if crossed or len(parts) > 1 else parts[0]
        if one.cut:
            geometry = _areas(geometry.difference(_union([Polygon(ring) for ring in one.cut])))
        if not geometry.is_empty:
            regions.append(Region(geometry, one.label, one.name, one.colour))
    return regions, repaired


def _union(polygons: Iterable[Polygon]) -> Polygon | MultiPolygon:
    # "structure": where a hand-drawn outline runs over its own start, the doubly enclosed bit stays inside.
    valid = [shapely.make_valid(part, method="structure", keep_collapsed=False) for part in polygons]
    return _areas(shapely.union_all(valid))


def _areas(geometry: shapely.Geometry) -> Polygon | MultiPolygon:
    """The parts that have an area: repairing an outline may leave lines and points beside them."""
    if isinstance(geometry, Polygon | MultiPolygon):
        return geometry
    polygons = [part for part in shapely.get_parts(geometry) if isinstance(part, Polygon | MultiPolygon)]
    union = shapely.union_all(polygons)
    return union if isinstance(union, Polygon | MultiPolygon) else Polygon()


def _subtract(regions: list[Region], labels: set[str]) -> list[Region]:
    holes = [region.geometry for region in regions if region.label in labels]
    if not holes:
        return regions
    hole = shapely.union_all(holes)
    kept = [region for region in regions if region.label not in labels]
    cut = [replace(region, geometry=_areas(region.geometry.difference(hole))) for region in kept]
    return [region for region in cut if not region.geometry.is_empty]


def _feature(region: Region, mpp: float | None) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": "annotation"}
    if region.name:
        properties["name"] = region.name
    if region.label:
        colour = {"color": list(region.colour)} if region.colour else {}
        properties["classification"] = {"name": region.label, **colour}
    properties["area_px2"] = round(region.geometry.area, 3)
    if mpp is not None:
        properties["area_mm2"] = mm2(region.geometry.area, mpp)
    return {"type": "Feature", "geometry": _geometry(region.geometry), "properties": properties}


def _geometry(geometry: Polygon | MultiPolygon) -> Mapping[str, Any]:
    # Shells counter-clockwise and holes clockwise, as RFC 7946 asks.
    return _lists(mapping(shapely.orient_polygons(geometry)))


def _lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, (tuple, list)) else value
