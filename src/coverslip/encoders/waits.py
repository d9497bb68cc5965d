"""How much of their time reading threads wait for the storage, as the system counts it."""

from __future__ import annotations

import threading
from pathlib import Path

# Threads of ours that read nothing.
_OTHERS = ("MainThread", "coverslip-embed", "coverslip-plan")


class StorageWaits:
    """Watches the threads that read tiles.

    Linux counts for each thread how long it ran and how long it waited for a free core. What is left of the time in
    which tiles were waited for, the thread slept: for the disk or the network. Elsewhere nothing is counted, and the
    share is 0.
    """

    def __init__(self) -> None:
        self.share = 0.0
        self._seen: dict[int, float] = {}  # a thread -> seconds it ran or waited for a core
        self._last = (0.0, 0.0)

    def look(self, thread_seconds: float) -> float:
        """The share, 0..1, since the last look; `thread_seconds` is the time of all reading threads together so far.

        `share` is then that of the whole time.
        """
        for thread in threading.enumerate():
            if thread.native_id is not None and not thread.name.startswith(_OTHERS):
                self._seen[thread.native_id] = max(self._seen.get(thread.native_id, 0.0), _busy_s(thread.native_id))
        busy = sum(self._seen.values())
        if busy == 0:
            return 0.0
        self.share = _share(busy, thread_seconds)
        before, self._last = self._last, (busy, thread_seconds)
        return _share(busy - before[0], thread_seconds - before[1])


def _share(busy: float, whole: float) -> float:
    return min(1.0, max(0.0, 1 - busy / whole)) if whole > 0 else 0.0


def _busy_s(native_id: int) -> float:
    """Seconds a thread ran or waited for a core; 0 where the system does not tell or the thread is gone."""
    try:
        # Asked for each thread with each batch of tiles: unbuffered, it costs half as much.
        with Path(f"/proc/self/task/{native_id}/schedstat").open("rb", buffering=0) as file:
            ran, waited = file.read().split()[:2]
    except (OSError, ValueError):
        return 0.0
    return (int(ran) + int(waited)) / 1e9
