from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from coverslip.slide.readers._files import Cache, FileBytes


@pytest.fixture(params=["with pread", "without pread"])
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileBytes:
    if request.param == "without pread":
        monkeypatch.delattr(os, "pread", raising=False)
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)) * 100)
    opened = FileBytes(path)
    yield opened
    opened.close()


def test_many_threads_read_by_position(file: FileBytes) -> None:
    with ThreadPoolExecutor(8) as pool:
        for start, data in pool.map(lambda start: (start, file.read(start, 10)), range(0, 25_000, 7)):
            assert data == bytes((start + i) % 256 for i in range(10))


@pytest.mark.parametrize(("offset", "count"), [(25_600, 1), (25_590, 11), (-1, 5), (0, -1), (2**40, 1)])
def test_what_lies_outside_is_an_error_and_never_fewer_bytes(file: FileBytes, offset: int, count: int) -> None:
    with pytest.raises(EOFError):
        file.read(offset, count)


def test_the_cache_keeps_what_was_used_last_within_its_bytes() -> None:
    made: list[int] = []

    def make(key: int) -> np.ndarray:
        made.append(key)
        return np.full(100, key, np.uint8)

    cache = Cache(250)
    for key in (1, 2, 1, 3, 1, 2):
        assert cache.get(key, lambda k=key: make(k))[0] == key  # type: ignore[misc]
    assert made == [1, 2, 3, 2]


def test_a_cached_array_cannot_be_changed_by_accident() -> None:
    value = Cache(1000).get("a", lambda: np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        value[0] = 1
