"""Masks made elsewhere: polygons of QuPath and other viewers as GeoJSON, painted masks as images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy import ndarray
from PIL import Image, UnidentifiedImageError
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Size
from coverslip.slide import Slide
from coverslip.tissue.mask import LAYER_COLOURS, TissueMask
from coverslip.tissue.polygons import fill

# Annotations of these classes say where tissue is not, as QuPath's own "Ignore*" does.
_NOT_TISSUE = frozenset({"ignore*", "ignore", "exclude", "background", "artifact", "artefact"})
_LAYERS = frozenset(LAYER_COLOURS) - {"tissue"}
IMAGE_SUFFIXES = (".png", ".tif", ".tiff")
# A mask drawn on a thumbnail may differ this much in shape from the slide, by rounding.
_ASPECT_TOLERANCE = 0.02
_CODE = "mask_invalid"


def find_override(folder: str | Path, slide: Slide, *, mpp: float = 8.0) -> TissueMask | None:
    """The mask `<slide>.geojson` or `<slide>.png` of a folder, None where there is none.

    Raises:
        SlideError: the file is there and not usable.
    """
    for suffix in (".geojson", ".json"):
        path = Path(folder) / f"{slide.id}{suffix}"
        if path.is_file():
            return mask_from_geojson(path, slide, mpp=mpp)
    for suffix in IMAGE_SUFFIXES:
        path = Path(folder) / f"{slide.id}{suffix}"
        if path.is_file():
            return mask_from_image(path, slide)
    return None


def mask_from_geojson(source: str | Path | dict[str, Any], slide: Slide, *, mpp: float = 8.0) -> TissueMask:
    """The mask of polygons in level-0 px, at about `mpp` µm per mask pixel.

    Annotations of the classes Pen, Blur and Fold become layers; those of Ignore*, Exclude, Background and Artefact
    are taken out; every other polygon, whatever its class, is tissue. What lies up to 1 % outside the slide is cut off.

    Raises:
        SlideError: no valid JSON, no polygons, or coordinates that are not this slide's.
    """
    where = "the mask" if isinstance(source, dict) else str(source)
    document = source if isinstance(source, dict) else _load(Path(source), slide)
    shapes: dict[str, list[BaseGeometry]] = {}
    for number, feature in enumerate(_features(document, slide, where), start=1):
        shape = _polygon(feature, slide, f"{where}, feature {number}")
        shapes.setdefault(_class_of(feature), []).append(shape)
    if not any(name not in _NOT_TISSUE | _LAYERS for name in shapes):
        raise SlideError(f"{where} holds no polygon of tissue.", slide=slide.id, fix=_fix_geojson(), code=_CODE)
    slide_mpp = slide.mpp
    step = max(1, round(mpp / slide_mpp)) if slide_mpp else max(1, round(max(slide.size) / 2048))
    size = (-(-slide.size.height // step), -(-slide.size.width // step))
    groups = {name: fill(shapely.union_all(parts), size, step) for name, parts in shapes.items()}
    mask = np.zeros(size, bool)
    for name, part in groups.items():
        if name not in _NOT_TISSUE | _LAYERS:
            mask |= part
    for name in _NOT_TISSUE & groups.keys():
        mask &= ~groups[name]
    layers = {name: groups[name] for name in sorted(_LAYERS & groups.keys())}
    return TissueMask(slide.id, mask, float(step), slide_mpp, "geojson", layers)


def mask_from_image(path: str | Path, slide: Slide) -> TissueMask:
    """The mask of a painted image that covers the whole slide: every pixel over 0 is tissue.

    Colour images count where any channel is over 0, an alpha channel where the pixel is opaque.

    Raises:
        SlideError: no image, or one whose shape is not the slide's.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            values = np.asarray(image if image.mode != "P" else image.convert("RGBA"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise SlideError(
            f"{path} cannot be read as an image: {error}.", slide=slide.id, fix="Save the mask as PNG.", code=_CODE
        ) from error
    mask = _painted(values)
    height, width = mask.shape
    # Each side may be rounded to a whole pixel.
    wanted = width * slide.size.height / slide.size.width
    if abs(height - wanted) > max(1.0, _ASPECT_TOLERANCE * wanted):
        raise SlideError(
            f"{path} is {width} × {height} px, the slide {slide.size.width} × {slide.size.height} px: "
            "their shapes differ.",
            slide=slide.id,
            fix=f"A mask covers the whole slide; {width} px wide it is {round(wanted)} px high.",
            code=_CODE,
        )
    return TissueMask(slide.id, mask, slide.size.width / width, slide.mpp, "image")


