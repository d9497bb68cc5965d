"""Bytes of a file by position, for many threads at once, and a bounded memory of decoded pieces."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock

from numpy import ndarray


class FileBytes:
    """A file that is read by position. Where the system has `pread`, threads do not wait for each other; elsewhere
    (Windows) a lock keeps seek and read together."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.size = path.stat().st_size
        self._lock = Lock()

    def read(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes.

        Raises:
            EOFError: the file ends before.
        """
        if offset < 0 or count < 0 or offset + count > self.size:
            raise EOFError(f"bytes {offset} to {offset + count} lie outside the file of {self.size} bytes")
        if hasattr(os, "pread"):
            data = os.pread(self._file.fileno(), count, offset)
            while len(data) < count and (more := os.pread(self._file.fileno(), count - len(data), offset + len(data))):
                data += more
        else:
            with self._lock:
                self._file.seek(offset)
                data = self._file.read(count) or b""
        if len(data) < count:
            raise EOFError(f"the file ends at byte {offset + len(data)}, {count - len(data)} short")
        return data

    def close(self) -> None:
        self._file.close()


class Cache:
    """The most recently used arrays, up to `max_bytes` of them; safe for threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._held = 0
        self._items: OrderedDict[Hashable, ndarray] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], ndarray]) -> ndarray:
        """The array of `key`, made where it is not held. Two threads may make the same one; neither waits."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        value = make()
        value.setflags(write=False)
        with self._lock:
            if key not in self._items:
                self._items[key] = value
                self._held += value.nbytes
            while self._held > self._max and len(self._items) > 1:
                self._held -= self._items.popitem(last=False)[1].nbytes
        return value
