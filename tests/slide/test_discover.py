from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coverslip.base.errors import SlideError
from coverslip.slide import discover, slide_id


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_slides_are_found_below_folders_sorted_and_once(tmp_path: Path) -> None:
    touch(tmp_path / "b.svs", tmp_path / "sub" / "a.TIFF", tmp_path / "notes.txt", tmp_path / ".hidden.svs")
    assert discover([tmp_path, tmp_path / "b.svs"]) == [tmp_path / "b.svs", tmp_path / "sub" / "a.TIFF"]


def test_a_file_named_directly_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path / "slide.weird")
    assert discover([tmp_path / "slide.weird"]) == [tmp_path / "slide.weird"]


def test_the_data_folder_of_an_mrxs_slide_is_no_slide(tmp_path: Path) -> None:
    touch(tmp_path / "m.mrxs", tmp_path / "m" / "Data0000.dat", tmp_path / "m" / "preview.png")
    assert discover([tmp_path]) == [tmp_path / "m.mrxs"]


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="nowhere"):
        discover([tmp_path / "nowhere"])


def test_a_folder_of_one_dicom_series_is_one_slide(tmp_path: Path, write_dicom: Callable[..., Path]) -> None:
    image = np.full((70, 90, 3), 200, np.uint8)
    folder = tmp_path / "slide7"
    folder.mkdir()
    write_dicom(folder / "1.dcm", image, series="1.2.3")
    write_dicom(folder / "without_suffix", image[:35, :45], series="1.2.3", mpp=1.0)
    assert discover([tmp_path]) == [folder] and slide_id(folder) == "slide7"
    write_dicom(folder / "2.dcm", image, series="1.2.4")
    assert discover([tmp_path]) == [folder / "1.dcm", folder / "2.dcm"]


@pytest.mark.parametrize(("name", "slide"), [("a.svs", "a"), ("a.ome.tiff", "a.ome"), ("noext", "noext")])
def test_the_id_is_the_name_without_the_last_suffix(tmp_path: Path, name: str, slide: str) -> None:
    assert slide_id(tmp_path / name) == slide
