"""Where the rows of a feature file lie: mapped from the file where it can be, read on each use where it cannot.

A training set is hundreds of files. Each is described here by a few numbers and opened when its rows are asked for,
so that neither memory nor open file handles grow with the cohort.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from coverslip.base.errors import FeatureError
from coverslip.store.hdf5_open import open_hdf5

_BLOCK_BYTES = 1 << 24
# The exponent of an Inf or NaN is all ones. Looking at the bits is several times faster than isfinite on float16.
_EXPONENT: dict[int, tuple[Any, int]] = {2: (np.uint16, 0x7C00), 4: (np.uint32, 0x7F800000)}


class RowSource(Protocol):
    """Something that gives (n, d) float16 or float32 rows each time it is asked."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def load(self) -> Float[ndarray, "n d"]: ...


@dataclass(frozen=True)
class Stamp:
    """What tells a file from its successor of the same name."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class MappedRows:
    """Rows that lie contiguously in a file: mapped into memory, nothing is read before it is used."""

    path: Path
    offset: int
    shape: tuple[int, int]
    dtype: str
    stamp: Stamp

    def load(self) -> Float[ndarray, "n d"]:
        if Stamp.of(self.path) != self.stamp:
            raise FeatureError(
                f"{self.path} was replaced while it was in use.", fix="Start again; nothing was lost.", code="changed"
            )
        return np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape)


@dataclass(frozen=True)
class ChunkedRows:
    """Rows of an HDF5 dataset that is chunked or compressed: read whole on each use."""

    path: Path
    dataset: str
    shape: tuple[int, int]

    def load(self) -> Float[ndarray, "n d"]:
        with open_hdf5(self.path) as file:
            return as_floats(np.asarray(file[self.dataset][()]).reshape(self.shape))


@dataclass(frozen=True)
class ReadRows:
    """Rows that a function reads from a file, on each use."""

    path: Path
    read: Callable[[Path], ndarray]
    shape: tuple[int, int]

    def load(self) -> Float[ndarray, "n d"]:
        return as_floats(np.asarray(self.read(self.path)).reshape(self.shape))


def as_floats(rows: ndarray) -> Float[ndarray, "n d"]:
    """The same rows as little-endian float16 or float32: what is wider is narrowed to float32."""
    if rows.dtype == np.dtype("<f2") or rows.dtype == np.dtype("<f4"):
        return rows
    return rows.astype("<f2" if rows.dtype == np.dtype(">f2") else "<f4")


def bad_rows(rows: Float[ndarray, "n d"]) -> tuple[int, int]:
    """How many rows hold a NaN or infinity, and the first of them (-1 for none); one pass, in blocks."""
    kind, exponent = _EXPONENT[rows.dtype.itemsize]
    step = max(1, _BLOCK_BYTES // max(1, rows.shape[1] * rows.dtype.itemsize))
    count, first = 0, -1
    for start in range(0, len(rows), step):
        masked = np.ascontiguousarray(rows[start : start + step]).view(kind) & kind(exponent)
        if masked.max() != exponent:
            continue
        bad = (masked == exponent).any(axis=1)
        first = start + int(bad.argmax()) if first < 0 else first
        count += int(bad.sum())
    return count, first
