"""Writing the features of one slide: any order of rows, a kill at any moment, two runs on one store.

    with FeatureWriter(store, "a", identity, tiles.xy) as writer:
        for index in batches(writer.missing()):
            writer.put(index, encode(index))        # or writer.skip(i, reason)

A tile that is put or skipped is safe at once. Leaving the block well writes `a.h5` in one go; leaving it with an
exception, or not at all, keeps what is finished, and the next writer of the same identity goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from glob import escape as glob_escape
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float, Int32, Int64, Integer
from numpy import ndarray

from coverslip._version import __version__
from coverslip.base.errors import FeatureError, StoreError
from coverslip.base.files import safe_name
from coverslip.store.features import read_features
from coverslip.store.hdf5 import write_hdf5
from coverslip.store.identity import FORMAT, FeatureIdentity, coords_digest
from coverslip.store.layouts import read_attributes
from coverslip.store.sidecar import DONE, SKIPPED, TODO, Header, Sidecar, sidecar_path

FLOAT16_MAX = float(np.finfo(np.float16).max)
_BLOCK_ROWS = 4096


class FeatureWriter:
    """Writes one slide's feature file; see the module for how it is used."""

    def __init__(self, folder: Path, slide: str, identity: FeatureIdentity, coords: Int32[ndarray, "n 2"]) -> None:
        """Opens the slide for writing; `folder` is a store's folder or a `FeatureStore`.

        Raises:
            StoreError: another process writes this slide (code "locked"), or the folder cannot be written.
        """
        folder = Path(getattr(folder, "folder", folder))
        safe_name(slide, what="slide")
        if len(coords) == 0:
            raise FeatureError("there are no tiles to embed.", slide=slide, code="empty")
        self.slide = slide
        self.path = folder / f"{slide}.h5"
        self.identity = identity
        self.coords = np.ascontiguousarray(coords, dtype=np.int32)
        self.dim = identity.encoder.dim
        digest = coords_digest(self.coords)
        assert digest == identity.tiles, "the identity was made for other tiles"
        header = Header(identity.fingerprint, digest, len(coords), self.dim)
        self._sidecar = Sidecar(sidecar_path(folder, slide), header, slide=slide)
        # Another run may have finished the slide between the caller's look and our lock: then there is nothing to do.
        self.finished = read_attributes(self.path).get("fingerprint") == identity.fingerprint

    def missing(self) -> Int64[ndarray, m]:
        """Numbers of the tiles that are still to do, ascending."""
        if self.finished:
            return np.empty(0, np.int64)
        return np.flatnonzero(self._sidecar.states() == TODO).astype(np.int64)

    def put(self, index: Integer[ndarray, b], rows: Float[ndarray, "b d"]) -> None:
        """Keeps the rows of the tiles `index`; they are safe when this returns.

        Raises:
            FeatureError: another width, NaN, or a number beyond float16 (65,504), which would become infinity.
            StoreError: the disk is full; what was finished stays.
        """
        index = np.asarray(index, dtype=np.int64)
        rows = np.asarray(rows)
        if rows.shape != (len(index), self.dim):
            raise FeatureError(
                f"the encoder gave rows of shape {rows.shape} for {len(index)} tiles; "
                f"({len(index)}, {self.dim}) is expected.",
                slide=self.slide,
                code="shape",
            )
        assert len(index) == 0 or (index.min() >= 0 and index.max() < len(self.coords)), "no such tile"
        self._sidecar.write(index, to_float16(rows, slide=self.slide))

    def skip(self, index: int, reason: str) -> None:
        """Leaves one tile out of the file, with the reason; it is recorded in the file."""
        self._sidecar.skip(int(index), " ".join(reason.split()))

    def skipped(self) -> dict[int, str]:
        """The tiles that are left out so far, by number, with the reasons."""
        if self.finished:
            return {skipped.index: skipped.reason for skipped in read_features(self.path, check=False).skipped}
        reasons = self._sidecar.reasons()
        return {int(i): reasons.get(int(i), "") for i in np.flatnonzero(self._sidecar.states() == SKIPPED)}

    def release(self) -> None:
        """Lets another process go on with the slide; what is finished stays."""
        self._sidecar.close()

    def close(self) -> Path:
        """The finished feature file.

        Raises:
            StoreError: tiles are neither done nor skipped (code "incomplete"), or the disk is full; both go on later.
            FeatureError: every tile was skipped.
        """
        if self.finished:
            self._sidecar.remove()
            return self.path
        states = self._sidecar.states()
        todo = int((states == TODO).sum())
        if todo:
            self._sidecar.close()
            raise StoreError(
                f"{todo} of {len(states)} tiles are not embedded yet.",
                slide=self.slide,
                fix="Run again; it goes on from there.",
                code="incomplete",
            )
        done = np.flatnonzero(states == DONE)
        skipped = np.flatnonzero(states == SKIPPED)
        reasons = self._sidecar.reasons()
        if len(done) == 0:
            self._sidecar.remove()
            raise none_embedded(self.slide, {int(i): reasons.get(int(i), "no reason kept") for i in skipped})
        with ExitStack() as on_failure:
            on_failure.callback(self._sidecar.close)
            write_feature_file(
                self.path,
                (len(done), self.dim),
                self._blocks(done),
                coords=self.coords[done],
                attributes={"slide": self.slide, **self.identity.attributes()},
                skipped={int(i): reasons.get(int(i), "") for i in skipped},
            )
            on_failure.pop_all()
        for left in self.path.parent.glob(f".{glob_escape(self.path.name)}.*.part"):
            left.unlink(missing_ok=True)  # of a run that was killed while it wrote this file
        self._sidecar.remove()
        return self.path

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.release()

    def _blocks(self, done: Int64[ndarray, k]) -> Iterator[ndarray]:
        rows = self._sidecar.rows()
        for start in range(0, len(done), _BLOCK_ROWS):
            yield rows[done[start : start + _BLOCK_ROWS]]


