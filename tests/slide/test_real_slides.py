"""Real files of many scanners: opened right, or refused for the right reason."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Box, Size
from coverslip.slide import Slide, discover, to_srgb

pytestmark = pytest.mark.data

# file: reader, size, levels, mpp, codes of findings
OPENED = {
    "wsi/cmu-1-small-region.svs": ("tiff", (2220, 2967), 1, 0.499, []),
    "wsi/tcga-cr-7395-01a-01-ts1.svs": ("tiff", (4443, 3567), 2, None, ["mpp_missing"]),
    "wsi/C3L-00601-26_pyramid.tif": ("tiff", (5477, 5154), 5, None, ["mpp_missing"]),
    "wsi/boxes.tiff": ("tiff", (300, 250), 4, None, ["mpp_implausible", "mpp_missing"]),
    "wsi/boxes.png": ("image", (300, 250), 1, None, ["mpp_missing"]),
    "wsi/kidney-48-5.tif": ("tiff", (1493, 901), 1, None, ["mpp_implausible", "mpp_missing"]),
    "wsi/fluorescence-dapi.ndpi": ("openslide", (3968, 4864), 7, 0.228175, []),
    "wsi_dicom/camelyon": ("dicom", (1152, 700), 1, None, ["mpp_implausible", "mpp_missing"]),
    "wsi_dicom/highdicom/sm_image.dcm": ("dicom", (50, 50), 1, 0.499, []),
    "wsi_dicom/highdicom/sm_image_jpegls.dcm": ("dicom", (50, 50), 1, 0.499, []),
    "wsi_dicom/highdicom/sm_image_jpegls_nobot.dcm": ("dicom", (50, 50), 1, 0.499, []),
}
REFUSED = {
    "wsi/4D-series.ome.tiff": ("extra_axes", r"T \(7\), Z \(5\)"),
    "wsi/broken.svs": ("unreadable", "No reader knows"),
    "wsi/smalltif.tif": ("unreadable", "16-bit"),
    "wsi_dicom/highdicom": ("unreadable", "6 series"),
    "wsi_dicom/highdicom/ct_image.dcm": ("unreadable", "CT"),
    "wsi_dicom/highdicom/seg_image_sm_dots.dcm": ("unreadable", "Segmentation"),
    "wsi_dicom/highdicom/sm_annotations.dcm": ("unreadable", "Annotations"),
    "wsi_dicom/highdicom/sm_image_grayscale.dcm": ("unreadable", "16 bits"),
}


@pytest.mark.parametrize("name", OPENED)
def test_it_opens_and_says_what_it_is(test_data: Path, name: str) -> None:
    reader, size, levels, mpp, codes = OPENED[name]
    with Slide.open(test_data / name) as slide:
        assert (slide.reader, tuple(slide.size), len(slide.levels)) == (reader, size, levels)
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-4))
        assert [f.code for f in slide.findings] == codes
        overview, scale = slide.overview(256)
        assert max(overview.shape[:2]) <= 256 and scale >= 1


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_for_the_right_reason(test_data: Path, name: str) -> None:
    code, told = REFUSED[name]
    with pytest.raises(SlideError, match=told) as caught:
        Slide.open(test_data / name)
    assert caught.value.code == code and caught.value.fix


def test_every_file_opens_or_is_refused_with_a_code(test_data: Path) -> None:
    refused = {}
    for path in discover([test_data / "wsi", test_data / "wsi_dicom"]):
        try:
            with Slide.open(path) as slide:
                slide.read_level(0, Box(0, 0, min(100, slide.size.width), min(100, slide.size.height)))
        except SlideError as error:
            refused[path.name] = error
    assert len(refused) > 10
    assert all(e.code in {"unreadable", "extra_axes"} and e.fix for e in refused.values()), refused


@pytest.mark.parametrize(
    "name",
    [
        "wsi/cmu-1-small-region.svs",
        "wsi/tcga-cr-7395-01a-01-ts1.svs",
        "wsi/C3L-00601-26_pyramid.tif",
        "wsi/boxes.tiff",
        "prostate_slides/slides/pr_08b1c6fb.tif",
        "wsi_dicom/camelyon/multi_frame_jpeg_camelyon_challenge_image.dcm",
    ],
)
def test_every_pixel_equals_openslide(test_data: Path, name: str) -> None:
    with Slide.open(test_data / name) as slide, openslide.OpenSlide(str(test_data / name)) as reference:
        for level in slide.levels:
            expected = np.asarray(reference.read_region((0, 0), level.index, level.size))
            assert (expected[..., 3] == 255).all()
            assert np.array_equal(slide.read_level(level.index, Box(0, 0, *level.size)), expected[..., :3])
        box = Box(37, 53, min(211, slide.size.width - 37), 97)
        expected = np.asarray(reference.read_region(box[:2], 0, box[2:]))[..., :3]
        assert np.array_equal(slide.read(box, Size(box.width, box.height)), expected)


@pytest.mark.parametrize("name", ["wsi/cmu-1-small-region.svs", "wsi/tcga-cr-7395-01a-01-ts1.svs"])
def test_associated_images_equal_openslide(test_data: Path, name: str) -> None:
    with Slide.open(test_data / name) as slide, openslide.OpenSlide(str(test_data / name)) as reference:
        assert set(slide.associated) == set(reference.associated_images)
        for kind in slide.associated:
            expected = np.asarray(reference.associated_images[kind].convert("RGB"))
            assert np.array_equal(slide.associated_image(kind), expected)


def test_the_drawing_in_two_formats_is_the_same(test_data: Path) -> None:
    with Slide.open(test_data / "wsi/boxes.png") as png, Slide.open(test_data / "wsi/boxes.tiff") as tiff:
        assert np.array_equal(png.overview(300)[0], tiff.overview(300)[0])
        assert png.icc and png.icc == tiff.icc
        assert to_srgb(png.overview(300)[0], png.icc).shape == (250, 300, 3)


def test_the_ihc_photograph_equals_pillow(test_data: Path) -> None:
    path = test_data / "wsi/kidney-48-5.tif"
    with Slide.open(path) as slide:
        assert np.array_equal(slide.read_level(0, Box(0, 0, *slide.size)), np.array(Image.open(path).convert("RGB")))


def test_a_missing_scale_can_be_given(test_data: Path) -> None:
    with Slide.open(test_data / "wsi/tcga-cr-7395-01a-01-ts1.svs", mpp=0.25) as slide:
        assert slide.thumbnail(8.0).shape == (112, 139, 3)


def test_every_biopsy_opens_at_half_a_micron(test_data: Path) -> None:
    with (test_data / "prostate_slides/cohort.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        with Slide.open(test_data / "prostate_slides" / row["path"]) as slide:
            assert slide.id == row["slide"] and slide.mpp == pytest.approx(0.5) and slide.findings == ()
            assert [level.downsample for level in slide.levels] == [1, 4, 16]
