from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coverslip.base.errors import CoverslipError, SettingsError, SlideError
from coverslip.base.registry import READERS
from coverslip.slide import Slide
from coverslip.slide.readers import ORDER, asked
from coverslip.slide.readers._guard import guarded


def test_every_reader_has_its_place_in_the_order() -> None:
    assert set(ORDER) == set(READERS.names())
    assert asked()[0] == "dicom"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("text.svs", b"slide,patient\na,b\n" * 40, "it is text"),
        ("empty.tif", b"", "it is empty"),
        ("zeros.ndpi", bytes(4096), "zeros"),
        ("random.mrxs", np.random.default_rng(0).bytes(4096), "first bytes"),
        ("page.svs", b"<html><body>Sign in to download</body></html>", "<html>"),
    ],
)
def test_what_is_no_slide_is_refused_in_words(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SlideError, match=told) as caught:
        Slide.open(tmp_path / name)
    assert caught.value.code == "unreadable" and caught.value.slide == Path(name).stem and caught.value.fix


def test_a_folder_named_like_a_slide_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.svs").mkdir()
    with pytest.raises(SlideError, match="folder without a DICOM slide") as caught:
        Slide.open(tmp_path / "a.svs")
    assert caught.value.code == "unreadable"


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"nowhere\.svs"):
        Slide.open(tmp_path / "nowhere.svs")


@pytest.mark.parametrize("reader", ["dicom", "tiff", "openslide", "image"])
def test_a_forced_reader_refuses_what_it_cannot_read_without_a_traceback(tmp_path: Path, reader: str) -> None:
    (tmp_path / "a.svs").write_bytes(b"nothing " * 100)
    with pytest.raises(SlideError):
        Slide.open(tmp_path / "a.svs", reader=reader)


def test_whatever_a_reader_raises_becomes_a_slide_error() -> None:
    for error in (
        ValueError("x"),
        KeyError("k"),
        RecursionError(),
        MemoryError(),
        OSError(5, "I/O"),
        ZeroDivisionError(),
    ):
        with (
            pytest.raises(SlideError, match=type(error).__name__) as caught,
            guarded("s", "Reading", code="decode_failed"),
        ):
            raise error
        assert (caught.value.slide, caught.value.code) == ("s", "decode_failed")
        assert caught.value.__cause__ is error


def test_a_file_that_ends_too_early_is_truncated() -> None:
    with pytest.raises(SlideError) as caught, guarded("s", "Opening", code="unreadable"):
        raise EOFError
    assert caught.value.code == "truncated"


def test_our_own_errors_keep_their_kind_and_get_the_slides_name() -> None:
    with pytest.raises(SettingsError, match=r"^s: m") as caught, guarded("s", "Reading", code="unreadable"):
        raise SettingsError("m", fix="f", code="c")
    assert (caught.value.fix, caught.value.code) == ("f", "c")
    with pytest.raises(CoverslipError, match=r"^other: m"), guarded("s", "Reading", code="unreadable"):
        raise SlideError("m", slide="other")


def test_an_interrupt_is_no_damage() -> None:
    with pytest.raises(KeyboardInterrupt), guarded("s", "Reading", code="unreadable"):
        raise KeyboardInterrupt


def test_a_tiff_of_another_vendor_is_handed_on(
    tmp_path: Path, write_tiff: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiff(tmp_path / "a.tif", [np.full((128, 128, 3), 200, np.uint8)])
    monkeypatch.setattr("openslide.OpenSlide.detect_format", lambda name: "ventana")
    with Slide.open(path) as slide:
        assert slide.reader == "openslide"
