"""What lies in a feature file, in the layouts of the field. Facts that a file does not hold stay None.

| layout     | rows               | coords                      | what else the file says               |
|------------|--------------------|-----------------------------|---------------------------------------|
| coverslip  | features (n, d)    | (n, 2), level-0 px          | everything, as attributes             |
| TRIDENT    | features (n, d)    | (n, 2), level-0 px          | on coords: patch_size_level0, ...     |
| CLAM       | features (n, d)    | (n, 2), level-0 px          | on coords: patch_size and patch_level |
| STAMP      | feats (n, d)       | (n, 2), µm                  | unit = "um", tile_size_um, extractor  |
| AtlasPatch | features/<encoder> | (n, 5): x, y in level-0 px  | patch_size_level0                     |
| plain      | features or feats  | frame unknown               | nothing                               |

Sources: the projects' own documentation and files they wrote (github.com/mahmoodlab/TRIDENT, mahmoodlab/CLAM,
KatherLab/STAMP, AtlasAnalyticsLab/AtlasPatch).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy import ndarray

from coverslip.base.errors import FeatureError
from coverslip.store.hdf5_open import check_whole, first_line, open_hdf5
from coverslip.store.identity import FORMAT, FeatureIdentity, plain_attribute
from coverslip.store.rows import ChunkedRows, MappedRows, ReadRows, RowSource, Stamp

Frame = Literal["level0_px", "um"]

ROW_NAMES = ("features", "feats")
COORD_NAMES = ("coords", "coordinates")
_FAMILY = FORMAT.rpartition("/")[0]


@dataclass(frozen=True)
class Contents:
    """What was found in a file, before it is judged."""

    layout: str
    rows: ndarray | RowSource
    dtype: np.dtype[Any]
    coords: ndarray | None = None
    frame: Frame | None = None
    identity: FeatureIdentity | None = None
    mpp: float | None = None
    span: float | None = None
    span_um: float | None = None
    encoder: str | None = None
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[int, str], ...] = ()


def read_hdf5(path: Path, slide: str) -> Contents:
    """What an HDF5 file holds, whoever wrote it.

    Raises:
        FeatureError: truncated, not HDF5, or without features.
    """
    with open_hdf5(path, slide) as file:
        return _read_open(file, path, slide)


def read_attributes(path: Path) -> dict[str, Any]:
    """The attributes of an HDF5 file as plain values; empty where it cannot be read."""
    try:
        with open_hdf5(path) as file:
            return {key: plain_attribute(value) for key, value in file.attrs.items()}
    except FeatureError:
        return {}


def _read_open(file: h5py.File, path: Path, slide: str) -> Contents:
    attributes = {key: plain_attribute(value) for key, value in file.attrs.items()}
    written = str(attributes.get("format", ""))
    if written.startswith(f"{_FAMILY}/"):
        return _read_ours(file, attributes, path, slide)
    dataset = _rows_dataset(file, path, slide)
    rows = _row_source(dataset, path)
    coords, on_coords = _coords(file, path)
    facts = {**attributes, **on_coords}
    common: dict[str, Any] = {"rows": rows, "dtype": dataset.dtype, "coords": coords}
    if dataset.name.startswith("/features/"):
        name = dataset.name.rpartition("/")[2]
        return Contents(
            "AtlasPatch", **common, frame="level0_px", span=_number(facts, "patch_size_level0"), encoder=name
        )
    if facts.get("unit") == "um":
        size = _number(facts, "tile_size_um") or _number(facts, "tile_size")
        return Contents("STAMP", **common, frame="um", span_um=size, encoder=_text(facts, "extractor"))
    if "patch_size_level0" in facts:
        span = _number(facts, "patch_size_level0")
        encoder = _text(dict(dataset.attrs), "encoder") or _text(facts, "encoder")
        return Contents("TRIDENT", **common, frame="level0_px", span=span, encoder=encoder)
    if "patch_size" in facts and "patch_level" in facts:
        return Contents("CLAM", **common, frame="level0_px", span=_clam_span(facts))
    return Contents("plain HDF5", **common)


def _read_ours(file: h5py.File, attributes: Mapping[str, Any], path: Path, slide: str) -> Contents:
    if attributes["format"] != FORMAT:
        raise FeatureError(
            f"the file has the format {attributes['format']!r}; this version reads {FORMAT!r}.",
            slide=slide,
            fix="Update coverslip.",
            code="version",
        )
    if "features" not in file:
        raise FeatureError("the file has no dataset 'features'.", slide=slide, code="damaged")
    # A file converted from another tool's has only what that tool kept: no identity, perhaps no scale.
    identity = FeatureIdentity.from_attributes(attributes, slide=slide) if "tiles" in attributes else None
    skipped: list[tuple[int, str]] = []
    if "skipped" in file:
        reasons = [plain_attribute(reason) for reason in _values(file["skipped_reasons"], path)]
        skipped = list(zip([int(i) for i in _values(file["skipped"], path)], reasons))
    return Contents(
        "coverslip",
        rows=_row_source(file["features"], path),
        dtype=file["features"].dtype,
        coords=_values(file["coords"], path) if "coords" in file else None,
        frame="level0_px",
        identity=identity,
        mpp=_number(attributes, "mpp"),
        span=_number(attributes, "span"),
        encoder=_text(attributes, "encoder"),
        skipped=tuple(skipped),
    )


def _rows_dataset(file: h5py.File, path: Path, slide: str) -> h5py.Dataset:
    for name in ROW_NAMES:
        found = file.get(name)
        if isinstance(found, h5py.Dataset):
            return found
        if isinstance(found, h5py.Group):
            inner = [value for value in found.values() if isinstance(value, h5py.Dataset)]
            if len(inner) == 1:
                return inner[0]
            if inner:
                names = ", ".join(sorted(value.name.rpartition("/")[2] for value in inner))
                raise FeatureError(
                    f"{path.name} holds features of several encoders ({names}); one a file is accepted.",
                    slide=slide,
                    fix="Write each encoder's features to a folder of its own.",
                    code="layout",
                )
    raise FeatureError(
        f"{path.name} has no dataset named {' or '.join(ROW_NAMES)}; it holds {', '.join(file) or 'nothing'}.",
        slide=slide,
        code="layout",
    )


def _row_source(dataset: h5py.Dataset, path: Path) -> RowSource | ndarray:
    check_whole(dataset, path)
    shape = tuple(int(n) for n in dataset.shape)
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or 0 in shape:
        return np.empty(shape, np.float32)  # only its shape is looked at, and refused
    n, d = shape
    offset = dataset.id.get_offset()
    if offset is not None and dataset.chunks is None and dataset.dtype in (np.dtype("<f2"), np.dtype("<f4")):
        return MappedRows(path, int(offset), (n, d), dataset.dtype.str, Stamp.of(path))
    return ChunkedRows(path, dataset.name, (n, d))


def _values(dataset: h5py.Dataset, path: Path) -> ndarray:
    """A whole small dataset in memory."""
    check_whole(dataset, path)
    return np.asarray(dataset[()])


def _coords(file: h5py.File, path: Path) -> tuple[ndarray | None, dict[str, Any]]:
    for name in COORD_NAMES:
        found = file.get(name)
        if isinstance(found, h5py.Dataset):
            coords = _values(found, path)
            coords = coords[0] if coords.ndim == 3 and len(coords) == 1 else coords
            return coords, {key: plain_attribute(value) for key, value in found.attrs.items()}
    return None, {}


def _clam_span(facts: Mapping[str, Any]) -> float | None:
    """Side in level-0 px: patch_size counts pixels of patch_level, whose downsample the file gives."""
    size = _number(facts, "patch_size")
    if size is None or facts["patch_level"] == 0:
        return size
    downsample = facts.get("downsample")
    if isinstance(downsample, list):
        downsample = downsample[0]
    return size * float(downsample) if isinstance(downsample, (int, float)) and downsample >= 1 else None


def read_array_file(path: Path, slide: str) -> Contents:
    """What an .npy or .npz file holds: features or feats, and coords or coordinates of unknown frame.

    Raises:
        FeatureError: damaged, holds Python objects, or has no features.
    """
    try:
        if path.suffix.lower() == ".npy":
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
            return Contents(
                "npy", ReadRows(path, _load_npy, two_axes(rows)) if is_bag(rows) else rows, dtype=rows.dtype
            )
        with np.load(path, allow_pickle=False) as arrays:
            name = next((n for n in ROW_NAMES if n in arrays), None)
            if name is None:
                raise FeatureError(
                    f"{path.name} has no array named {' or '.join(ROW_NAMES)}; it holds {', '.join(arrays)}.",
                    slide=slide,
                    code="layout",
                )
            rows = arrays[name]
            coords = next((arrays[n] for n in COORD_NAMES if n in arrays), None)
            facts = {key: plain_attribute(arrays[key]) for key in ("mpp", "span", "frame", "encoder") if key in arrays}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FeatureError(
            f"{path.name} cannot be read as a NumPy file: {first_line(error)}.", slide=slide, code="damaged"
        ) from error
    frame = facts.get("frame")
    return Contents(
        "npz",
        ReadRows(path, _NpzArray(name), two_axes(rows)) if is_bag(rows) else rows,
        dtype=rows.dtype,
        coords=coords,
        frame=frame if frame in ("level0_px", "um") else None,
        mpp=_number(facts, "mpp"),
        span=_number(facts, "span"),
        encoder=_text(facts, "encoder"),
    )


@dataclass(frozen=True)
class _NpzArray:
    """Reads one array of an npz; a class and not a closure, so that it travels to another process."""

    name: str

    def __call__(self, path: Path) -> ndarray:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[self.name])


def _load_npy(path: Path) -> ndarray:
    return np.asarray(np.load(path, allow_pickle=False))


def is_bag(rows: ndarray) -> bool:
    """True for (n, d) and (1, n, d) with at least one row."""
    return rows.size > 0 and (rows.ndim == 2 or (rows.ndim == 3 and len(rows) == 1))


def two_axes(rows: ndarray) -> tuple[int, int]:
    """(n, d) of either."""
    return int(rows.shape[-2]), int(rows.shape[-1])


def _number(facts: Mapping[str, Any], key: str) -> float | None:
    value = facts.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if np.isfinite(value) and value > 0 else None


def _text(facts: Mapping[str, Any], key: str) -> str | None:
    value = plain_attribute(facts.get(key))
    return value if isinstance(value, str) and value else None
