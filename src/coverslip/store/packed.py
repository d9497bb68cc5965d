"""Features of many slides in one .npz: features (m, d), offsets (s+1,) and slide_ids (s,), as published sets come."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray

from coverslip.base.errors import FeatureError
from coverslip.store.features import Features, check_rows
from coverslip.store.rows import as_floats

_NEEDED = ("features", "offsets", "slide_ids")


@dataclass(frozen=True, eq=False)
class PackedFeatures:
    """All rows of a packed file in memory; a slide is a slice of them."""

    path: Path
    x: Float[ndarray, "m d"]
    offsets: Int64[ndarray, s + 1]
    slide_ids: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> PackedFeatures:
        """The packed features of a file.

        Raises:
            FeatureError: damaged, an array is missing, or the offsets do not fit the rows.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                lacking = [name for name in _NEEDED if name not in arrays]
                if lacking:
                    raise FeatureError(
                        f"{path} is no store: it lacks {', '.join(lacking)}.",
                        fix="A store is a folder of feature files, or an .npz with features, offsets and slide_ids.",
                        code="layout",
                    )
                x, offsets, ids = (arrays[name] for name in _NEEDED)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise FeatureError(f"{path} cannot be read as an .npz: {error}.", code="damaged") from error
        slide_ids = tuple(str(name) for name in ids)
        fits = (
            x.ndim == 2
            and x.dtype.kind == "f"
            and len(offsets) == len(slide_ids) + 1
            and offsets[0] == 0
            and offsets[-1] == len(x)
            and (np.diff(offsets) >= 0).all()
        )
        if not fits:
            raise FeatureError(
                f"{path}: offsets {offsets.shape} and slide_ids {ids.shape} do not fit features {x.shape} ({x.dtype}).",
                code="shape",
            )
        if len(set(slide_ids)) != len(slide_ids):
            twice = next(name for name in slide_ids if slide_ids.count(name) > 1)
            raise FeatureError(f"{path} holds this slide twice.", slide=twice, code="duplicate")
        return cls(path, as_floats(x), offsets.astype(np.int64), slide_ids)

    @cached_property
    def slides(self) -> dict[str, int]:
        """Place of each slide."""
        return {name: place for place, name in enumerate(self.slide_ids)}

    def read(self, slide: str, *, check: bool = True) -> Features:
        """The rows of one slide, as a view."""
        place = self.slides[slide]
        rows = self.x[self.offsets[place] : self.offsets[place + 1]]
        if len(rows) == 0:
            raise FeatureError(f"{self.path.name} has no rows of this slide.", slide=slide, code="empty")
        notes = ("The file has no coords: methods that use positions cannot use it.",)
        features = Features(slide, rows, path=self.path, layout="packed npz", notes=notes)
        if check:
            check_rows(features)
        return features
