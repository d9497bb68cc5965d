from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.base.errors import SlideError
from coverslip.slide.batches import read_batches


def tile(index: int) -> np.ndarray:
    return np.full((4, 4, 3), index % 256, np.uint8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 70), st.integers(1, 20), st.integers(1, 5))
def test_every_tile_comes_once_and_in_order(num: int, batch: int, threads: int) -> None:
    batches = list(read_batches(tile, num, side_px=4, batch=batch, threads=threads))
    assert [i for b in batches for i in b.index.tolist()] == list(range(num))
    assert all(len(b) == batch for b in batches[:-1])
    assert all(b.ok.all() and b.errors == () for b in batches)
    assert [int(b.images[k, 0, 0, 0]) for b in batches for k in range(len(b))] == [i % 256 for i in range(num)]


def test_one_damaged_tile_is_flagged_and_harms_no_other() -> None:
    def read(index: int) -> np.ndarray:
        if index in {3, 10}:
            raise SlideError(f"tile {index} is broken", code="decode_failed")
        return tile(index)

    batches = list(read_batches(read, 12, side_px=4, batch=8, threads=3))
    ok = np.concatenate([b.ok for b in batches])
    assert np.flatnonzero(~ok).tolist() == [3, 10]
    assert batches[0].errors == ("tile 3 is broken",) and batches[1].errors == ("tile 10 is broken",)
    assert (batches[0].images[3] == 0).all() and (batches[0].images[4] == 4).all()


def test_a_batch_far_larger_than_all_tiles_takes_no_more_memory_than_they_do() -> None:
    (only,) = read_batches(tile, 5, side_px=4, batch=1 << 50, threads=2)
    assert only.images.shape == (5, 4, 4, 3)


def test_a_mistake_of_ours_is_not_swallowed() -> None:
    def read(index: int) -> np.ndarray:
        raise AssertionError("an invariant is broken")

    with pytest.raises(AssertionError, match="invariant"):
        list(read_batches(read, 3, side_px=4, batch=2, threads=2))


def test_no_more_than_a_few_batches_are_read_ahead() -> None:
    lock, read_so_far = threading.Lock(), [0]

    def read(index: int) -> np.ndarray:
        with lock:
            read_so_far[0] += 1
        return tile(index)

    batches = read_batches(read, 1000, side_px=4, batch=10, threads=2)
    next(batches)
    time.sleep(0.1)
    assert 10 <= read_so_far[0] <= 10 + 60
    batches.close()


def test_closing_early_stops_the_threads() -> None:
    before = threading.active_count()
    batches = read_batches(tile, 1000, side_px=4, batch=10, threads=4)
    next(batches)
    batches.close()
    assert threading.active_count() == before
