"""What is done with a mutated file: everything that a user's command would do with it, in this very process."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from coverslip.base.errors import CoverslipError
from coverslip.base.geometry import Size, Tiles, TileSpec
from coverslip.preflight.check import check_slide
from coverslip.slide import Slide
from coverslip.store import FeatureStore, read_features
from fuzz.seeds import MPP, TILE, Seed

# A mutated slide may be of any size; so many tiles of each plan are read.
_MOST_TILES = 60
_HAS_EXACT = "exact" in inspect.signature(Slide.tiles).parameters
_LOST = "lost"


def look(path: Path, seed: Seed) -> dict[str, Any]:
    """What the file shows: `refused` or the digests of images by what they are of; `foreign` errors with their trace,
    and errors of `memory`."""
    said: dict[str, Any] = {"foreign": [], "memory": [], "images": {}, "refused": None, "verdict": None}
    for target in (_check, _slide) if seed.kind != "hdf5" else (_rows,):
        try:
            target(path, said)
        except CoverslipError as error:
            said["refused"] = said["refused"] or f"{type(error).__name__} {error.code}: {error.message}"
            _remember_memory(error, said)
            if not error.code and seed.kind != "hdf5":
                said["foreign"].append(f"{target.__name__}: an error without a code: {error}")
        except BaseException:
            said["foreign"].append(traceback.format_exc()[-2500:])
    return said


def _remember_memory(error: BaseException | None, said: dict[str, Any]) -> None:
    """MemoryErrors are turned into ours with every other error; asking for too much is still wrong."""
    while error is not None:
        if isinstance(error, MemoryError):
            said["memory"].append("".join(traceback.format_exception(error))[-1500:])
        error = error.__cause__ or error.__context__


def _check(path: Path, said: dict[str, Any]) -> None:
    report = check_slide(path, mpp=MPP)
    report.to_json()
    said["verdict"] = report.verdict


def _slide(path: Path, said: dict[str, Any]) -> None:
    with Slide.open(path, mpp=MPP) as slide:
        said["levels"] = [list(level.size) for level in slide.levels]
        images = said["images"]
        _keep("overview", lambda: slide.overview(150)[0], images, said)
        for name in slide.associated:
            _keep(f"associated {name}", lambda n=name: slide.associated_image(n), {}, said)  # type: ignore[misc]
        for name, tiles, options in plans(slide.size, slide.id):
            for batch in slide.tiles(tiles, batch=8, threads=2, **options):
                errors = iter(batch.errors)
                for index, ok, image in zip(batch.index.tolist(), batch.ok.tolist(), batch.images):
                    images[f"{name} {index}"] = _digest(image) if ok else _LOST
                    assert ok or next(errors), "a flagged tile has no reason"


def _keep(name: str, make: Callable[[], np.ndarray], images: dict[str, str], said: dict[str, Any]) -> None:
    try:
        images[name] = _digest(make())
    except CoverslipError as error:
        images[name] = _LOST
        _remember_memory(error, said)


def plans(size: Size, slide: str) -> Iterator[tuple[str, Tiles, dict[str, Any]]]:
    """Tiles on the grid of the stored ones, across it, and at half resolution; the last ones end with the slide."""
    for name, size_px, mpp in (("whole", TILE, MPP), ("across", 50, MPP), ("half", 40, 2 * MPP)):
        span = round(size_px * mpp / MPP)
        if min(size) < span:
            continue
        xs, ys = ([*range(0, min(side - span, 100_000), span), side - span] for side in size)
        xy = np.array([(x, y) for y in ys[-8:] for x in xs[-8:]][:_MOST_TILES], dtype=np.int32)
        tiles = Tiles(slide, TileSpec(size_px, mpp), MPP, float(span), xy, np.ones(len(xy), np.float32))
        yield name, tiles, {}
        if _HAS_EXACT and name == "half":
            yield "half, not exact", tiles, {"exact": False}


def _rows(path: Path, said: dict[str, Any]) -> None:
    features = read_features(path)
    said["images"] = {"rows": _digest(np.asarray(features.x)), "shape": str(features.x.shape)}
    centres = features.centres_um
    said["images"]["places"] = "none" if centres is None else _digest(centres)
    store = FeatureStore(path.parent)
    store.has(path.stem, "0" * 16)
    store.read(path.stem)


def _digest(image: np.ndarray) -> str:
    return blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8).hexdigest()
