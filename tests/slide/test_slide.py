from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coverslip.base.errors import SettingsError, SlideError
from coverslip.base.geometry import Box, Size, Tiles, TileSpec
from coverslip.slide import Slide
from coverslip.slide.resample import Region, resample


def planned(slide: Slide, xy: list[tuple[int, int]], *, size_px: int = 64, span: float = 64.0) -> Tiles:
    corners = np.array(xy, np.int32).reshape(-1, 2)
    return Tiles(slide.id, TileSpec(size_px, 0.5), 0.5, span, corners, np.ones(len(corners), np.float32))


@pytest.fixture(scope="module")
def image(picture: Callable[..., np.ndarray]) -> np.ndarray:
    return picture(501, 703)


@pytest.fixture(scope="module")
def path(
    tmp_path_factory: pytest.TempPathFactory, image: np.ndarray, write_tiff: Callable, make_pyramid: Callable
) -> Path:
    return write_tiff(tmp_path_factory.mktemp("slide") / "a.b.tif", make_pyramid(image, 4))


@pytest.fixture
def slide(path: Path) -> Slide:
    with Slide.open(path) as slide:
        yield slide


def test_it_knows_what_the_file_says(slide: Slide, path: Path) -> None:
    assert slide.id == "a.b" and slide.path == path
    assert slide.size == (703, 501) and slide.mpp == pytest.approx(0.5) and slide.require_mpp() == slide.mpp
    assert [level.downsample for level in slide.levels] == [1, 2, 4, 8]
    assert slide.reader == "tiff" and slide.vendor == "generic-tiff" and slide.findings == ()
    assert repr(slide) == "<Slide a.b: 703 x 501 px, mpp 0.5, tiff>"


@pytest.mark.parametrize("box", [Box(0, 0, 703, 501), Box(63, 65, 130, 1), Box(702, 500, 1, 1), Box(100, 90, 64, 64)])
def test_pixels_at_level_0_are_the_stored_ones(slide: Slide, image: np.ndarray, box: Box) -> None:
    expected = image[box.y : box.y + box.height, box.x : box.x + box.width]
    assert np.array_equal(slide.read(box, Size(box.width, box.height)), expected)
    assert np.array_equal(slide.read_level(0, box), expected)


def test_half_size_is_read_from_the_level_of_half_size(slide: Slide, make_pyramid: Callable, image: np.ndarray) -> None:
    half = make_pyramid(image, 2)[1]
    assert np.array_equal(slide.read(Box(128, 64, 200, 100), Size(100, 50)), half[32:82, 64:164])


def test_between_levels_the_next_finer_one_is_averaged(slide: Slide, make_pyramid: Callable, image: np.ndarray) -> None:
    half = make_pyramid(image, 2)[1]
    expected = resample(half[30:88, 50:165], Size(100, 50), Region(0, 0, 115, 57.5))
    assert np.array_equal(slide.read(Box(100, 60, 230, 115), Size(100, 50)), expected)


def test_a_third_is_the_mean_of_nine_pixels_within_the_rounding_of_the_level(slide: Slide, image: np.ndarray) -> None:
    blocks = image[30:330, 60:360].reshape(100, 3, 100, 3, 3).mean(axis=(1, 3))
    assert np.abs(slide.read(Box(60, 30, 300, 300), Size(100, 100)) - blocks).mean() < 2


def test_a_large_region_read_in_bands_is_the_same(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    box, out = Box(3, 5, 690, 480), Size(97, 61)
    whole = slide.read(box, out)
    monkeypatch.setattr("coverslip.slide.slide._BAND_PX", 2000)
    banded = slide.read(box, out)
    assert np.abs(banded.astype(int) - whole).max() <= 1


@pytest.mark.parametrize(
    "box",
    [Box(-1, 0, 5, 5), Box(0, 0, 704, 5), Box(0, 497, 5, 5), Box(703, 0, 1, 1), Box(0, 0, 0, 5), Box(5, 5, -3, 2)],
)
def test_a_box_outside_is_an_error_that_names_box_and_size(slide: Slide, box: Box) -> None:
    with pytest.raises(SlideError, match=r"a\.b: .*703 x 501") as caught:
        slide.read(box, Size(5, 5))
    assert caught.value.code == "outside" and f"({box.x}, {box.y})" in str(caught.value)


def test_a_level_that_is_not_there_is_an_error(slide: Slide) -> None:
    with pytest.raises(SlideError, match="Levels: 0 to 3"):
        slide.read_level(4, Box(0, 0, 1, 1))
    with pytest.raises(SlideError, match="level 3"):
        slide.read_level(3, Box(0, 0, 88, 1))


def test_the_overview_keeps_every_row_and_says_its_scale(slide: Slide, image: np.ndarray) -> None:
    overview, scale = slide.overview(100)
    assert scale == pytest.approx(7.03)
    assert overview.shape == (72, 100, 3)  # 501 / 7.03 = 71.3: the last row stands for a third of a pixel
    assert np.abs(overview[:71].mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() < 1
    untouched, one = slide.overview(5000)
    assert one == 1.0 and np.array_equal(untouched, image)


def test_a_thumbnail_is_at_the_scale_that_was_asked_for(slide: Slide) -> None:
    assert slide.thumbnail(4.0).shape == (63, 88, 3)
    assert slide.thumbnail(0.5).shape == (501, 703, 3)
    with pytest.raises(SlideError, match="mpp = 0"):
        slide.thumbnail(0)


def test_missing_mpp_is_an_error_with_the_way_out(
    tmp_path: Path, image: np.ndarray, write_tiff: Callable[..., Path]
) -> None:
    path = write_tiff(tmp_path / "b.tif", [image], mpp=None)
    with Slide.open(path) as slide:
        assert slide.mpp is None and [f.code for f in slide.findings] == ["mpp_missing"]
        with pytest.raises(SlideError, match=r"'mpp' column.*--set slides\.mpp=.*mpp=") as caught:
            slide.require_mpp()
        assert caught.value.code == "mpp_missing" and str(caught.value).startswith("b: ")
        slide.overview(100)
        with pytest.raises(SlideError):
            slide.thumbnail(8)
    with Slide.open(path, mpp=0.25) as slide:
        assert slide.require_mpp() == 0.25 and slide.findings == ()


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), 50])
def test_an_impossible_mpp_is_refused_before_the_file_is_touched(tmp_path: Path, mpp: float) -> None:
    with pytest.raises(SlideError, match=r"0\.05 to 20"):
        Slide.open(tmp_path / "never.svs", mpp=mpp)


