from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coverslip.base.errors import Finding
from coverslip.preflight import check_slide
from coverslip.preflight.content import overview
from coverslip.preflight.nuclei import mpp_against_nuclei
from coverslip.slide import Slide
from coverslip.synthetic import make_cohort


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("drawn")
    make_cohort(folder, slides=3, damaged=0, side_px=1536)
    return sorted((folder / "slides").iterdir())


def _found(path: Path, factor: float, mpp: float | None = None) -> list[Finding]:
    """What is said of a slide whose stated scale is wrong by a factor."""
    with Slide.open(path, mpp=mpp) as slide:
        slide.mpp = slide.require_mpp() * factor
        return mpp_against_nuclei(slide, *overview(slide))


def test_drawn_slides_at_their_scale_are_not_suspected(drawn: list[Path]) -> None:
    assert [_found(path, 1) for path in drawn] == [[], [], []]


def test_drawn_slides_at_half_their_scale_are_suspected(drawn: list[Path]) -> None:
    found = [finding for path in drawn for finding in _found(path, 0.5)]
    assert len(found) >= 2
    assert {finding.code for finding in found} == {"mpp_suspect"}
    assert all("too small" in finding.message and finding.fix for finding in found)


def test_scanned_slides_at_their_scale_are_not_suspected(test_data: Path) -> None:
    slides = sorted((test_data / "prostate_slides" / "slides").iterdir())[:10]
    for path in [*slides, test_data / "wsi" / "cmu-1-small-region.svs"]:
        assert _found(path, 1) == [], path.name


def test_most_scanned_slides_at_half_or_double_scale_are_suspected(test_data: Path) -> None:
    slides = sorted((test_data / "prostate_slides" / "slides").iterdir())[:10]
    for factor, told in ((0.5, "too small"), (2, "too large")):
        found = [finding for path in slides for finding in _found(path, factor)]
        assert len(found) >= 5
        assert all(told in finding.message for finding in found)


def test_other_stains_and_pictures_are_not_judged(test_data: Path, tmp_path: Path) -> None:
    for name in ("kidney-48-5.tif", "fluorescence-dapi.ndpi"):
        assert _found(test_data / "wsi" / name, 0.5, mpp=None if "ndpi" in name else 0.5) == []


def test_a_picture_without_nuclei_is_not_judged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pink = np.clip(rng.normal((220, 150, 190), 6, (600, 600, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pink).save(tmp_path / "pink.png")
    assert _found(tmp_path / "pink.png", 1, mpp=0.5) == []


def test_check_tells_a_suspected_scale_as_a_warning(drawn: list[Path]) -> None:
    assert all("mpp_suspect" not in check_slide(path).codes for path in drawn)
    told = [check_slide(path, mpp=0.25) for path in drawn]
    assert sum("mpp_suspect" in report.codes for report in told) >= 2
    assert {report.verdict for report in told} == {"warn"}
