"""One slide: good ones pass, and each kind of bad one is told by its code."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from coverslip.base.errors import SettingsError
from coverslip.preflight import check_slide
from coverslip.slide import discover
from coverslip.synthetic import SlideRecipe, damage, make_slide


def hurt(slide_file: Path, folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.tif"
    shutil.copy(slide_file, path)
    damage(path, kind)
    return path


def test_a_good_slide_is_ok_and_described(slide_file: Path) -> None:
    found = check_slide(slide_file)
    assert (found.verdict, found.reasons) == ("ok", ())
    assert (found.slide, found.path, found.reader) == ("good", str(slide_file), "tiff")
    assert (found.size, found.mpp, found.levels) == ((1536, 1536), 0.5, (1.0, 4.0, 16.0))
    assert len(found.digest) == 16
    assert found.thumbnail is not None


def test_checking_changes_nothing(slide_file: Path) -> None:
    before = slide_file.read_bytes(), sorted(slide_file.parent.iterdir())
    assert check_slide(slide_file) == check_slide(slide_file)
    assert (slide_file.read_bytes(), sorted(slide_file.parent.iterdir())) == before


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("truncate", "truncated"),
        ("random_bytes", "unreadable"),
        ("tile", "decode_failed"),
        ("zero_tile", "decode_failed"),
    ],
)
def test_damage_fails_with_its_code(slide_file: Path, tmp_path: Path, kind: str, code: str) -> None:
    found = check_slide(hurt(slide_file, tmp_path, kind))
    assert found.verdict == "fail"
    assert found.codes.count(code) == 1
    assert all(reason.fix for reason in found.reasons)
    assert found.digest is not None


def test_a_file_cut_anywhere_fails(slide_file: Path, tmp_path: Path) -> None:
    data = slide_file.read_bytes()
    for part in (0, 3, 100, len(data) // 10, len(data) // 2, len(data) - 5000):
        path = tmp_path / f"cut{part}.tif"
        path.write_bytes(data[:part])
        assert check_slide(path).verdict == "fail", part


def test_a_folder_a_text_and_nothing_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "folder.svs").mkdir()
    (tmp_path / "text.svs").write_text("slide,patient\na,b\n")
    (tmp_path / "empty.svs").touch()
    for name in ("folder.svs", "text.svs", "empty.svs", "absent.svs"):
        found = check_slide(tmp_path / name)
        assert found.codes == ("unreadable",), name
        assert (found.reader, found.size, found.levels) == (None, None, ())


def test_a_missing_scale_warns_and_names_the_way_out(picture: np.ndarray, write, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", picture, mpp=None)
    found = check_slide(path)
    assert (found.verdict, found.codes, found.mpp) == ("warn", ("mpp_missing",), None)
    assert "--set slides.mpp" in found.reasons[0].fix
    assert check_slide(path, mpp=0.5).codes == ()
    assert check_slide(path, fallback_mpp=0.5).mpp == 0.5


def test_the_fallback_scale_never_overrides_file_or_table(slide_file: Path) -> None:
    assert check_slide(slide_file, fallback_mpp=0.25).mpp == 0.5
    assert check_slide(slide_file, fallback_mpp=0.25).codes == ()
    given = check_slide(slide_file, mpp=0.25, fallback_mpp=0.7)
    assert (given.mpp, given.codes) == (0.25, ("mpp_conflict", "mpp_suspect"))


@pytest.mark.parametrize("mpp", [0, -0.5, float("nan"), float("inf"), 50.0])
def test_a_scale_that_no_microscope_has_is_told_and_not_used(slide_file: Path, mpp: float) -> None:
    found = check_slide(slide_file, mpp=mpp)
    assert (found.verdict, found.codes, found.mpp) == ("warn", ("mpp_implausible",), 0.5)


def test_an_implausible_fallback_is_told_too(picture: np.ndarray, write, tmp_path: Path) -> None:
    found = check_slide(write(tmp_path / "a.tif", picture, mpp=None), fallback_mpp=50.0)
    assert found.codes == ("mpp_implausible", "mpp_missing")


def test_an_empty_slide_fails(write, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    glass = np.clip(rng.normal(242, 2, (1024, 1024, 3)), 0, 255).astype(np.uint8)
    found = check_slide(write(tmp_path / "glass.tif", glass))
    assert (found.verdict, found.codes) == ("fail", ("no_tissue",))


def test_a_slide_smaller_than_a_tile_is_checked(picture: np.ndarray, write, tmp_path: Path) -> None:
    found = check_slide(write(tmp_path / "small.tif", picture[700:860, 700:860], levels=1))
    assert found.size == (160, 160)
    assert "decode_failed" not in found.codes


def test_a_label_image_is_told_and_not_looked_at(picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "labelled.svs"
    with tifffile.TiffWriter(path) as writer:
        tiled = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None, "maxworkers": 1}
        writer.write(picture, description="Aperio Image Library v12.0.15 \r\n1536x1536 |AppMag = 20|MPP = 0.5", **tiled)
        strips = {"photometric": "rgb", "rowsperstrip": 64, "metadata": None}
        for name in ("thumbnail", "label", "macro"):
            kind = {"thumbnail": 0, "label": 1, "macro": 9}[name]
            image = np.full((96, 128, 3), 200, np.uint8)
            text = f"Aperio Image Library v12.0.15 \r\n{name} 128x96"
            writer.write(image, description=text, subfiletype=kind, **strips)
    found = check_slide(path)
    assert "label_image_present" in found.codes
    assert found.verdict == "warn"


def test_an_unknown_reader_is_the_users_mistake(slide_file: Path) -> None:
    with pytest.raises(SettingsError, match="opensldie"):
        check_slide(slide_file, reader="opensldie")


def test_a_slide_takes_less_than_half_a_second(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    make_slide(path, SlideRecipe(side_px=4096, seed=3))
    check_slide(path)
    start = time.process_time()
    assert check_slide(path).verdict == "ok"
    assert time.process_time() - start < 0.4


# What each real file is, in codes; every code that is not named may not appear.
REAL = {
    "4D-series.ome": {"extra_axes"},
    "C3L-00601-26_pyramid": {"mpp_missing"},
    "boxes": {"mpp_missing", "mpp_implausible"},
    "broken": {"unreadable"},
    "cmu-1-small-region": {"label_image_present"},
    "fluorescence-dapi": {"not_brightfield", "label_image_present"},
    "kidney-48-5": {"mpp_missing", "mpp_implausible"},
    "smalltif": {"unreadable"},
    "tcga-cr-7395-01a-01-ts1": {"mpp_missing"},
}


@pytest.mark.data
def test_every_real_file_is_opened_or_refused_for_the_right_reason(test_data: Path) -> None:
    files = discover([test_data / "wsi"])
    assert len(files) >= 10
    for path in files:
        found = check_slide(path)
        assert set(found.codes) <= REAL[found.slide], (path, found.reasons)
        assert set(found.codes) or found.slide == "boxes", path


@pytest.mark.data
def test_48_real_biopsies_pass(test_data: Path) -> None:
    for path in discover([test_data / "prostate_slides"]):
        assert check_slide(path).reasons == (), path
