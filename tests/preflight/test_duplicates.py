"""What only shows beside other slides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coverslip.preflight import SlideReport, Twins, check_slide
from coverslip.preflight.duplicates import compare


def report(path: Path, content: bytes, digest: str = "d") -> SlideReport:
    path.write_bytes(content)
    return SlideReport(slide=path.stem, path=str(path), digest=digest)


def test_equal_files_are_duplicates_of_the_first(tmp_path: Path) -> None:
    reports = [report(tmp_path / name, b"same") for name in ("a.svs", "b.svs", "c.svs")]
    found = compare(reports)
    assert [slide.codes for slide in found.slides] == [(), ("duplicate_of",), ("duplicate_of",)]
    assert all("same content as a (" in slide.reasons[0].message for slide in found.slides[1:])
    assert found.twins == (Twins("a", "b", "exact"), Twins("a", "c", "exact"), Twins("b", "c", "exact"))


def test_an_equal_digest_of_samples_is_confirmed_by_every_byte(tmp_path: Path) -> None:
    found = compare([report(tmp_path / "a.svs", b"one"), report(tmp_path / "b.svs", b"two")])
    assert found.twins == ()


def test_a_file_that_vanished_is_no_duplicate(tmp_path: Path) -> None:
    reports = [report(tmp_path / name, b"same") for name in ("a.svs", "b.svs")]
    (tmp_path / "a.svs").unlink()
    assert compare(reports).twins == ()


def test_two_slides_of_one_name_are_told(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    found = compare([report(tmp_path / "a.svs", b"one", "1"), report(tmp_path / "x" / "a.svs", b"two", "2")])
    assert [slide.codes for slide in found.slides] == [(), ("same_name",)]
    assert str(tmp_path / "a.svs") in found.slides[1].reasons[0].message


def test_the_same_picture_in_another_file_is_a_near_duplicate(slide_file: Path, tmp_path: Path) -> None:
    first = check_slide(slide_file)
    second = replace(first, slide="other", path="other.tif", digest="another")
    found = compare([first, second])
    assert [slide.codes for slide in found.slides] == [(), ("near_duplicate_of",)]
    assert found.twins == (Twins("good", "other", "near"),)
    assert found.slides[1].verdict == "warn"


@pytest.mark.parametrize("reports", [[], [SlideReport("a", "a.svs")]])
def test_nothing_to_compare_is_no_crash(reports: list[SlideReport]) -> None:
    assert compare(reports).twins == ()
