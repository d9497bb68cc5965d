"""Memory for pixels that is used again.

Fresh memory costs a page fault for every 4 KiB, which for a batch of tiles adds a tenth to decoding it. What is lent
here comes back by itself, and only when Python would have freed it: numpy keeps the object that an array was made of
alive in every view of it, and so does whatever shares memory with an array (tensors, buffers). When that object goes,
nobody is left who could see the memory change. A caller may keep a batch, or a corner of it, as long as he likes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import final

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray


@final
class Rooms:
    """Rooms of `num_bytes` to decode into, 16 bytes behind a multiple of 64; up to `most` wait to be used again.

    Where rows of pixels start at a multiple of 32, libjpeg-turbo turns YCbCr into RGB with stores that go past the
    caches, and the next step fetches every pixel back from memory: decoding takes a tenth to a quarter longer. The
    offset costs nothing where that is not so.
    """

    def __init__(self, num_bytes: int, most: int) -> None:
        self._num_bytes, self._most = num_bytes, most
        self._idle: list[ndarray] = []

    def take(self) -> UInt8[ndarray, s]:
        """A room nobody else sees; what is in it is left over."""
        try:
            block = self._idle.pop()  # the one used last: some of it is still in the processor's cache
        except IndexError:
            whole = np.empty(self._num_bytes + 64, dtype=np.uint8)
            start = (16 - whole.ctypes.data) % 64
            block = whole[start : start + self._num_bytes]
        return np.asarray(_Lent(block, self))

    def give(self, block: ndarray) -> None:
        # No lock: this is called wherever the last view dies, which may be in the middle of `take`.
        if len(self._idle) < self._most:
            self._idle.append(block)


class _Lent:
    """What the arrays that show a block are made of; numpy asks it where the block lies."""

    __slots__ = ("__array_interface__", "_block", "_rooms")

    def __init__(self, block: ndarray, rooms: Rooms) -> None:
        self._block, self._rooms = block, rooms
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        self._rooms.give(self._block)


# One slide after another has tiles of the same size. When the size changes, the rooms of the old one go.
@lru_cache(maxsize=1)
def shared_rooms(num_bytes: int, most: int) -> Rooms:
    """The rooms of that length that all slides of the process share."""
    return Rooms(num_bytes, most)
