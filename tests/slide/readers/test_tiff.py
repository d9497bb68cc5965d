from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Box, Size
from coverslip.slide import Slide


@pytest.fixture(scope="module")
def levels(picture: Callable, make_pyramid: Callable) -> list[np.ndarray]:
    return make_pyramid(picture(301, 403), 3)


def whole(slide: Slide, level: int = 0) -> np.ndarray:
    return slide.read_level(level, Box(0, 0, *slide.levels[level].size))


LAYOUTS = {
    "uncompressed tiles": {},
    "deflate, predictor": {"compression": "zlib", "predictor": 2},
    "lzw": {"compression": "lzw"},
    "zstd": {"compression": "zstd"},
    "lossless jpeg 2000": {"compression": "jpeg2000"},
    "strips": {"rowsperstrip": 16},
    "strips, compressed": {"rowsperstrip": 7, "compression": "zlib"},
    "one strip": {"rowsperstrip": 301},
    "big-endian": {"byteorder": ">"},
    "bigtiff": {"bigtiff": True},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_pixels_that_were_written(
    tmp_path: Path, levels: list[np.ndarray], write_tiff: Callable[..., Path], name: str
) -> None:
    options = dict(LAYOUTS[name])
    options.pop("byteorder", None)
    if "rowsperstrip" in options:
        written = levels[:1]
    else:
        written = levels
    with Slide.open(write_tiff(tmp_path / "a.tif", written, **options)) as slide:
        assert slide.reader == "tiff" and len(slide.levels) == len(written)
        for index, level in enumerate(written):
            assert np.array_equal(whole(slide, index), level)


def test_one_long_uncompressed_strip_is_read_in_shares(
    tmp_path: Path, picture: Callable, write_tiff: Callable[..., Path]
) -> None:
    image = picture(1500, 700)
    with Slide.open(write_tiff(tmp_path / "a.tif", [image], rowsperstrip=1500)) as slide:
        assert np.array_equal(whole(slide), image)
        page = slide._handle._levels[0]  # type: ignore[union-attr]
        assert page.rows > 1 and page.piece.height < 1500
        assert np.array_equal(slide.read_level(0, Box(600, 1400, 100, 100)), image[1400:, 600:])


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_jpeg_tiles_equal_openslide_to_the_last_bit(
    tmp_path: Path, levels: list[np.ndarray], write_tiff: Callable[..., Path], subsampling: tuple[int, int]
) -> None:
    path = write_tiff(
        tmp_path / "a.tif", levels, compression="jpeg", compressionargs={"level": 80}, subsampling=subsampling
    )
    with Slide.open(path) as ours, Slide.open(path, reader="openslide") as reference:
        assert ours.reader == "tiff" and ours.findings == ()
        for index in range(len(levels)):
            assert np.array_equal(whole(ours, index), whole(reference, index))


def test_a_pyramid_in_subifds_is_found(
    tmp_path: Path, levels: list[np.ndarray], write_tiff: Callable[..., Path]
) -> None:
    for ome in (False, True):
        path = write_tiff(tmp_path / f"{ome}.ome.tif", levels, subifds=True, ome=ome, metadata={} if ome else None)
        with Slide.open(path) as slide:
            assert [level.size for level in slide.levels] == [Size(403, 301), Size(201, 150), Size(100, 75)]
            assert all(np.array_equal(whole(slide, i), levels[i]) for i in range(3))


@pytest.mark.parametrize(
    ("size", "unit", "mpp"), [(0.25, "µm", 0.25), (250.0, "nm", 0.25), (0.0005, "mm", 0.5), (0.5, "pixel", None)]
)
def test_the_scale_of_an_ome_tiff_is_its_physical_size(
    tmp_path: Path, levels: list[np.ndarray], write_tiff: Callable[..., Path], size: float, unit: str, mpp: float | None
) -> None:
    scale = {"PhysicalSizeX": size, "PhysicalSizeXUnit": unit, "PhysicalSizeY": size, "PhysicalSizeYUnit": unit}
    path = write_tiff(tmp_path / "a.ome.tif", levels[:1], mpp=None, ome=True, metadata={"axes": "YXS", **scale})
    with Slide.open(path) as slide:
        assert slide.vendor == "ome-tiff"
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize("axes", ["TYXS", "ZYXS", "CYX", "TZYX"])
def test_more_axes_than_a_slide_has_are_named(tmp_path: Path, axes: str) -> None:
    shape = {"T": 3, "Z": 5, "C": 2, "Y": 64, "X": 80, "S": 3}
    data = np.zeros([shape[a] for a in axes], np.uint8)
    photometric = "rgb" if axes.endswith("S") else "minisblack"
    tifffile.imwrite(tmp_path / "a.ome.tif", data, photometric=photometric, metadata={"axes": axes})
    with pytest.raises(SlideError, match=rf"{axes[0]} \({shape[axes[0]]}\)") as caught:
        Slide.open(tmp_path / "a.ome.tif")
    assert caught.value.code == "extra_axes"


@pytest.mark.parametrize("samples", [2, 5])
def test_a_number_of_samples_that_is_no_colour_is_refused(tmp_path: Path, samples: int) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((64, 64, samples), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(SlideError) as caught:
        Slide.open(tmp_path / "a.tif")
    assert caught.value.code == "extra_axes"


def test_grey_planar_palette_alpha_and_16_bit_become_rgb(tmp_path: Path, picture: Callable) -> None:
    image = picture(50, 70)
    grey = image[..., 0]

    def read(**written: object) -> np.ndarray:
        tifffile.imwrite(tmp_path / "a.tif", metadata=None, **written)
        with Slide.open(tmp_path / "a.tif", reader="tiff") as slide:
            return whole(slide)

    assert np.array_equal(read(data=grey, photometric="minisblack"), np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(read(data=grey, photometric="miniswhite"), np.repeat(255 - grey[..., None], 3, axis=2))
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    assert np.array_equal(read(data=planes, photometric="rgb", planarconfig="separate"), image)
    assert np.array_equal(read(data=planes, photometric="rgb", planarconfig="separate", tile=(32, 32)), image)
    deep = image.astype(np.uint16) * 257
    assert np.array_equal(read(data=deep, photometric="rgb"), image)
    table = np.random.default_rng(0).integers(0, 2**16, (3, 256), dtype=np.uint16)
    assert np.array_equal(read(data=grey, photometric="palette", colormap=table), (table >> 8).astype(np.uint8).T[grey])
    alpha = np.concatenate([image, np.full((50, 70, 1), 255, np.uint8)], axis=2)
    alpha[:10, :, 3] = 0
    shown = read(data=alpha, photometric="rgb", extrasamples=["unassalpha"])
    assert (shown[:10] == 255).all() and np.array_equal(shown[10:], image[10:])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int8, bool])
def test_pixels_that_are_no_8_bit_colour_are_refused(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), dtype), photometric="minisblack")
    with pytest.raises(SlideError, match="8-bit") as caught:
        Slide.open(tmp_path / "a.tif")
    assert caught.value.code == "unreadable"


