"""Feature files from and to other tools' layouts. What the target needs and the source does not say is an error.

convert_store(FeatureStore("clam/h5_files", frame="level0_px"), Path("features"), mpp={"a": 0.25})
to_stamp(read_features(Path("features/a.h5")), Path("stamp/a.h5"))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from coverslip.base.errors import FeatureError
from coverslip.base.files import atomic, safe_name
from coverslip.base.progress import SILENT, Progress
from coverslip.store.feature_store import FeatureStore
from coverslip.store.features import Features
from coverslip.store.hdf5 import write_hdf5
from coverslip.store.writer import to_float16, write_feature_file

_BLOCK_ROWS = 4096


def to_coverslip(features: Features, path: Path) -> Path:
    """Writes our layout with what the source knows; the identity goes along where there is one.

    A file without an identity can be trained on, and is never taken for what an embedding would give.

    Raises:
        FeatureError: positions in µm without the slide's scale, or a number that does not fit into float16.
        StoreError: the disk is full or the folder cannot be written.
    """
    if features.corners_um is not None and features.coords is None:
        raise FeatureError(
            "its coords are in µm; level-0 pixels need the slide's µm per pixel.",
            slide=features.slide,
            fix="Give mpp, or a table with a 'mpp' column.",
            code="unknown",
        )
    known: dict[str, Any] = {"slide": features.slide}
    if features.identity is not None:
        known |= features.identity.attributes()
    else:
        facts = {"mpp": features.mpp, "span": features.span, "encoder": features.encoder}
        known |= {key: value for key, value in facts.items() if value is not None}
        known["converted_from"] = features.layout
    skipped = {one.index: one.reason for one in features.skipped}
    shape = (len(features), features.dim)
    return write_feature_file(path, shape, _half(features), coords=features.coords, attributes=known, skipped=skipped)


def to_trident(features: Features, path: Path) -> Path:
    """Writes `features` and `coords` as TRIDENT reads them: level-0 px, with patch_size_level0 on coords.

    Raises:
        FeatureError: the positions or the tiles' size are not known, or a number does not fit into float16.
    """
    coords, span = _need(features, features.coords, "coords"), _need(features, features.span, "span")
    on_coords: dict[str, Any] = {"name": features.slide, "patch_size_level0": round(span), "overlap": 0}
    if features.identity is not None:
        spec = features.identity.spec
        assert spec.stride_px is not None
        on_coords |= {"patch_size": spec.size_px, "overlap": max(0, spec.size_px - spec.stride_px)}
    attributes = {} if features.encoder is None else {"encoder": features.encoder}
    return _write(features, path, "features", coords, attributes, on_coords)


def to_clam(features: Features, path: Path) -> Path:
    """Writes `features` and `coords` as CLAM reads them: level-0 px, with the size on level 0.

    Raises:
        FeatureError: the positions or the tiles' size are not known, or a number does not fit into float16.
    """
    coords, span = _need(features, features.coords, "coords"), _need(features, features.span, "span")
    on_coords = {"patch_size": round(span), "patch_level": 0, "name": features.slide}
    return _write(features, path, "features", coords, {}, on_coords)


def to_stamp(features: Features, path: Path) -> Path:
    """Writes `feats` and `coords` as STAMP reads them: µm of the top-left corner, with the tiles' size in µm.

    Raises:
        FeatureError: the positions, the scale or the tiles' size are not known, or a number does not fit into float16.
    """
    if features.corners_um is not None and features.coords is None:
        corners, size = features.corners_um, _need(features, features.span_um, "span_um")
    else:
        mpp = _need(features, features.mpp, "mpp")
        corners = (_need(features, features.coords, "coords").astype(np.float64) * mpp).astype(np.float32)
        size = _need(features, features.span, "span") * mpp
    attributes: dict[str, Any] = {"unit": "um", "tile_size_um": float(size), "feat_type": "tile"}
    if features.identity is not None:
        attributes["tile_size_px"] = features.identity.spec.size_px
    if features.encoder is not None:
        attributes["extractor"] = features.encoder
    return _write(features, path, "feats", corners, attributes, {})


def to_npz(features: Features, path: Path) -> Path:
    """Writes `features` and what is known of `coords`, `frame`, `mpp`, `span` and `encoder` into an .npz.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    arrays: dict[str, Any] = {"features": np.asarray(features.x)}
    if features.coords is not None:
        arrays |= {"coords": features.coords, "frame": np.array("level0_px")}
    facts = {"mpp": features.mpp, "span": features.span, "encoder": features.encoder}
    arrays |= {key: np.array(value) for key, value in facts.items() if value is not None}
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    return path


# Layout -> how it is written, and the suffix of its files.
TARGETS: Mapping[str, tuple[Callable[[Features, Path], Path], str]] = {
    "coverslip": (to_coverslip, ".h5"),
    "trident": (to_trident, ".h5"),
    "clam": (to_clam, ".h5"),
    "stamp": (to_stamp, ".h5"),
    "npz": (to_npz, ".npz"),
}


@dataclass(frozen=True)
class Converted:
    """What became of one slide: its new file, or the error that kept it out; and what the source does not say."""

    slide: str
    path: Path | None
    error: FeatureError | None = None
    notes: tuple[str, ...] = ()


def convert_store(
    source: FeatureStore,
    folder: Path,
    *,
    layout: str = "coverslip",
    slides: Iterable[str] | None = None,
    mpp: Mapping[str, float] | float | None = None,
    progress: Progress = SILENT,
) -> list[Converted]:
    """What became of each slide of `source`, all written into `folder`; a slide that fails keeps no other out.

    `mpp` (one number, or one a slide) says the µm per level-0 px where the files do not.

    Raises:
        FeatureError: the layout is not known, or source and folder are the same.
        StoreError: the disk is full or the folder cannot be written.
    """
    if layout not in TARGETS:
        raise FeatureError(f"there is no layout {layout!r}.", fix=f"Accepted: {', '.join(TARGETS)}.", code="layout")
    folder = Path(folder)
    if folder.resolve() == source.folder.resolve():
        raise FeatureError(
            f"{folder} would be read and written at once.", fix="Give another folder.", code="same_folder"
        )
    write, suffix = TARGETS[layout]
    names = source.names() if slides is None else list(slides)
    done: list[Converted] = []
    with progress.stage("convert", len(names), unit="slide") as step:
        for name in names:
            known = mpp.get(name) if isinstance(mpp, Mapping) else mpp
            try:
                features = source.read(name, mpp=known)
                path = folder / f"{safe_name(name, what='slide')}{suffix}"
                done.append(Converted(name, write(features, path), notes=features.notes))
            except FeatureError as error:
                done.append(Converted(name, None, error))
            step.advance(note=name)
    return done


def _write(
    features: Features,
    path: Path,
    rows: str,
    coords: ndarray,
    attributes: Mapping[str, Any],
    on_coords: Mapping[str, Any],
) -> Path:
    return write_hdf5(
        path,
        (len(features), features.dim),
        _half(features),
        name=rows,
        small={"coords": coords},
        attributes=attributes,
        coords_attributes=on_coords,
    )


def _half(features: Features) -> Iterator[ndarray]:
    x = features.x
    for start in range(0, len(x), _BLOCK_ROWS):
        yield to_float16(np.asarray(x[start : start + _BLOCK_ROWS]), slide=features.slide)


def _need(features: Features, value: Any, what: str) -> Any:
    if value is None:
        said = " ".join(features.notes)
        raise FeatureError(
            f"{what} is not known, and this layout needs it. {said}".strip(), slide=features.slide, code="unknown"
        )
    return value
