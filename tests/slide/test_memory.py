"""Memory that is used again never changes under anybody who can still see it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.slide.batches import OPEN_BYTES, OpenBatches, read_batches
from coverslip.slide.memory import Rooms, shared_rooms

VIEWS: dict[str, Callable[[np.ndarray], object]] = {
    "itself": lambda room: room,
    "a slice": lambda room: room[5:9],
    "a slice of a reshaped slice": lambda room: room[4:].reshape(-1, 4)[1:, ::2].T[..., None],
    "another type": lambda room: room[:64].view(np.uint32),
    "a subclass": lambda room: room.view(np.matrix),
    "a memoryview": lambda room: memoryview(room)[3:5],
    "an array of a memoryview": lambda room: np.frombuffer(memoryview(room), np.uint8),
    "a read-only broadcast": lambda room: np.broadcast_to(room, (3, len(room))),
    "an iterator": lambda room: np.nditer(room),
    "the base": lambda room: room.base,
    "an object of the array protocol": lambda room: np.asarray(memoryview(room)),
    "another library": lambda room: np.from_dlpack(room),
    "a tensor": lambda room: pytest.importorskip("torch").from_numpy(room)[7:],
    "a tensor by dlpack": lambda room: pytest.importorskip("torch").from_dlpack(room)[None, ::3],
}


@pytest.mark.parametrize("kind", VIEWS)
def test_a_room_is_not_lent_again_while_anything_shows_it(kind: str) -> None:
    rooms = Rooms(128, 8)
    room = rooms.take()
    address = room.ctypes.data
    view = VIEWS[kind](room)
    del room
    others = [rooms.take() for _ in range(5)]
    assert address not in {other.ctypes.data for other in others}
    del view
    gc.collect()
    assert rooms.take().ctypes.data == address


def test_rooms_start_where_decoding_is_fast_and_never_overlap() -> None:
    rooms = Rooms(1000, 3)
    for _ in range(3):
        taken = [rooms.take() for _ in range(6)]
        starts = sorted(room.ctypes.data for room in taken)
        assert all(start % 64 == 16 for start in starts) and np.diff(starts).min() >= 1000
        assert all(room.shape == (1000,) and room.dtype == np.uint8 and room.flags.writeable for room in taken)


def test_no_more_rooms_wait_than_allowed() -> None:
    rooms = Rooms(100, 2)
    taken = [rooms.take() for _ in range(9)]
    del taken
    assert len(rooms._idle) == 2


def test_batches_wait_in_no_more_memory_than_open_ones_take() -> None:
    for side_px, batch in ((224, 64), (512, 64), (2048, 8), (4, 8)):
        rooms = OpenBatches(np.arange(1000), side_px=side_px, batch=batch)._rooms
        assert rooms._most * side_px * side_px * 3 * batch <= OPEN_BYTES
        assert rooms._most > 0 or side_px * side_px * 3 * batch > OPEN_BYTES


def test_another_size_lets_the_rooms_of_the_last_one_go() -> None:
    first = shared_rooms(12345, 3)
    assert shared_rooms(12345, 3) is first
    assert shared_rooms(54321, 3) is not first
    assert shared_rooms(12345, 3) is not first


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), max_size=200))
def test_whatever_is_kept_keeps_its_values(moves: list[tuple[int, int]]) -> None:
    """Takes, keeps parts and drops in any order: each kept view still holds the number its room was filled with."""
    rooms = Rooms(64, 3)
    kept: list[tuple[np.ndarray, int]] = []
    for number, (move, at) in enumerate(moves):
        if move < 3 or not kept:
            room = rooms.take()
            room[:] = number % 256
            kept.append(([room, room[at:], room.reshape(8, 8)[:, at % 8 :]][move % 3], number % 256))
        elif move == 3:
            del kept[at % len(kept)]
        else:
            view, value = kept[at % len(kept)]
            kept[at % len(kept)] = (view[:1], value)
        assert all((view == value).all() for view, value in kept)


def test_batches_that_are_kept_do_not_change_while_others_are_read() -> None:
    """Several passes at once, each keeping some batches or parts of them at random, dropping the rest."""
    failed: list[str] = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        for turn in range(6):
            salt = int(rng.integers(250))

            def tile(index: int, salt: int = salt) -> np.ndarray:
                return np.full((8, 8, 3), (index + salt) % 251, np.uint8)

            for batch in read_batches(tile, 200, side_px=8, batch=8, threads=2):
                wanted = ((batch.index + salt) % 251).astype(np.uint8)
                choice = rng.integers(4)
                if choice == 0:
                    kept.append((batch.images[2:5, 1:, ::2], wanted[2:5]))
                elif choice == 1 and rng.integers(4) == 0:
                    kept.append((batch.images, wanted))
                elif choice == 2 and kept:
                    kept.pop(int(rng.integers(len(kept))))
                if any((images != values[:, None, None, None]).any() for images, values in kept):
                    failed.append(f"pass {turn} of reader {seed}")
                    return

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert failed == []
