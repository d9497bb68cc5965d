"""Writing an image as a pyramidal slide file that every reader opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from coverslip.base.files import atomic

# Each level is this much smaller than the one before.
LEVEL_FACTOR = 4


def write_pyramid(
    path: Path,
    image: UInt8[ndarray, "h w 3"],
    *,
    mpp: float | None,
    levels: int = 3,
    tile_px: int = 256,
    quality: int = 85,
) -> None:
    """Writes a tiled JPEG TIFF with levels /1 /4 /16; `mpp` goes into the resolution tags, None leaves them out.

    Raises:
        StoreError: the disk is full or the folder is read-only.
    """
    pixels_per_cm = None if mpp is None else (1e4 / mpp, 1e4 / mpp)
    with atomic(path) as temporary, tifffile.TiffWriter(temporary) as writer:
        for level in range(levels):
            if level:
                image = np.asarray(Image.fromarray(image).reduce(LEVEL_FACTOR))
            writer.write(
                image,
                tile=(tile_px, tile_px),
                photometric="rgb",  # of the array; the JPEG streams and the tag are YCbCr
                subsampling=(2, 2),
                compression="jpeg",
                compressionargs={"level": quality},
                subfiletype=1 if level else 0,
                software=False,
                metadata=None,
                maxworkers=1,
                resolution=None if level else pixels_per_cm,
                resolutionunit=None if level or mpp is None else "CENTIMETER",
            )
