"""The scores of a slide's tiles: as a picture, as GeoJSON for QuPath, as a table, and the tiles at both ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int32, Int64, UInt8
from numpy import ndarray
from PIL import Image

from coverslip.base.errors import SlideError
from coverslip.base.files import atomic
from coverslip.explainers.colours import colours_of
from coverslip.explainers.picture import draw
from coverslip.slide import Slide


@dataclass(frozen=True, eq=False)
class TileScores:
    """One number a tile of a slide, and what it means.

    `xy` (n, 2) is the top-left corner and `span` the side of a tile in level-0 px; `mpp` the slide's µm per level-0 px.
    `kind` says what the numbers are (attention, evidence), `target` what they are about (a class, a label, "higher
    risk"), and `about` the same in full, for people ("lesion = 1", "higher value of age"). `signed` scores speak for
    (over 0) or against; others start at 0. `num_models` models were averaged.
    """

    slide: str
    xy: Int32[ndarray, "n 2"]
    span: float
    score: Float32[ndarray, n]
    kind: str
    target: str = ""
    signed: bool = False
    mpp: float | None = None
    method: str = ""
    num_models: int = 1
    about: str = ""

    def __post_init__(self) -> None:
        assert self.score.shape == (len(self.xy),) and self.span > 0

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def label(self) -> str:
        """What the numbers are, for people: "evidence for lesion = 1"."""
        if self.signed and self.target:
            return f"{self.kind} for {self.about or self.target}"
        return f"{self.kind} (1 = even share)" if self.kind == "attention" else self.kind

    @property
    def limits(self) -> tuple[float, float]:
        """The scores at both ends of the colour scale; the most extreme 1 % of tiles are drawn as the ends."""
        if self.signed:
            far = float(np.quantile(np.abs(self.score), 0.99)) or 1.0
            return -far, far
        return 0.0, float(np.quantile(self.score, 0.99)) or 1.0

    def top(self, k: int) -> Int64[ndarray, k]:
        """The places of the k tiles with the largest scores, largest first; of equal ones the first."""
        return np.argsort(-self.score, kind="stable")[:k]

    def bottom(self, k: int) -> Int64[ndarray, k]:
        """The places of the k tiles with the smallest scores, smallest first; of equal ones the first."""
        return np.argsort(self.score, kind="stable")[:k]

    def colours(self) -> UInt8[ndarray, "n 3"]:
        """The colour of each tile in the picture."""
        low, high = self.limits
        return colours_of((self.score - low) / (high - low), signed=self.signed)

    def image(self, slide: Slide | None = None, *, mpp: float = 8.0, opacity: float = 0.6) -> Image.Image:
        """The map at `mpp` µm per pixel over the slide in grey, with a scale bar and a colour bar that says what it is.

        Without `slide` the tiles lie on white. Where tiles overlap, a pixel shows the mean of their scores.

        Raises:
            SlideError: neither the features nor the slide tell the µm per pixel.
        """
        slide_mpp = self.mpp if slide is None else slide.require_mpp()
        if slide_mpp is None:
            raise SlideError(
                "no µm per pixel is known.",
                slide=self.slide,
                fix="Give the slide, or mpp in the table.",
                code="mpp_missing",
            )
        scale = mpp / slide_mpp
        if slide is None:
            far = (self.xy.max(0) + self.span) / scale if len(self) else np.ones(2)
            background = np.full((int(np.ceil(far[1])), int(np.ceil(far[0])), 3), 255, np.uint8)
        else:
            background = slide.thumbnail(mpp)
        return draw(
            background,
            self.xy / scale,
            self.span / scale,
            self.score,
            limits=self.limits,
            signed=self.signed,
            label=self.label,
            mpp=mpp,
            opacity=opacity,
        )

    def geojson(self) -> dict[str, Any]:
        """A GeoJSON FeatureCollection that QuPath opens: one detection a tile, coloured as in the picture.

        Coordinates are level-0 px. Each tile carries its score as a measurement, and a class: the target or its
        opposite by the sign of signed scores, else the kind.
        """
        return {
            "type": "FeatureCollection",
            "features": [
                self._detection(int(x), int(y), float(score), colour)
                for (x, y), score, colour in zip(self.xy, self.score, self.colours().tolist())
            ],
        }

    def _detection(self, x: int, y: int, score: float, colour: list[int]) -> dict[str, Any]:
        right, low = x + self.span, y + self.span
        name = self.kind
        if self.signed and self.target:
            name = self.target if score > 0 else self._opposite
        return {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[[x, y], [right, y], [right, low], [x, low], [x, y]]]},
            "properties": {
                "objectType": "detection",
                "color": colour,
                "classification": {"name": name},
                "measurements": {self.label: score},
            },
        }

    @property
    def _opposite(self) -> str:
        """What scores below 0 speak for."""
        higher, found, of = self.target.partition("higher ")
        return f"lower {of}" if found and not higher else f"not {self.target}"

    def table(self) -> pd.DataFrame:
        """One row a tile: x, y, span (level-0 px), score, kind, target."""
        return pd.DataFrame(
            {
                "x": self.xy[:, 0],
                "y": self.xy[:, 1],
                "span": self.span,
                "score": self.score,
                "kind": self.kind,
                "target": self.target,
            }
        )

    def parquet(self, path: Path) -> None:
        """Writes `table` as parquet.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        with atomic(Path(path)) as temporary:
            self.table().to_parquet(temporary, index=False)
