"""Digests: results are reused because their inputs and settings are the same, never because a file exists."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_HEAD = 1 << 20
_SAMPLE = 1 << 16
_SAMPLES = 64


def digest(value: Any) -> str:
    """16 hex digits of any JSON-able value; equal values give equal digests whatever the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path, *, whole: bool = False) -> str:
    """16 hex digits of a file's content.

    By default of its length, first and last MiB and 64 samples in between, so that a slide of many gigabytes costs
    milliseconds; `whole=True` reads every byte (to confirm that two files are the same).
    """
    sha = hashlib.sha256()
    size = path.stat().st_size
    sha.update(str(size).encode())
    with path.open("rb") as file:
        if whole or size <= 2 * _HEAD + _SAMPLES * _SAMPLE:
            while block := file.read(_HEAD):
                sha.update(block)
        else:
            step = (size - 2 * _HEAD) // _SAMPLES
            sha.update(file.read(_HEAD))
            for i in range(_SAMPLES):
                file.seek(_HEAD + i * step)
                sha.update(file.read(_SAMPLE))
            file.seek(size - _HEAD)
            sha.update(file.read(_HEAD))
    return sha.hexdigest()[:16]


def path_digest(path: Path, *, whole: bool = False) -> str:
    """`file_digest` for a file; for a folder (a DICOM series) the digest of its files in the order of their names."""
    if path.is_dir():
        return digest([(p.name, file_digest(p, whole=whole)) for p in sorted(path.iterdir()) if p.is_file()])
    return file_digest(path, whole=whole)
