from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import simplejpeg
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Box, Size
from coverslip.slide import Slide


@pytest.fixture(scope="module")
def image(picture: Callable[..., np.ndarray]) -> np.ndarray:
    return picture(150, 230)


def ycbcr(subsampling: str) -> Callable[[np.ndarray], bytes]:
    return lambda frame: simplejpeg.encode_jpeg(frame, quality=95, colorsubsampling=subsampling)


def rgb(frame: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(frame, level=95, colorspace="RGB", outcolorspace="RGB")


def whole(slide: Slide, level: int = 0) -> np.ndarray:
    return slide.read_level(level, Box(0, 0, *slide.levels[level].size))


def test_uncompressed_frames_are_the_pixels_that_were_written(
    tmp_path: Path, image: np.ndarray, write_dicom: Callable[..., Path]
) -> None:
    with Slide.open(write_dicom(tmp_path / "a.dcm", image)) as slide:
        assert slide.reader == "dicom" and slide.vendor == "dicom" and slide.size == (230, 150)
        assert slide.mpp == pytest.approx(0.5) and slide.objective == 20 and slide.findings == ()
        assert np.array_equal(whole(slide), image)
        assert np.array_equal(slide.read_level(0, Box(60, 50, 70, 90)), image[50:140, 60:130])


def test_nothing_that_names_the_patient_is_handed_out(
    tmp_path: Path, image: np.ndarray, write_dicom: Callable[..., Path]
) -> None:
    with Slide.open(write_dicom(tmp_path / "a.dcm", image)) as slide:
        told = " ".join([*slide.properties.values(), repr(slide)])
        assert "Secret" not in told and "12345" not in told


@pytest.mark.parametrize(
    ("stream", "tag", "conflict"),
    [
        ("420", "YBR_FULL_422", False),
        ("444", "YBR_FULL_422", False),
        ("422", "RGB", True),
        ("444", "RGB", True),
        ("rgb", "RGB", False),
        ("rgb", "YBR_FULL_422", True),
    ],
)
def test_the_frames_decide_the_colour_and_a_wrong_tag_is_told(
    tmp_path: Path, image: np.ndarray, write_dicom: Callable[..., Path], stream: str, tag: str, conflict: bool
) -> None:
    encode = rgb if stream == "rgb" else ycbcr(stream)
    with Slide.open(write_dicom(tmp_path / "a.dcm", image, encode=encode, tag=tag)) as slide:
        assert [f.code for f in slide.findings] == ["colour_tag_conflict"] * conflict
        assert np.abs(whole(slide).astype(int) - image).mean() < 4


def test_a_folder_of_one_series_is_one_slide(
    tmp_path: Path, image: np.ndarray, make_pyramid: Callable, write_dicom: Callable[..., Path]
) -> None:
    folder = tmp_path / "case 7"
    folder.mkdir()
    levels = make_pyramid(image, 3)
    for number, level in enumerate(reversed(levels)):
        write_dicom(folder / f"{number}.dcm", level, series="1.2.3.9", mpp=0.5 * 2 ** (2 - number))
    (folder / "readme.txt").write_text("not DICOM")
    with Slide.open(folder) as slide:
        assert slide.id == "case 7"
        assert [level.downsample for level in slide.levels] == [1, 2, 4] and slide.findings == ()
        assert all(np.array_equal(whole(slide, i), levels[i]) for i in range(3))
        assert np.array_equal(slide.read(Box(0, 0, 200, 100), Size(100, 50)), levels[1][:50, :100])


def test_a_folder_of_two_series_is_refused(tmp_path: Path, image: np.ndarray, write_dicom: Callable[..., Path]) -> None:
    write_dicom(tmp_path / "a.dcm", image)
    write_dicom(tmp_path / "b.dcm", image)
    with pytest.raises(SlideError, match="2 series") as caught:
        Slide.open(tmp_path)
    assert caught.value.code == "unreadable"


def test_a_label_alone_is_no_slide(tmp_path: Path, image: np.ndarray, write_dicom: Callable[..., Path]) -> None:
    path = write_dicom(tmp_path / "a.dcm", image[:64, :64], flavour="LABEL")
    with pytest.raises(SlideError, match="label image of a slide"):
        Slide.open(path)


def test_a_label_is_only_read_when_asked_for(
    tmp_path: Path, image: np.ndarray, write_dicom: Callable[..., Path]
) -> None:
    write_dicom(tmp_path / "a.dcm", image, series="1.2.3")
    write_dicom(tmp_path / "b.dcm", image[:64, :64], series="1.2.3", flavour="LABEL")
    with Slide.open(tmp_path) as slide:
        assert slide.associated == ("label",)
        assert np.array_equal(slide.associated_image("label"), image[:64, :64])


def test_frames_that_a_sparse_file_leaves_out_are_white(
    tmp_path: Path, image: np.ndarray, write_dicom: Callable[..., Path]
) -> None:
    with Slide.open(write_dicom(tmp_path / "a.dcm", image, missing={0, 5})) as slide:
        pixels = whole(slide)
    assert (pixels[:64, :64] == 255).all() and (pixels[64:128, 64:128] == 255).all()
    assert np.array_equal(pixels[:64, 64:], image[:64, 64:])


@pytest.mark.parametrize(("planes", "paths"), [(3, 1), (1, 2)])
def test_focal_planes_and_optical_paths_are_extra_axes(
    tmp_path: Path, image: np.ndarray, write_dicom: Callable[..., Path], planes: int, paths: int
) -> None:
    stacked = np.concatenate([image[:64, :64]] * planes * paths, axis=1)
    identifiers = [Dataset() for _ in range(paths)]
    for number, dataset in enumerate(identifiers):
        dataset.OpticalPathIdentifier = str(number)
    path = write_dicom(
        tmp_path / "a.dcm",
        stacked,
        TotalPixelMatrixColumns=64,
        TotalPixelMatrixRows=64,
        TotalPixelMatrixFocalPlanes=planes,
        NumberOfOpticalPaths=paths,
        OpticalPathSequence=identifiers,
    )
    with pytest.raises(SlideError) as caught:
        Slide.open(path)
    assert caught.value.code == "extra_axes"


def test_ycbcr_without_jpeg_becomes_rgb(tmp_path: Path, image: np.ndarray, write_dicom: Callable[..., Path]) -> None:
    stored = np.asarray(Image.fromarray(image).convert("YCbCr"))
    path = write_dicom(tmp_path / "a.dcm", stored, tag="YBR_FULL")
    with pytest.raises(SlideError, match="YBR_FULL"):
        Slide.open(path)
    data = pydicom.dcmread(path)
    data.compress(RLELossless)
    data.save_as(path)
    with Slide.open(path) as slide:
        assert np.abs(whole(slide).astype(int) - image).max() <= 3  # rounding there and back


def test_a_slide_without_pixel_spacing_has_no_scale_or_is_refused(
    tmp_path: Path, image: np.ndarray, write_dicom: Callable[..., Path]
) -> None:
    path = write_dicom(tmp_path / "a.dcm", image)
    data = pydicom.dcmread(path)
    del data.SharedFunctionalGroupsSequence
    data.save_as(path)
    try:
        with Slide.open(path) as slide:
            codes = [f.code for f in slide.findings]
    except SlideError as error:
        codes = [error.code]
    assert codes in (["mpp_missing"], ["unreadable"])


def test_a_slide_that_is_cut_short_is_refused(tmp_path: Path, image: np.ndarray, write_dicom: Callable) -> None:
    for encode, tag in ((None, "RGB"), (ycbcr("420"), "YBR_FULL_422")):
        path = write_dicom(tmp_path / "a.dcm", image, encode=encode, tag=tag)
        data = path.read_bytes()
        for part in (0.6, 0.9):
            path.write_bytes(data[: int(len(data) * part)])
            with pytest.raises(SlideError) as caught:
                Slide.open(path)
            assert caught.value.code == "truncated", (tag, part, str(caught.value))


def test_a_frame_whose_codes_are_broken_is_an_error_of_that_frame(
    tmp_path: Path, image: np.ndarray, write_dicom: Callable[..., Path]
) -> None:
    calls = iter(range(100))

    def encode(frame: np.ndarray) -> bytes:
        stream = ycbcr("420")(frame)
        return stream[: len(stream) // 2] + b"\0" * (len(stream) // 2) if next(calls) == 5 else stream

    with Slide.open(write_dicom(tmp_path / "a.dcm", image, encode=encode, tag="YBR_FULL_422")) as slide:
        with pytest.raises(SlideError) as caught:
            slide.read_level(0, Box(64, 64, 64, 64))
        assert caught.value.code == "decode_failed"
        slide.read_level(0, Box(128, 64, 64, 64))


def test_a_file_with_a_tiff_header_in_its_preamble_is_dicom(
    tmp_path: Path, image: np.ndarray, write_dicom: Callable[..., Path]
) -> None:
    path = write_dicom(tmp_path / "a.dcm", image)
    data = bytearray(path.read_bytes())
    data[:8] = b"II*\0\x10\0\0\0"
    path.write_bytes(bytes(data))
    with Slide.open(path) as slide:
        assert slide.reader == "dicom"
