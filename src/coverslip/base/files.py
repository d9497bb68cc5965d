"""Writing files so that a half-written one is never taken for whole, and reading paths that stay where they should."""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coverslip.base.errors import StoreError, TableError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_UMASK = threading.Lock()
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it there when the block ends well, removes it otherwise.

    Raises:
        StoreError: the disk is full, or the folder is none or cannot be written.
    """
    path = Path(path)
    with storage_errors(path):
        temporary, handle = _beside(path)
        try:
            yield temporary
            # mkstemp is private to its owner; a shared store needs what a plain open would have given.
            temporary.chmod(0o666 & ~_umask())
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
            os.close(handle)


def remove_abandoned(folder: Path) -> None:
    """Removes what killed processes left of `atomic` anywhere below the folder; files being written are locked, and
    stay. Where the system has no locks nothing is removed."""
    if fcntl is None:
        return
    for left in Path(folder).rglob(".*.part"):
        with suppress(OSError):  # being written by another process or user, or removed by it just now
            handle = os.open(left, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(handle)


def _beside(path: Path) -> tuple[Path, int]:
    """A new, empty file in the folder of `path`, which is made where it is missing; open and locked."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
            if fcntl is None:
                return Path(name), handle
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:  # else it was removed as abandoned before it was locked
                return Path(name), handle
            os.close(handle)
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        # Something else than a folder lies on the way, or the system makes no files there.
        raise StoreError(
            f"{path} cannot be written: {path.parent} is no folder that can hold files.",
            fix="Choose another folder.",
            code="no_folder",
        ) from error


def _umask() -> int:
    # The system tells the mask only by setting it; two threads that did so at once could leave it at 0.
    with _UMASK:
        mask = os.umask(0)
        os.umask(mask)
    return mask


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a read-only folder into a `StoreError` that names the path and the way out."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(
                f"No space left while writing {path}.",
                fix="Free some space or write elsewhere; what is finished is kept, and the next run goes on from it.",
                code="disk_full",
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise StoreError(
                f"{path} cannot be written: {error.strerror}.",
                fix="Choose a folder you may write to.",
                code="read_only",
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Writes bytes atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; numbers that JSON cannot hold (NaN, infinity) become null."""
    write_text(path, json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file that Coverslip wrote; empty where it is damaged, so that it counts as not there."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def finite(value: Any) -> Any:
    """The same value with every NaN or infinity replaced by None and tuples by lists, as JSON wants it."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return finite(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def confined(root: Path, relative: str, *, what: str) -> Path:
    """`root / relative`, absolute, refused where the text leaves `root` by `..` or by an absolute path.

    Links inside `root` are followed: who made them chose what they lead to, and a table cannot make one.

    Raises:
        TableError: naming `what` and the path.
    """
    root = Path(os.path.abspath(root))  # noqa: PTH100 - `..` is resolved in the text, links are not
    path = Path(os.path.normpath(root / relative))
    if not path.is_relative_to(root):
        raise TableError(
            f"{what}: the path {relative!r} leaves {root}.", fix="Set cohort.root to a folder that holds it."
        )
    return path


def safe_name(name: str, *, what: str) -> str:
    """`name` itself where it can be a file's name; slides and folds become files, so separators are refused.

    Raises:
        TableError: for an empty name, one with a slash, a backslash, a NUL or a control character, or `.` and `..`.
    """
    if not name or name in {".", ".."} or any(c in "/\\" or ord(c) < 32 for c in name):
        raise TableError(
            f"{what}: {name!r} cannot be the name of a file.", fix="Use letters, digits, '-', '_' and '.'."
        )
    return name
