"""Opening HDF5 files of others: damage is a `FeatureError`, whatever the library makes of it.

The library raises many kinds of errors for damage, fills what a file lacks with zeros, reserves memory for any size
that a file states, and walks for ever through a heap of texts whose lengths are wrong. What it does not see is looked
at here, before it is asked. The heap ("global heap collection") is laid out in the HDF5 File Format Specification,
section III.E, https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from coverslip.base.errors import FeatureError

# What h5py raises for damage: it depends on which of the library's structures the damage hits.
_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)
# Heaps of attributes lie before the rows or behind them; so much is looked at on either side.
_LOOKED_AT = 1 << 20
# Deflate, the filter of the field, packs no better than 1,032 to 1.
_MOST_PACKED = 1100


@contextmanager
def open_hdf5(path: Path, slide: str | None = None) -> Iterator[h5py.File]:
    """The open file, for reading; what a block does with it is watched too.

    Raises:
        FeatureError: damaged, truncated or not HDF5 (code "damaged").
    """
    try:
        _check_heaps(path)
        with h5py.File(path, "r") as file:
            yield file
    except _ERRORS as error:
        raise FeatureError(
            f"{path.name} cannot be read as HDF5: {first_line(error)}.",
            slide=slide,
            fix="It is damaged or unfinished; delete it and embed the slide again.",
            code="damaged",
        ) from error


def check_whole(dataset: h5py.Dataset, path: Path) -> None:
    """Nothing, for a dataset that lies in its file with all its values.

    Raises:
        ValueError: values were never written, lie in other files, or would be larger than what is stored can hold.
    """
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{getattr(dataset, 'name', dataset)} is no dataset")
    stored = dataset.id.get_storage_size()
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"the values of {dataset.name} lie in other files")
    if dataset.chunks is not None:
        expected = int(np.prod([-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks)], dtype=object))
        if dataset.size and dataset.id.get_num_chunks() != expected:
            raise ValueError(f"{dataset.name} lists {expected} chunks and holds {dataset.id.get_num_chunks()}")
        if dataset.nbytes > _MOST_PACKED * stored:
            raise ValueError(f"{dataset.name} would unpack {stored} to {dataset.nbytes} bytes")
    elif dataset.nbytes > stored:
        raise ValueError(f"{dataset.name} has {dataset.nbytes} bytes and holds {stored}")
    elif (offset := dataset.id.get_offset()) is not None and offset + dataset.nbytes > path.stat().st_size:
        raise ValueError(f"{dataset.name} reaches behind the end of the file")


def first_line(error: BaseException) -> str:
    """The first line of an error's text without its full stop; the error's kind where it has no text."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def _check_heaps(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        starts = [0] if size <= 2 * _LOOKED_AT else [0, size - _LOOKED_AT]
        for start in starts:
            file.seek(start)
            data = file.read(size if len(starts) == 1 else _LOOKED_AT)
            at = data.find(b"GCOL\1\0\0\0")
            while at >= 0:
                _check_heap(data, at)
                at = data.find(b"GCOL\1\0\0\0", at + 8)


def _check_heap(data: bytes, start: int) -> None:
    """Walks the texts of one heap: each is a number, a count of uses and a length, 16 bytes, and then itself; number
    0 is the free rest, whose length counts all of it."""
    end = start + int.from_bytes(data[start + 8 : start + 16], "little")
    if end > len(data):
        if len(data) >= _LOOKED_AT:
            return  # it goes on outside what is looked at
        raise ValueError(f"the texts at byte {start} are cut short")
    at = start + 16
    while at + 16 <= end:
        free = data[at : at + 2] == b"\0\0"
        length = int.from_bytes(data[at + 8 : at + 16], "little")
        at += length if free else 16 + -(-length // 8) * 8
        if (free and length < 16) or at > end:
            raise ValueError(f"the lengths of the texts at byte {start} are wrong")
