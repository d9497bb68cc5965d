"""The unfinished features of one slide: rows by number, and which of them are finished. Survives a kill at any moment.

One hidden file `.<slide>.rows` beside the feature files:

    magic, length of the header | header (JSON: fingerprint, coords digest, n, d) | a byte a row | rows, float16 | notes

A row's byte is set only after the row itself is on the disk, so what is marked as finished is finished. Notes at the
end say why rows were skipped. The file is locked with flock while a process works on it: a second process is told so,
and the lock of a dead process is gone with the process.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float16, UInt8
from numpy import ndarray

from coverslip.base.errors import StoreError
from coverslip.base.files import storage_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MAGIC = b"CSROWS1\n"
_PAGE = 4096
_HEADER_AT = 16

TODO, DONE, SKIPPED = 0, 1, 2


@dataclass(frozen=True)
class Header:
    """What the rows belong to; a sidecar with another header is of no use and starts anew."""

    fingerprint: str
    coords: str
    n: int
    d: int


class Sidecar:
    """An open, locked sidecar file. `close` unlocks it, `remove` deletes it."""

    def __init__(self, path: Path, header: Header, *, slide: str) -> None:
        """Opens and locks; keeps the rows that are there if they belong to `header`, starts anew otherwise.

        Raises:
            StoreError: another process works on this slide (code "locked"), the folder cannot be written, or the
                system has no flock.
        """
        self.path = path
        self.header = header
        self._states_at = _PAGE
        self._rows_at = _round_up(_PAGE + header.n)
        self._notes_at = self._rows_at + header.n * header.d * 2
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_locked(path, slide)
            with ExitStack() as on_failure:
                on_failure.callback(os.close, self._file)
                if not self._belongs():
                    self._start()
                on_failure.pop_all()

    def states(self) -> UInt8[ndarray, n]:
        """TODO, DONE or SKIPPED for each row."""
        return np.frombuffer(os.pread(self._file, self.header.n, self._states_at), np.uint8)

    def write(self, index: ndarray, rows: Float16[ndarray, "b d"]) -> None:
        """Puts rows at `index` (b,) and marks them as finished once they are on the disk."""
        width = self.header.d * 2
        data = np.ascontiguousarray(rows, dtype="<f2")
        with storage_errors(self.path):
            for first, count, row in _stretches(index):
                self._put(data[first : first + count].tobytes(), self._rows_at + row * width)
            _sync(self._file)
            self._mark(index, DONE)

    def skip(self, index: int, reason: str) -> None:
        """Marks a row as skipped, with the reason."""
        note = json.dumps({"index": index, "reason": reason}) + "\n"
        with storage_errors(self.path):
            self._put(note.encode(), max(self._notes_at, os.fstat(self._file).st_size))
            _sync(self._file)
            self._mark(np.array([index]), SKIPPED)

    def reasons(self) -> dict[int, str]:
        """Why each skipped row was skipped; the last note of a row counts, a torn note does not."""
        size = os.fstat(self._file).st_size
        text = os.pread(self._file, max(0, size - self._notes_at), self._notes_at).decode("utf-8", errors="replace")
        found: dict[int, str] = {}
        for line in text.splitlines():
            try:
                note = json.loads(line)
                found[int(note["index"])] = str(note["reason"])
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def rows(self) -> Float16[ndarray, "n d"]:
        """All rows, mapped; those not finished are zero."""
        return np.memmap(self.path, dtype="<f2", mode="r", offset=self._rows_at, shape=(self.header.n, self.header.d))

    def remove(self) -> None:
        """Deletes the file while it is locked, so that nobody else can be in between."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Unlocks; what is finished stays for the next process."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _belongs(self) -> bool:
        return _read_header(self._file) == asdict(self.header) and os.fstat(self._file).st_size >= self._notes_at

    def _start(self) -> None:
        text = json.dumps(asdict(self.header)).encode()
        assert _HEADER_AT + len(text) <= _PAGE
        os.ftruncate(self._file, 0)
        os.ftruncate(self._file, self._notes_at)
        _sync(self._file)
        # The header comes last: a start that was cut off is no sidecar.
        self._put((_MAGIC + len(text).to_bytes(8, "little") + text).ljust(_PAGE, b"\0"), 0)
        _sync(self._file)

    def _mark(self, index: ndarray, state: int) -> None:
        for _, count, row in _stretches(index):
            self._put(bytes([state]) * count, self._states_at + row)

    def _put(self, data: bytes, position: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, position)
            view, position = view[written:], position + written


def remove_stale(path: Path, fingerprint: str) -> None:
    """Removes the sidecar of a slide that is finished with this fingerprint, unless a process works on it."""
    if fcntl is None:
        return
    try:
        file = _open_locked(path, path.name, flags=os.O_RDONLY)
    except (StoreError, FileNotFoundError, PermissionError):
        return
    try:
        found = _read_header(file)
        if found is None or found.get("fingerprint") == fingerprint:
            path.unlink(missing_ok=True)
    finally:
        os.close(file)


def _read_header(file: int) -> dict[str, object] | None:
    head = os.pread(file, _PAGE, 0)
    if len(head) < _PAGE or not head.startswith(_MAGIC):
        return None
    length = int.from_bytes(head[8:_HEADER_AT], "little")
    try:
        found = json.loads(head[_HEADER_AT : _HEADER_AT + length])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def unfinished(folder: Path) -> dict[str, bool]:
    """The slides of a store that are begun and not finished; True for those that a process works on at this moment."""
    found = {}
    for path in sorted(Path(folder).glob(".*.rows")):
        with path.open("rb") as file:
            found[path.name[1 : -len(".rows")]] = not _lockable(file.fileno())
    return found


def is_held(folder: Path, slide: str) -> bool:
    """True where a process works on the slide at this moment; costs nothing, and promises nothing of the next."""
    try:
        with sidecar_path(folder, slide).open("rb") as file:
            return not _lockable(file.fileno())
    except OSError:
        return False


def sidecar_path(folder: Path, slide: str) -> Path:
    """Where the unfinished rows of a slide are or would be."""
    return Path(folder) / f".{slide}.rows"


def _lockable(file: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_locked(path: Path, slide: str, *, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    if fcntl is None:
        raise StoreError(
            "this system has no flock, which keeps two runs from writing the same slide.",
            slide=slide,
            fix="Embed on Linux or macOS (on Windows: in WSL); reading and training work everywhere.",
            code="no_lock",
        )
    while True:
        file = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
        with ExitStack() as on_failure:
            on_failure.callback(os.close, file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    "another process is embedding this slide into the same store.",
                    slide=slide,
                    fix="Let it finish, or stop it; its lock goes with it.",
                    code="locked",
                ) from error
            on_failure.pop_all()
        # The holder before us may have finished and deleted the file between our open and our lock.
        try:
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except FileNotFoundError:
            pass
        os.close(file)


def _sync(file: int) -> None:
    # macOS has no fdatasync.
    getattr(os, "fdatasync", os.fsync)(file)


def _stretches(index: ndarray) -> list[tuple[int, int, int]]:
    """Runs of consecutive rows as (place in index, count, first row): one write each instead of one a row."""
    if len(index) == 0:
        return []
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    starts = [0, *breaks.tolist()]
    stops = [*breaks.tolist(), len(index)]
    return [(start, stop - start, int(index[start])) for start, stop in zip(starts, stops)]


def _round_up(position: int) -> int:
    return -(-position // _PAGE) * _PAGE
