"""A synthetic slide: a realistic pyramidal H&E file whose lesion, tissue and artefacts are known."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import numpy as np
import shapely
from jaxtyping import Float32, UInt8
from numpy import ndarray
from skimage.measure import find_contours

from coverslip.synthetic import nuclei as cells
from coverslip.synthetic.artefacts import blur_field, draw_blur, draw_pen, pen_field
from coverslip.synthetic.fields import STEP_PX
from coverslip.synthetic.layout import make_layout
from coverslip.synthetic.pyramid import write_pyramid
from coverslip.synthetic.recipe import SlideRecipe, Truth
from coverslip.synthetic.render import render


def make_slide(path: str | Path, recipe: SlideRecipe | None = None) -> Truth:
    """The truth about the slide that is written to `path`, a tiled JPEG TIFF of three levels.

    Raises:
        SettingsError: the recipe's size or site is not possible.
        StoreError: the file cannot be written.
    """
    path = Path(path)
    recipe = recipe or SlideRecipe()
    image, truth = draw(recipe, slide=path.stem)
    write_pyramid(path, image, mpp=recipe.mpp)
    return truth


def draw(recipe: SlideRecipe, *, slide: str = "synthetic") -> tuple[UInt8[ndarray, "h w 3"], Truth]:
    """The level-0 image of a recipe and what is true of it, without a file."""
    layout = make_layout(recipe)
    plane = cells.stamp(cells.place(layout, recipe.seed), recipe.side_px)
    image = render(recipe, layout, plane)
    none = np.zeros_like(layout.tissue)
    blur, ink = none, none
    if recipe.blur:
        blur = blur_field(recipe, layout)
        draw_blur(image, blur)
    if recipe.pen is not None:
        ink = pen_field(recipe, layout)
        draw_pen(image, ink, recipe.pen)
    return image, Truth(
        slide=slide,
        recipe=recipe,
        scale=float(STEP_PX),
        tissue=_cells(layout.tissue) > 0,
        lesion=_cells(layout.lesion) > 0,
        pen=_cells(ink) > 0.3,
        fold=(_cells(layout.thickness) > 1.4) & (_cells(layout.tissue) > 0),
        blur=_cells(blur) > 0.5,
        outlines=_outlines(layout.lesion) if recipe.lesion else (),
    )


def _cells(nodes: Float32[ndarray, "h w"]) -> Float32[ndarray, "r c"]:
    """The field in the middle of each square between four nodes."""
    return (nodes[:-1, :-1] + nodes[1:, :-1] + nodes[:-1, 1:] + nodes[1:, 1:]) / 4


def _outlines(field: Float32[ndarray, "h w"]) -> tuple[tuple[list[tuple[float, float]], ...], ...]:
    """The zero line of a field as polygons with holes in level-0 px."""
    rings = [shapely.Polygon(line[:, ::-1] * STEP_PX) for line in find_contours(field, 0.0) if len(line) > 3]
    # A point lies inside where an odd number of rings goes around it: holes come out by themselves.
    shape = reduce(shapely.symmetric_difference, [ring.buffer(0) for ring in rings]).simplify(1.0)
    polygons = [p for p in getattr(shape, "geoms", [shape]) if p.area > 0]
    return tuple(
        tuple([(round(x, 1), round(y, 1)) for x, y in ring.coords] for ring in (p.exterior, *p.interiors))
        for p in sorted(polygons, key=lambda p: -p.area)
    )
