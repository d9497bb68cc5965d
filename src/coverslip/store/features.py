"""The features of one slide, from our files or another tool's: rows, positions where they are known, and identity.

features = read_features(Path("features/a.h5"))
features.x            # (n, d), mapped into memory
features.coords       # (n, 2) int32, top-left corner in level-0 px, or None
features.centres_um   # (n, 2) float32, what networks get, or None
features.notes        # what the file does not say
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int32
from numpy import ndarray

from coverslip.base.errors import FeatureError
from coverslip.base.geometry import centres_um
from coverslip.base.units import is_mpp
from coverslip.store.identity import FeatureIdentity
from coverslip.store.layouts import Contents, Frame, is_bag, read_array_file, read_hdf5, two_axes
from coverslip.store.rows import ReadRows, RowSource, as_floats, bad_rows

# A reader of a further file type: features (n, d) or (1, n, d), and coords (n, 2) or None where the file has them.
Reader = Callable[[Path], Mapping[str, ndarray | None]]

HDF5_SUFFIXES = (".h5", ".hdf5")
ARRAY_SUFFIXES = (".npz", ".npy")


@dataclass(frozen=True)
class Skipped:
    """A planned tile that has no row: its place in the plan, and why."""

    index: int
    reason: str


@dataclass(frozen=True, eq=False)
class Features:
    """The rows of one slide and what is known about them. Nothing that the file does not say is filled in.

    `coords` are top-left corners in level-0 px and `span` is a tile's side there; `corners_um` and `span_um` are the
    same in µm, for tools that keep µm. Either may be None, with the reason in `notes`.
    """

    slide: str
    rows: ndarray | RowSource
    coords: Int32[ndarray, "n 2"] | None = None
    identity: FeatureIdentity | None = None
    mpp: float | None = None
    span: float | None = None
    corners_um: Float32[ndarray, "n 2"] | None = None
    span_um: float | None = None
    encoder: str | None = None  # the name as the file gives it; other tools keep no more than that, if at all
    path: Path | None = None
    layout: str = "memory"
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def x(self) -> Float[ndarray, "n d"]:
        """The rows, float16 or float32: mapped from the file, or read from it on each use where it cannot be mapped."""
        return self.rows if isinstance(self.rows, ndarray) else self.rows.load()

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def __repr__(self) -> str:
        encoder = f" of {self.encoder}" if self.encoder else ""
        return f"<Features of {self.slide}: {len(self)} x {self.dim}{encoder}, {self.layout}>"

    @property
    def dim(self) -> int:
        return int(self.rows.shape[1])

    @property
    def centres_um(self) -> Float32[ndarray, "n 2"] | None:
        """Centre of each tile in µm, or None where the file does not tell."""
        if self.coords is not None and self.span is not None and self.mpp is not None:
            return centres_um(self.coords, self.span, self.mpp)
        if self.corners_um is not None and self.span_um is not None:
            return (self.corners_um + np.float32(self.span_um / 2)).astype(np.float32)
        return None


def read_features(
    path: Path,
    *,
    slide: str | None = None,
    mpp: float | None = None,
    frame: Frame | None = None,
    readers: Mapping[str, Reader] | None = None,
    check: bool = True,
) -> Features:
    """The features of one file: ours (memory-mapped), or CLAM, TRIDENT, STAMP, AtlasPatch, plain HDF5, npz, npy.

    `mpp` (µm per level-0 px) and `frame` ("level0_px" or "um") say what the file does not; what the file says wins.
    `readers` maps further suffixes to functions that read them. `check=False` leaves out the pass over all rows that
    looks for NaN and infinity.

    Raises:
        FeatureError: damaged or empty file, NaN or infinity, wrong shape or type, coords of another length.
    """
    path = Path(path)
    slide = path.stem if slide is None else slide
    if mpp is not None and not is_mpp(mpp):
        raise FeatureError(f"mpp = {mpp!r} is no number over 0 (µm per level-0 px).", slide=slide)
    try:
        features = _build(_contents(path, slide, readers or {}), path, slide, mpp, frame)
        if check:
            check_rows(features)
    except FeatureError as error:
        error.add_note(f"in {path}")
        raise
    return features


def check_rows(features: Features) -> None:
    """Nothing, for rows that are all finite.

    Raises:
        FeatureError: naming how many rows hold NaN or infinity, and the first.
    """
    count, first = bad_rows(as_floats(features.x))
    if count:
        raise FeatureError(
            f"{count} of {len(features)} rows hold NaN or infinity (the first is row {first}).",
            slide=features.slide,
            fix="Embed the slide again, in fp32 if it was fp16.",
            code="not_finite",
        )


def _contents(path: Path, slide: str, readers: Mapping[str, Reader]) -> Contents:
    suffix = path.suffix.lower()
    if not path.is_file():
        raise FeatureError(
            f"there is no feature file {path}.", slide=slide, fix="Run `coverslip embed`.", code="missing"
        )
    if suffix in HDF5_SUFFIXES:
        return read_hdf5(path, slide)
    if suffix in ARRAY_SUFFIXES:
        return read_array_file(path, slide)
    if suffix in readers:
        return _read_with(readers[suffix], path, suffix)
    accepted = ", ".join([*HDF5_SUFFIXES, *ARRAY_SUFFIXES, *readers])
    raise FeatureError(f"{path.name} is no feature file.", slide=slide, fix=f"Accepted: {accepted}.", code="layout")


@dataclass(frozen=True)
class _RowsOf:
    """Reads the rows alone; a class and not a closure, so that it travels to another process."""

    read: Reader

    def __call__(self, path: Path) -> ndarray:
        return np.asarray(self.read(path)["features"])


def _read_with(read: Reader, path: Path, suffix: str) -> Contents:
    found = read(path)
    rows = np.asarray(found["features"])
    source = ReadRows(path, _RowsOf(read), two_axes(rows)) if is_bag(rows) else rows
    return Contents(f"{suffix} file", source, dtype=rows.dtype, coords=found.get("coords"))


def _build(found: Contents, path: Path, slide: str, mpp: float | None, frame: Frame | None) -> Features:
    _check_shape(found, slide)
    mpp = found.mpp if found.mpp is not None else mpp
    frame = found.frame if found.frame is not None else frame
    n = int(found.rows.shape[0])
    notes = list(found.notes)
    coords, corners_um, span, span_um = None, None, found.span, found.span_um
    if found.coords is not None:
        raw = np.asarray(found.coords)
        if raw.ndim != 2 or raw.shape[0] != n or raw.shape[1] < 2 or raw.dtype.kind not in "iuf":
            raise FeatureError(
                f"coords have shape {raw.shape} ({raw.dtype}) for {n} rows of features; ({n}, 2) is accepted.",
                slide=slide,
                code="coords",
            )
        raw = raw[:, :2]
        if not np.isfinite(raw).all():
            raise FeatureError("coords hold NaN or infinity.", slide=slide, code="coords")
        if frame == "level0_px":
            coords = np.rint(raw).astype(np.int32)
        elif frame == "um":
            corners_um = raw.astype(np.float32)
            if mpp is not None:
                coords = np.rint(raw.astype(np.float64) / mpp).astype(np.int32)
                span = span_um / mpp if span is None and span_um is not None else span
        else:
            notes.append(
                "The file does not say whether its coords are level-0 pixels or µm, so they are not used. "
                "Say it with frame='level0_px' or frame='um'."
            )
    else:
        notes.append("The file has no coords: methods that use positions cannot use it.")
    if coords is not None and span is None:
        notes.append("The file does not say how large its tiles are (span), so centres and maps are unknown.")
    if coords is not None and mpp is None:
        notes.append("The file does not say the slide's µm per pixel; give it in the cohort's 'mpp' column.")
    return Features(
        slide=slide,
        rows=as_floats(found.rows) if isinstance(found.rows, ndarray) else found.rows,
        coords=coords,
        identity=found.identity,
        mpp=mpp,
        span=span,
        corners_um=corners_um,
        span_um=span_um,
        encoder=found.encoder,
        path=path,
        layout=found.layout,
        notes=tuple(notes),
        skipped=tuple(Skipped(index, reason) for index, reason in found.skipped),
    )


def _check_shape(found: Contents, slide: str) -> None:
    shape = found.rows.shape
    if found.dtype.kind != "f":
        raise FeatureError(
            f"features are {found.dtype}; floating-point numbers are accepted.", slide=slide, code="dtype"
        )
    if len(shape) != 2 or shape[1] == 0:
        raise FeatureError(
            f"features have shape {tuple(shape)}; (n, d) or (1, n, d) is accepted.", slide=slide, code="shape"
        )
    if shape[0] == 0:
        raise FeatureError("the feature file has no rows.", slide=slide, fix="Embed the slide again.", code="empty")
