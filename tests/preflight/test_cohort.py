"""Many slides: in order, in child processes, and against each other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from coverslip.base.errors import SettingsError
from coverslip.base.progress import Silent
from coverslip.preflight import Twins, check_cohort, check_slide
from coverslip.synthetic import SlideRecipe, damage, make_cohort, make_slide

# Native code that hangs or crashes on files of certain names, and checks the others.
HOSTILE = """
import os, signal, time
from pathlib import Path
from coverslip.preflight.check import check_slide
from coverslip.preflight.workers import serve

def handle(request):
    stem = Path(request["path"]).stem
    if stem.startswith("hang"):
        time.sleep(600)
    if stem.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return check_slide(request["path"]).to_json()

serve(handle)
"""


@pytest.fixture
def folder(slide_file: Path, tmp_path: Path) -> Path:
    """Five slides: two good ones, an exact copy, one cut short, one text."""
    shutil.copy(slide_file, tmp_path / "a.tif")
    make_slide(tmp_path / "b.tif", SlideRecipe(side_px=512, seed=8))
    shutil.copy(slide_file, tmp_path / "c.tif")
    shutil.copy(slide_file, tmp_path / "d.tif")
    damage(tmp_path / "d.tif", "truncate")
    (tmp_path / "e.svs").write_text("no slide")
    return tmp_path


def test_a_cohort_is_checked_in_order_as_each_slide_alone(folder: Path) -> None:
    paths = sorted(folder.iterdir())
    found = check_cohort(paths)
    assert [slide.path for slide in found.slides] == [str(p) for p in paths]
    assert found.slides[0] == check_slide(paths[0])
    assert [slide.codes for slide in found.slides] == [(), (), ("duplicate_of",), ("truncated",), ("unreadable",)]
    assert found.twins == (Twins("a", "c", "exact"),)
    assert [slide.slide for slide in found.failed] == ["d", "e"]
    json.dumps(found.to_json(), allow_nan=False)


def test_how_many_work_at_once_changes_nothing(folder: Path) -> None:
    paths = sorted(folder.iterdir())
    assert check_cohort(paths, jobs=1) == check_cohort(paths, jobs=3)


def test_a_path_that_comes_twice_is_checked_once(slide_file: Path) -> None:
    assert len(check_cohort([slide_file, str(slide_file)]).slides) == 1


def test_a_table_may_name_slides_otherwise_than_their_files(slide_file: Path, tmp_path: Path) -> None:
    (tmp_path / "b.svs").write_text("no slide")
    found = check_cohort([slide_file, slide_file, tmp_path / "b.svs"], names=["x", "y", "z"], mpp={"y": 0.25})
    assert [slide.slide for slide in found.slides] == ["x", "y", "z"]
    assert [slide.mpp for slide in found.slides] == [0.5, 0.25, None]
    assert found.slides[1].codes == ("mpp_conflict", "mpp_suspect", "duplicate_of")
    assert found.twins == (Twins("x", "y", "exact"),)


def test_no_slides_are_no_crash() -> None:
    assert check_cohort([]).slides == ()


def test_a_turned_and_saved_again_copy_is_found_and_no_other(picture: np.ndarray, write, tmp_path: Path) -> None:
    write(tmp_path / "a.tif", picture)
    write(tmp_path / "b.tif", np.rot90(picture[::-1]), quality=40)
    make_slide(tmp_path / "c.tif", SlideRecipe(side_px=512, seed=8))
    found = check_cohort(sorted(tmp_path.iterdir()))
    assert [slide.codes for slide in found.slides] == [(), ("near_duplicate_of",), ()]
    assert found.twins == (Twins("a", "b", "near"),)


def test_hangs_and_crashes_harm_no_other_slide(slide_file: Path, tmp_path: Path) -> None:
    script = tmp_path / "hostile.py"
    script.write_text(HOSTILE)
    slides = tmp_path / "slides"
    slides.mkdir()
    for name in ("crash1", "good1", "hang1", "good2", "crash2"):
        shutil.copy(slide_file, slides / f"{name}.tif")
    start = time.monotonic()
    found = check_cohort(sorted(slides.iterdir()), timeout_s=3, command=[sys.executable, str(script)])
    assert time.monotonic() - start < 60
    told = {slide.slide: slide for slide in found.slides}
    assert told["good1"].codes == ()
    assert told["good2"].codes == ("duplicate_of",)
    for name, words in (("crash1", "SIGSEGV"), ("crash2", "SIGSEGV"), ("hang1", "no answer within 3 s")):
        assert told[name].codes == ("unreadable",)
        assert told[name].verdict == "fail"
        assert words in told[name].reasons[0].message


def test_an_interrupt_ends_the_processes_at_once(slide_file: Path, tmp_path: Path) -> None:
    script = tmp_path / "hostile.py"
    script.write_text(HOSTILE)
    paths = [tmp_path / "good1.tif", tmp_path / "hang1.tif", tmp_path / "hang2.tif"]
    for path in paths:
        shutil.copy(slide_file, path)

    class Interrupted(Silent):
        def stage(self, name: str, total: int, *, unit: str) -> Interrupted:
            return self

        def __enter__(self) -> Interrupted:
            return self

        def __exit__(self, *_: object) -> None: ...

        def advance(self, n: int = 1, *, note: str = "") -> None:
            raise KeyboardInterrupt

    before = threading.active_count()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        check_cohort(paths, timeout_s=300, progress=Interrupted(), command=[sys.executable, str(script)])
    while threading.active_count() > before and time.monotonic() - start < 60:
        time.sleep(0.05)
    assert time.monotonic() - start < 60


def test_scales_go_to_their_slides(picture: np.ndarray, write, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.tif", picture[:512, :512], mpp=None) for name in "abc"]
    found = check_cohort(paths, mpp={"a": 0.25, "b": 50.0}, fallback_mpp=0.5)
    assert [slide.mpp for slide in found.slides] == [0.25, None, 0.5]


def test_progress_is_told_slide_by_slide(folder: Path) -> None:
    notes: list[str] = []

    class Listening:
        def stage(self, name: str, total: int, *, unit: str) -> Listening:
            notes.append(f"{name} {total} {unit}")
            return self

        def say(self, message: str) -> None: ...

        def __enter__(self) -> Listening:
            return self

        def __exit__(self, *_: object) -> None: ...

        def advance(self, n: int = 1, *, note: str = "") -> None:
            notes.append(note)

    check_cohort(sorted(folder.iterdir()), progress=Listening())
    assert notes[0] == "check 5 slide"
    assert sorted(notes[1:]) == ["a: ok", "b: ok", "c: ok", "d: fail", "e: fail"]


def test_an_unknown_reader_is_refused_before_anything_starts(slide_file: Path) -> None:
    with pytest.raises(SettingsError, match="opensldie"):
        check_cohort([slide_file], reader="opensldie")


def test_a_synthetic_cohort_has_one_failure_and_no_false_alarm(tmp_path: Path) -> None:
    make_cohort(tmp_path, slides=8, damaged=1, side_px=1024, seed=3)
    found = check_cohort(sorted((tmp_path / "slides").iterdir()))
    assert sorted(slide.verdict for slide in found.slides) == ["fail"] + ["ok"] * 8
    assert found.twins == ()


def test_checking_imports_no_torch() -> None:
    code = "import sys, coverslip.preflight.check, coverslip.preflight.cohort; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