def test_an_aperio_description_gives_scale_objective_and_images(tmp_path: Path, levels: list[np.ndarray]) -> None:
    text = "Aperio Image Library v11\r\n403x301 (64x64) JPEG/RGB Q=30|AppMag = 40|MPP = 0.2498|Filename = X"
    label = np.full((20, 30, 3), 77, np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.svs") as tif:
        tif.write(levels[0], tile=(64, 64), photometric="rgb", description=text, metadata=None)
        tif.write(levels[2], rowsperstrip=20, photometric="rgb", description="Aperio thumbnail", metadata=None)
        tif.write(levels[1], tile=(64, 64), photometric="rgb", description="Aperio level", metadata=None)
        tif.write(
            label, rowsperstrip=20, photometric="rgb", description="Aperio\r\nlabel 30x20", metadata=None, subfiletype=1
        )
    with Slide.open(tmp_path / "a.svs") as slide:
        assert slide.vendor == "aperio" and slide.mpp == 0.2498 and slide.objective == 40 and slide.findings == ()
        assert slide.properties["aperio.Filename"] == "X"
        assert slide.associated == ("label", "thumbnail")
        assert np.array_equal(slide.associated_image("label"), label)
        assert [level.size for level in slide.levels] == [Size(403, 301), Size(201, 150)]


def test_a_tag_that_contradicts_the_stream_is_told_and_the_stream_is_followed(
    tmp_path: Path, levels: list[np.ndarray], write_tiff: Callable[..., Path]
) -> None:
    path = write_tiff(tmp_path / "a.tif", levels[:1], compression="jpeg", subsampling=(2, 2))
    with Slide.open(path) as slide:
        right = whole(slide)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["PhotometricInterpretation"].overwrite(2)  # type: ignore[union-attr]
    with Slide.open(path) as slide:
        assert [f.code for f in slide.findings] == ["colour_tag_conflict"]
        assert np.array_equal(whole(slide), right)


def test_an_icc_profile_is_handed_through(
    tmp_path: Path, levels: list[np.ndarray], write_tiff: Callable[..., Path]
) -> None:
    path = write_tiff(tmp_path / "a.tif", levels[:1], iccprofile=b"profile bytes")
    with Slide.open(path) as slide:
        assert slide.icc == b"profile bytes"


def test_levels_that_state_another_scale_are_told(tmp_path: Path, levels: list[np.ndarray]) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for number, (level, mpp) in enumerate(zip(levels, (0.5, 1.0, 0.7))):
            tif.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                resolution=(1e4 / mpp, 1e4 / mpp),
                resolutionunit=3,
                subfiletype=int(number > 0),
                metadata=None,
            )
    with Slide.open(tmp_path / "a.tif") as slide:
        assert slide.mpp == pytest.approx(0.5) and [f.code for f in slide.findings] == ["mpp_conflict"]