def write_feature_file(
    path: Path,
    shape: tuple[int, int],
    blocks: Iterator[ndarray],
    *,
    coords: Int32[ndarray, "n 2"] | None,
    attributes: dict[str, Any],
    skipped: dict[int, str] | None = None,
) -> Path:
    """Writes one file of our format from float16 blocks in order. `attributes` hold slide and what is known."""
    small: dict[str, ndarray] = {}
    coords_attributes: dict[str, Any] = {}
    if coords is not None:
        small["coords"] = np.ascontiguousarray(coords, dtype="<i4")
        if "span" in attributes:
            # Slide encoders of the field look for this name.
            coords_attributes["patch_size_level0"] = round(attributes["span"])
    if skipped:
        small["skipped"] = np.array(list(skipped), dtype="<i8")
        small["skipped_reasons"] = np.array([reason.encode()[:200] for reason in skipped.values()], dtype="S200")
    return write_hdf5(
        path,
        shape,
        blocks,
        small=small,
        attributes={"format": FORMAT, **attributes, "written_by": f"coverslip {__version__}"},
        coords_attributes=coords_attributes,
    )


def none_embedded(slide: str, skipped: dict[int, str]) -> FeatureError:
    """What a slide of damaged tiles alone is told as."""
    first = skipped[min(skipped)]
    return FeatureError(
        f"none of the {len(skipped)} tiles could be embedded; the first: {first}.", slide=slide, code="empty"
    )


def to_float16(rows: Float[ndarray, "b d"], *, slide: str) -> ndarray:
    """The rows as float16.

    Raises:
        FeatureError: NaN or infinity, or a number that float16 cannot hold.
    """
    if rows.dtype.kind != "f":
        raise FeatureError(
            f"features are {rows.dtype}; floating-point numbers are accepted.", slide=slide, code="dtype"
        )
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise FeatureError(
            f"the encoder gave NaN or infinity for {int((~finite).sum())} of {len(rows)} tiles.",
            slide=slide,
            fix="Try encoder.precision = 'fp32'.",
            code="not_finite",
        )
    with np.errstate(over="ignore"):
        narrow = rows.astype("<f2")
    if not np.isfinite(narrow).all():
        raise FeatureError(
            f"a feature of {float(np.abs(rows).max()):.6g} does not fit into float16, "
            f"which ends at {FLOAT16_MAX:,.0f}.",
            slide=slide,
            fix="The encoder's output needs scaling; most end in a normalisation layer.",
            code="overflow",
        )
    return narrow
