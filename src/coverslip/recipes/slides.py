"""One slide of a study, from its row in the table to its tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from coverslip.base.errors import SlideError
from coverslip.base.files import atomic
from coverslip.base.geometry import Tiles, TileSpec
from coverslip.base.study import Study
from coverslip.slide import Slide
from coverslip.tiles import plan
from coverslip.tissue import TissueMask, find_override, overlay, segment

OVERLAY_PX = 720


def open_slide(row: Mapping[str, Any], study: Study) -> Slide:
    """The slide of a row, under the table's name for it; close it.

    µm per pixel: the table's `mpp` where the row has one; else the file's; else `slides.mpp`.

    Raises:
        SlideError: the file cannot be read.
    """
    given = row.get("mpp")
    mpp = None if given is None or given != given else float(given)
    slide = Slide.open(row["path"], mpp=mpp, reader=study.slides.reader, id=row["slide"])
    if slide.mpp is None and study.slides.mpp is not None:
        slide.close()
        slide = Slide.open(row["path"], mpp=study.slides.mpp, reader=study.slides.reader, id=row["slide"])
    return slide


@contextmanager
def opened(row: Mapping[str, Any], study: Study) -> Iterator[Slide]:
    """The slide of a row, as `open_slide` gives it, closed at the end of the block."""
    with open_slide(row, study) as slide:
        yield slide


def tissue_of(slide: Slide, study: Study) -> TissueMask:
    """The slide's tissue: the user's mask where `tissue.masks` has one, else the method's.

    Raises:
        SlideError: no µm/px, or the slide cannot be read.
    """
    settings = study.tissue
    given = None if settings.masks is None else find_override(settings.masks, slide, mpp=settings.mpp)
    return given if given is not None else segment(slide, settings.method, mpp=settings.mpp)


def tiles_of(slide: Slide, mask: TissueMask, study: Study) -> Tiles:
    """The slide's tiles under the study's settings.

    Raises:
        SlideError: no tissue, or no tile fits.
    """
    settings = study.tiles
    spec = TileSpec(settings.size_px, settings.mpp, settings.stride_px, settings.min_tissue)
    return plan(slide, mask, spec, exclude=tuple(study.tissue.exclude), max_tiles=settings.max_tiles)


def save_overlay(slide: Slide, mask: TissueMask, path: Path) -> None:
    """Writes the slide's thumbnail with its tissue outlined, for the report."""
    image, _ = slide.overview(OVERLAY_PX)
    with atomic(path) as temporary:
        Image.fromarray(overlay(image, mask)).save(temporary, format="JPEG", quality=85)


def tile_images(slide: Slide, tiles: Tiles, numbers: list[int]) -> list[np.ndarray]:
    """The pixels of some tiles, (h, w, 3) uint8 each.

    Raises:
        SlideError: a tile cannot be read.
    """
    chosen = Tiles(tiles.slide, tiles.spec, tiles.mpp, tiles.span, tiles.xy[numbers], tiles.tissue[numbers])
    images: dict[int, np.ndarray] = {}
    for batch in slide.tiles(chosen, batch=max(1, len(numbers)), threads=1):
        if not batch.ok.all():
            raise SlideError(f"a tile cannot be read: {batch.errors[0]}", slide=slide.id, code="decode_failed")
        images.update(zip(batch.index.tolist(), batch.images))
    return [images[i] for i in range(len(numbers))]
