"""Where tissue is on a slide, and where ink, blur and folds spoil it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Integer
from numpy import ndarray

from coverslip.base.units import mm2
from coverslip.tissue.polygons import annotation, outline

# Name and colour of each layer, in GeoJSON and in pictures.
LAYER_COLOURS: dict[str, tuple[int, int, int]] = {
    "tissue": (0, 150, 70),
    "pen": (220, 0, 160),
    "blur": (230, 160, 0),
    "fold": (0, 110, 220),
}


@dataclass(frozen=True)
class TissueMask:
    """The tissue of one slide.

    `mask` (h, w) covers the slide from its top-left corner; one of its pixels is `scale` level-0 px wide. `mpp` is the
    slide's µm per level-0 px, None where it is not known. `layers` are masks of the same shape of what spoils tissue:
    pen, blur, fold; they are not taken out of `mask`, so that what to exclude stays a choice.
    """

    slide: str
    mask: Bool[ndarray, "h w"]
    scale: float
    mpp: float | None
    method: str
    layers: Mapping[str, Bool[ndarray, "h w"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.mask.ndim == 2 and self.mask.dtype == bool and self.scale > 0
        assert all(layer.shape == self.mask.shape and layer.dtype == bool for layer in self.layers.values())

    def __repr__(self) -> str:
        area = "size unknown" if self.area_mm2 is None else f"{self.area_mm2:.3g} mm²"
        layers = f", with {', '.join(self.layers)}" if self.layers else ""
        return f"<TissueMask of {self.slide}: {area} by {self.method}{layers}>"

    def usable(self, exclude: Iterable[str] = ("pen", "blur")) -> Bool[ndarray, "h w"]:
        """Tissue without the named layers; a layer that was not computed excludes nothing."""
        result = self.mask.copy()
        for name in exclude:
            if name in self.layers:
                result &= ~self.layers[name]
        return result

    def fraction(
        self, xy: Integer[ndarray, "n 2"], span: float, exclude: Iterable[str] = ("pen", "blur")
    ) -> Float32[ndarray, n]:
        """Part of each square that is usable tissue, 0 to 1, by area.

        `xy` are top-left corners and `span` the side, in level-0 px. Mask pixels that a square covers in part count in
        part; what lies beyond the mask counts as no tissue.
        """
        return self._covered(self.usable(exclude), xy, span)

    def layer_fraction(self, name: str, xy: Integer[ndarray, "n 2"], span: float) -> Float32[ndarray, n]:
        """Part of each square that a layer covers, on tissue or beside it; 0 for a layer that was not computed."""
        if name not in self.layers:
            return np.zeros(len(xy), np.float32)
        return self._covered(self.layers[name], xy, span)

    def _covered(self, part: Bool[ndarray, "h w"], xy: Integer[ndarray, "n 2"], span: float) -> Float32[ndarray, n]:
        table = np.zeros((part.shape[0] + 1, part.shape[1] + 1))
        table[1:, 1:] = part.cumsum(0).cumsum(1)
        near = np.asarray(xy, np.float64) / self.scale
        far = near + span / self.scale
        covered = (
            _sum_up_to(table, far[:, 0], far[:, 1])
            - _sum_up_to(table, near[:, 0], far[:, 1])
            - _sum_up_to(table, far[:, 0], near[:, 1])
            + _sum_up_to(table, near[:, 0], near[:, 1])
        )
        return np.clip(covered * (self.scale / span) ** 2, 0, 1).astype(np.float32)

    @property
    def is_empty(self) -> bool:
        """True where there is no tissue at all."""
        return not self.mask.any()

    @property
    def area_mm2(self) -> float | None:
        """Area of the tissue in mm², before anything is excluded; None where the slide's scale is not known."""
        return None if self.mpp is None else mm2(float(np.count_nonzero(self.mask)), self.mpp * self.scale)

    def to_geojson(self) -> dict[str, Any]:
        """A GeoJSON FeatureCollection in level-0 px as QuPath opens it: tissue, and each layer under its own name."""
        parts = {"tissue": self.mask, **self.layers}
        return {
            "type": "FeatureCollection",
            "features": [
                annotation(outline(part, self.scale), name.capitalize(), LAYER_COLOURS.get(name, (128, 128, 128)))
                for name, part in parts.items()
                if part.any()
            ],
        }


def _sum_up_to(table: Float64[ndarray, "a b"], x: Float64[ndarray, n], y: Float64[ndarray, n]) -> Float64[ndarray, n]:
    """The integral from the corner to (x, y), in mask pixels. The summed-area table is bilinear within a pixel, so
    interpolating it is exact."""
    x = np.clip(x, 0, table.shape[1] - 1)
    y = np.clip(y, 0, table.shape[0] - 1)
    c = np.minimum(x.astype(np.intp), table.shape[1] - 2)
    r = np.minimum(y.astype(np.intp), table.shape[0] - 2)
    u, v = x - c, y - r
    top = table[r, c] * (1 - u) + table[r, c + 1] * u
    bottom = table[r + 1, c] * (1 - u) + table[r + 1, c + 1] * u
    return top * (1 - v) + bottom * v
