"""A bounded queue between two stages of the engine, which can be stopped from outside."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """Raised in whoever waits at a pipe when the engine stops; never reaches a user."""


class Pipe(Generic[T]):
    """A queue of at most `size` things: whoever puts waits while it is full, whoever gets while it is empty."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = self._stopped = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Hands one thing on.

        Raises:
            Stopped: nobody will take it any more.
        """
        with self._changed:
            while len(self._items) >= self._size and not self._stopped:
                self._changed.wait()
            self._go_on()
            assert not self._closed, "a closed pipe takes nothing more"
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> T | None:
        """The next thing; None when the pipe is closed and empty.

        Raises:
            Stopped: the engine stops.
        """
        with self._changed:
            self._wait_for_items()
            self._go_on()
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def drain(self) -> list[T]:
        """All that is there, at least one thing; nothing when the pipe is closed or stopped and empty.

        What was put before the engine stopped can still be taken: rows that are made are kept.
        """
        with self._changed:
            self._wait_for_items()
            items = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return items

    def close(self) -> None:
        """Nothing more will be put; what is there can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Wakes everybody who waits here."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _wait_for_items(self) -> None:
        while not (self._items or self._closed or self._stopped):
            self._changed.wait()

    def _go_on(self) -> None:
        if self._stopped:
            raise Stopped
