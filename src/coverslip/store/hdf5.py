"""Writing one feature file: HDF5 lays out its metadata in memory, and the bytes are written here.

HDF5 does not take a full disk well: the error comes late, from closing, and what is left in memory may end the
process. So the library writes to an object that only remembers (positions and bytes of metadata, a few kilobytes), and
the rows go to their offset with plain writes, where a full disk is an ordinary OSError. The result is an ordinary HDF5
file with contiguous datasets, which every tool reads and which can be mapped into memory.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy import ndarray

from coverslip.base.files import atomic


def write_hdf5(
    path: Path,
    shape: tuple[int, int],
    blocks: Iterable[ndarray],
    *,
    name: str = "features",
    small: Mapping[str, ndarray],
    attributes: Mapping[str, Any],
    coords_attributes: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the dataset `name` (shape, float16) from row blocks in order, the `small` datasets and the attributes.

    Raises:
        StoreError: the disk is full or the folder cannot be written; no half file is left.
    """
    memory = _Remembered()
    with h5py.File(memory, "w") as file:
        for key, array in small.items():
            file.create_dataset(key, data=array)
        for key, value in (coords_attributes or {}).items():
            file["coords"].attrs[key] = value
        for key, value in attributes.items():
            file.attrs[key] = value
        offset = _reserve(file, name, shape)
    written = 0
    with atomic(path) as temporary, temporary.open("r+b") as out:
        out.truncate(memory.size)
        for position, data in memory.writes:
            out.seek(position)
            out.write(data)
        out.seek(offset)
        for block in blocks:
            assert block.dtype == np.dtype("<f2") and block.shape[1] == shape[1]
            out.write(np.ascontiguousarray(block).data)
            written += len(block)
    assert written == shape[0], (written, shape)
    return path


def _reserve(file: h5py.File, name: str, shape: tuple[int, int]) -> int:
    """The offset of a new contiguous float16 dataset whose bytes HDF5 itself leaves alone."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # equal features are equal files, whenever they were written
    dtype = h5py.h5t.py_create(np.dtype("<f2"), logical=True)
    dataset = h5py.h5d.create(file.id, name.encode(), dtype, h5py.h5s.create_simple(shape), properties)
    offset = dataset.get_offset()
    assert offset is not None
    return int(offset)


class _Remembered(io.RawIOBase):
    """A file that keeps what is written as (position, bytes) and never holds the gaps between."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, bytes]] = []
        self.size = 0
        self._position = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self.size = self._position if size is None else size
        return self.size

    def write(self, data: Any) -> int:
        self.writes.append((self._position, bytes(data)))
        self._position += len(data)
        self.size = max(self.size, self._position)
        return len(data)

    def readinto(self, buffer: Any) -> int:
        start, stop = self._position, min(self._position + len(buffer), self.size)
        found = bytearray(max(0, stop - start))
        for position, data in self.writes:
            low, high = max(position, start), min(position + len(data), stop)
            if low < high:
                found[low - start : high - start] = data[low - position : high - position]
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)
