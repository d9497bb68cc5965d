"""The contract of a reader, run over every registered one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from coverslip.base.registry import READERS
from coverslip.testing.readers import check_reader


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory,
    picture: Callable[..., np.ndarray],
    make_pyramid: Callable,
    write_tiff: Callable[..., Path],
    write_dicom: Callable[..., Path],
) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("files")
    image = picture(333, 415)
    levels = make_pyramid(image, 3)
    Image.fromarray(image).save(folder / "a.png")
    Image.fromarray(image).save(folder / "a.jpg")
    series = folder / "series"
    series.mkdir()
    for number, level in enumerate(levels):
        write_dicom(series / f"{number}.dcm", level, series="1.2.3", mpp=0.5 * 2**number)
    jpeg = write_tiff(folder / "jpeg.tif", levels, compression="jpeg")
    return {
        "tiff": [
            jpeg,
            write_tiff(folder / "strips.tif", [image], rowsperstrip=10, compression="lzw"),
            write_tiff(folder / "a.ome.tif", levels, ome=True, subifds=True, metadata={}),
        ],
        # Sizes that halve without rest: OpenSlide shifts a level of another factor by parts of a pixel.
        "openslide": [write_tiff(folder / "even.tif", make_pyramid(picture(320, 416), 3), compression="jpeg")],
        "image": [folder / "a.png", folder / "a.jpg"],
        "dicom": [
            series,
            write_dicom(folder / "one.dcm", image, encode=simplejpeg.encode_jpeg, tag="YBR_FULL_422"),
        ],
    }


@pytest.mark.parametrize("name", READERS.names())
def test_every_registered_reader_keeps_the_contract(files: dict[str, list[Path]], name: str) -> None:
    assert files.get(name), f"the reader {name!r} has no file to be checked on"
    for path in files[name]:
        check_reader(path, name)
