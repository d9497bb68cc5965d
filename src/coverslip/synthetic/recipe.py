"""What a synthetic slide is made of, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from coverslip.base.errors import SettingsError

# Everything is drawn at this scale, whatever the file says.
DRAWN_MPP = 0.5
# Tiles of the file, blocks of the renderer.
TILE_PX = 256
PenColour = Literal["red", "green", "blue", "black"]


@dataclass(frozen=True)
class Site:
    """A laboratory: its stain as optical density (base e) per unit of concentration in R, G, B, and its lamp."""

    name: str
    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    # Mean staining strength of haematoxylin and eosin.
    strength: tuple[float, float]
    # Colour of glass without tissue.
    white: tuple[float, float, float]


SITES = {
    site.name: site
    for site in (
        Site("north", (0.590, 0.705, 0.393), (0.150, 0.845, 0.513), (1.00, 0.92), (244.0, 242.0, 243.0)),
        Site("south", (0.667, 0.665, 0.336), (0.118, 0.905, 0.395), (0.86, 0.76), (239.0, 236.0, 244.0)),
    )
}


@dataclass(frozen=True)
class SlideRecipe:
    """One slide to be drawn. Equal recipes give equal slides.

    `side_px` is a multiple of 256 from 512 on. `mpp` is what the file says (None: nothing); the drawing is always at
    0.5 µm/px. `pen`, `fold` and `blur` add the artefact of that name.
    """

    seed: int = 0
    side_px: int = 4096
    site: str = "north"
    lesion: bool = False
    pen: PenColour | None = None
    fold: bool = False
    blur: bool = False
    mpp: float | None = DRAWN_MPP

    def __post_init__(self) -> None:
        if self.side_px < 2 * TILE_PX or self.side_px % TILE_PX:
            raise SettingsError(
                f"A synthetic slide of {self.side_px} px a side cannot be made.",
                fix=f"side_px is a multiple of {TILE_PX} from {2 * TILE_PX} on.",
            )
        if self.site not in SITES:
            raise SettingsError(f"There is no synthetic site {self.site!r}.", fix=f"Accepted: {', '.join(SITES)}.")


@dataclass(frozen=True)
class Truth:
    """What is known about a synthetic slide.

    `tissue`, `lesion`, `pen`, `fold` and `blur` (h, w) are masks with `scale` level-0 px a pixel; a lumen belongs to
    the tissue. `outlines` are the lesion's polygons in level-0 px, the first ring the outer one.
    """

    slide: str
    recipe: SlideRecipe
    scale: float
    tissue: Bool[ndarray, "h w"]
    lesion: Bool[ndarray, "h w"]
    pen: Bool[ndarray, "h w"]
    fold: Bool[ndarray, "h w"]
    blur: Bool[ndarray, "h w"]
    outlines: tuple[tuple[list[tuple[float, float]], ...], ...] = field(repr=False)

    @property
    def lesion_fraction(self) -> float:
        """Part of the tissue that is lesion."""
        return int(np.count_nonzero(self.lesion & self.tissue)) / max(1, int(np.count_nonzero(self.tissue)))

    def to_geojson(self) -> dict[str, Any]:
        """The lesion's outlines as a GeoJSON FeatureCollection in level-0 pixels, as QuPath opens it."""
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[list(p) for p in ring] for ring in rings]},
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": "Lesion", "color": [200, 0, 0], "colorRGB": -3670016},
                },
            }
            for rings in self.outlines
        ]
        return {"type": "FeatureCollection", "features": features}