def _painted(values: ndarray) -> ndarray:
    if values.ndim == 2:
        return values > 0
    if values.shape[2] in (2, 4):
        return (values[..., :-1].max(2) > 0) & (values[..., -1] > 0)
    return np.asarray(values.max(2) > 0)


def _load(path: Path, slide: Slide) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SlideError(f"{path} cannot be read: {error.strerror}.", slide=slide.id, code=_CODE) from error
    except ValueError as error:
        raise SlideError(
            f"{path} is no valid JSON: {error}.", slide=slide.id, fix=_fix_geojson(), code=_CODE
        ) from error
    # Some tools write the bare list of features.
    return {"type": "FeatureCollection", "features": document} if isinstance(document, list) else document


def _features(document: Any, slide: Slide, where: str) -> list[dict[str, Any]]:
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection" and isinstance(document.get("features"), list):
        return list(document["features"])
    if kind == "Feature":
        return [document]
    if kind in {"Polygon", "MultiPolygon", "GeometryCollection"}:
        return [{"type": "Feature", "geometry": document, "properties": {}}]
    found = f"of type {kind!r}" if kind else "without a 'type'"
    raise SlideError(f"{where} is JSON {found}, not GeoJSON polygons.", slide=slide.id, fix=_fix_geojson(), code=_CODE)


def _polygon(feature: Any, slide: Slide, where: str) -> BaseGeometry:
    """The feature's shape, valid."""
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in {"Polygon", "MultiPolygon"}:
        raise SlideError(
            f"{where}: the geometry is {kind or 'missing'}, not a Polygon or MultiPolygon.",
            slide=slide.id,
            fix="Draw tissue as closed areas, not as lines or points.",
            code=_CODE,
        )
    try:
        shape = shapely.geometry.shape(geometry)
    except (ShapelyError, ValueError, TypeError, KeyError, IndexError) as error:
        raise SlideError(
            f"{where}: the coordinates are no polygon: {error}.", slide=slide.id, fix=_fix_geojson(), code=_CODE
        ) from error
    finite = not shape.is_empty and bool(np.isfinite(shape.bounds).all())
    if finite:
        _must_fit(shape, slide.size, slide, where)
        parts = shapely.get_parts(shapely.make_valid(shapely.force_2d(shape)))
        shape = shapely.union_all([part for part in parts if part.geom_type in {"Polygon", "MultiPolygon"}])
    if not finite or shape.is_empty:
        raise SlideError(f"{where}: the polygon has no area.", slide=slide.id, fix=_fix_geojson(), code=_CODE)
    return shape


def _must_fit(shape: BaseGeometry, size: Size, slide: Slide, where: str) -> None:
    x0, y0, x1, y1 = shape.bounds
    slack = 0.01 * max(size)
    if min(x0, y0) < -slack or x1 > size.width + slack or y1 > size.height + slack:
        raise SlideError(
            f"{where}: the polygon reaches from ({x0:.0f}, {y0:.0f}) to ({x1:.0f}, {y1:.0f}), outside the slide of "
            f"{size.width} × {size.height} px.",
            slide=slide.id,
            fix="Coordinates are level-0 pixels of this slide from its top-left corner.",
            code=_CODE,
        )


def _class_of(feature: dict[str, Any]) -> str:
    properties = feature.get("properties") or {}
    classification = properties.get("classification") if isinstance(properties, dict) else None
    name = classification.get("name") if isinstance(classification, dict) else classification
    return str(name).strip().lower() if name else "tissue"


def _fix_geojson() -> str:
    return "Export annotations from QuPath as GeoJSON (FeatureCollection of polygons in level-0 pixels)."
