"""How fast rows come out of a feature file: mapped into memory as Coverslip reads it, and chunked as others write it.

Every layout is asked for the same rows on the same terms: with opening the file each time, and with the file already
open. Files lie in the page cache (each was just written), so this measures the reading, not the disk.

    python benchmarks/feature_files.py --rows 20000 --width 1024
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from common import machine, table

from coverslip.base.geometry import TileSpec
from coverslip.store import EncoderIdentity, FeatureIdentity, FeatureWriter, coords_digest, read_features

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=1_024)
    parser.add_argument("--some", type=int, default=2_048, help="how many random rows")
    parser.add_argument("--times", type=int, default=11, help="each figure is the median of so many")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((given.rows, given.width), dtype=np.float32).astype(np.float16)
    some = np.sort(rng.choice(given.rows, given.some, replace=False))
    with tempfile.TemporaryDirectory() as folder:
        batch_ms = write_ours(Path(folder), x)
        write_others(Path(folder), x)
        rows = [measured(name, opened, some, given.times) for name, opened in layouts(Path(folder)).items()]
    print(f"{machine()}\n\n{given.rows} x {given.width} float16, seed 0, median of {given.times}, ms\n")
    all_rows, random_rows = "all rows", f"{given.some} random rows"
    head = ["layout", "open", f"open, {all_rows}", all_rows, f"open, {random_rows}", random_rows]
    print(table(head, rows))
    print(f"\nKeeping a batch of {BATCH} rows safe while a slide is written: {batch_ms:.1f} ms.")


def write_ours(folder: Path, x: np.ndarray) -> float:
    """Writes `ours.h5`; ms a batch."""
    coords = np.stack([np.arange(len(x)), np.zeros(len(x))], axis=1).astype(np.int32)
    identity = FeatureIdentity(
        encoder=EncoderIdentity("benchmark", x.shape[1], revision="1"),
        spec=TileSpec(size_px=224, mpp=0.5),
        mpp=0.5,
        span=224.0,
        slide_fingerprint="0123456789abcdef",
        tiles=coords_digest(coords),
    )
    taken = []
    with FeatureWriter(folder, "ours", identity, coords) as writer:
        for start in range(0, len(x), BATCH):
            rows = x[start : start + BATCH].astype(np.float32)
            begin = time.perf_counter()
            writer.put(np.arange(start, start + len(rows)), rows)
            taken.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(taken)


def write_others(folder: Path, x: np.ndarray) -> None:
    for name, options in {
        "contiguous": {},
        "chunked": {"chunks": (1, x.shape[1])},
        "gzip": {"chunks": (1, x.shape[1]), "compression": "gzip"},
    }.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("features", data=x, **options)


def layouts(folder: Path) -> dict[str, Callable[[], np.ndarray | h5py.Dataset]]:
    """Something that opens the file and gives an array to index, for each way."""
    return {
        "Coverslip, mapped": lambda: read_features(folder / "ours.h5", check=False).x,
        "Coverslip, mapped and checked for NaN": lambda: read_features(folder / "ours.h5").x,
        "h5py, contiguous": lambda: h5py.File(folder / "contiguous.h5")["features"],
        "h5py, one row a chunk": lambda: h5py.File(folder / "chunked.h5")["features"],
        "h5py, one row a chunk, gzip": lambda: h5py.File(folder / "gzip.h5")["features"],
    }


def measured(name: str, opened: Callable[[], np.ndarray | h5py.Dataset], some: np.ndarray, times: int) -> list[str]:
    already = opened()
    return [
        name,
        milliseconds(opened, times),
        milliseconds(lambda: copied(opened(), slice(None)), times),
        milliseconds(lambda: copied(already, slice(None)), times),
        milliseconds(lambda: copied(opened(), some), times),
        milliseconds(lambda: copied(already, some), times),
    ]


def copied(rows: np.ndarray | h5py.Dataset, which: slice | np.ndarray) -> np.ndarray:
    """The rows in memory of their own: a mapped array would else be read later, and look free."""
    return np.array(rows[which])


def milliseconds(work: Callable[[], object], times: int) -> str:
    work()
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return f"{1e3 * statistics.median(taken):.1f}"


if __name__ == "__main__":
    main()