def test_a_given_mpp_wins_and_the_conflict_is_told(path: Path) -> None:
    with Slide.open(path, mpp=0.25) as slide:
        assert slide.mpp == 0.25 and [f.code for f in slide.findings] == ["mpp_conflict"]
        assert "0.5" in slide.findings[0].message and "0.25" in slide.findings[0].message


def test_pixels_that_are_not_square_are_an_error_where_the_scale_is_needed(
    tmp_path: Path, image: np.ndarray, write_tiff: Callable[..., Path]
) -> None:
    path = write_tiff(tmp_path / "c.tif", [image], mpp=None, resolution=(20000, 40000), resolutionunit=3)
    with Slide.open(path) as slide, pytest.raises(SlideError, match="not square") as caught:
        slide.require_mpp()
    assert caught.value.code == "mpp_conflict"


def test_a_closed_slide_says_so_and_closes_twice(path: Path) -> None:
    slide = Slide.open(path)
    slide.close()
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        slide.read(Box(0, 0, 1, 1), Size(1, 1))
    with pytest.raises(SlideError, match="closed"):
        slide.tiles(planned(slide, [(0, 0)]))


def test_closing_a_slide_while_its_tiles_are_read_is_no_damage_of_tiles(path: Path) -> None:
    slide = Slide.open(path)
    batches = slide.tiles(planned(slide, [(x, y) for y in range(0, 400, 64) for x in range(0, 600, 64)]), batch=1)
    next(batches)
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        list(batches)


def test_a_pickled_slide_is_its_path_and_scale(path: Path, image: np.ndarray) -> None:
    with Slide.open(path, mpp=0.3, reader="openslide") as slide:
        sent = pickle.dumps(slide)
    with pickle.loads(sent) as copy:  # noqa: S301 - made two lines above
        assert (copy.id, copy.mpp, copy.reader) == ("a.b", 0.3, "openslide")
        assert np.array_equal(copy.read_level(0, Box(0, 0, 703, 501)), image)


def test_every_tile_comes_once_with_the_pixels_of_its_box(slide: Slide, image: np.ndarray) -> None:
    xy = [(x, y) for y in range(0, 400, 50) for x in range(0, 600, 47)]
    batches = list(slide.tiles(planned(slide, xy), batch=10, threads=3))
    index = np.concatenate([b.index for b in batches])
    assert sorted(index.tolist()) == list(range(len(xy)))
    images = np.concatenate([b.images for b in batches])
    for row, tile in zip(index, images):
        x, y = xy[row]
        assert np.array_equal(tile, image[y : y + 64, x : x + 64])


def test_tiles_between_levels_equal_reading_each_alone(slide: Slide) -> None:
    tiles = planned(slide, [(0, 0), (13, 57), (400, 300)], size_px=32, span=97.3)
    (batch,) = slide.tiles(tiles)
    for i, row in enumerate(batch.index.tolist()):
        assert np.array_equal(batch.images[i], slide.read(tiles.box(row), Size(32, 32)))


def test_a_tile_that_leaves_the_slide_is_an_error_before_anything_is_read(slide: Slide) -> None:
    with pytest.raises(SlideError, match="not inside") as caught:
        slide.tiles(planned(slide, [(0, 0), (700, 0)]))
    assert caught.value.code == "outside"


def test_no_tiles_are_no_batches(slide: Slide) -> None:
    assert list(slide.tiles(planned(slide, []))) == []
    with pytest.raises(ValueError, match="batch"):
        slide.tiles(planned(slide, []), batch=0)


def test_an_associated_image_that_is_not_there_is_named(slide: Slide) -> None:
    with pytest.raises(SlideError, match="'label'"):
        slide.associated_image("label")


def test_a_reader_can_be_forced_and_must_exist(path: Path, image: np.ndarray) -> None:
    with Slide.open(path, reader="openslide") as slide:
        assert slide.reader == "openslide"
        assert np.array_equal(slide.read_level(0, Box(0, 0, 703, 501)), image)
    with pytest.raises(SettingsError, match="Did you mean 'openslide'"):
        Slide.open(path, reader="openslid")


def test_the_fingerprint_is_of_the_content(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other.tif"
    copy.write_bytes(path.read_bytes())
    with Slide.open(path) as one, Slide.open(copy) as other:
        assert one.fingerprint() == other.fingerprint()


def test_a_large_slide_without_a_pyramid_is_told(tmp_path: Path, write_tiff: Callable[..., Path]) -> None:
    path = write_tiff(tmp_path / "flat.tif", [np.full((64, 8256, 3), 200, np.uint8)])
    with Slide.open(path) as slide:
        assert [f.code for f in slide.findings] == ["no_pyramid"]
