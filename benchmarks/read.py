"""How fast tiles come out of slides: against the raw decode loop, which is the limit, and against other libraries.

Makes its own slides (`large_slides.py`), 40,000 px a side, about 1.1 GB, in the folder that is named, once. Every way
reads the same tissue tiles in turn (A B C A B C ...); a figure is the median over the rounds of CPU time (user and
system, all threads) over that of the raw loop in the same round, so that a busy machine does not matter much. Files lie
in the page cache. Coverslip's pixels are compared with OpenSlide's first, and must be equal.

    python benchmarks/read.py /data/large
    python benchmarks/read.py /data/large --side 8192 --tiles 512 --rounds 3      # a quick look

tiffslide and pyvips are compared where they are installed: pip install tiffslide "pyvips[binary]"
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import resource
import statistics
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import openslide
import readers
from common import machine, table
from large_slides import MPP, Picture, make_slides
from readers import OTHERS, Raw, Work
from skimage import color, filters, morphology

import coverslip as cs
from coverslip.base.geometry import TileSpec


@dataclass(frozen=True)
class Case:
    """What is read from which slide, and how it must compare: at most `limit` times the raw loop's time, at least
    `gain` times as fast as OpenSlide."""

    name: str
    slide: str
    size_px: int
    mpp: float = MPP
    exact: bool = True
    limit: float | None = None
    gain: float | None = None


CASES = (
    Case("0.25 aligned, 4:2:2", "ap256_422_q75", 256, limit=1.10, gain=4.5),
    Case("0.25 aligned, 4:2:0", "gen256_420_q80", 256, limit=1.10, gain=4.5),
    Case("0.25, 224 from 256", "ap256_422_q75", 224, limit=1.20, gain=4.5),
    Case("0.25, 256 from 240", "ap240_422_q70", 256, limit=1.20, gain=4.5),
    Case("0.5, 256 from 240", "ap240_422_q70", 256, mpp=0.5, limit=1.25, gain=5.0),
    Case("0.5, 224 from 256", "ap256_422_q75", 224, mpp=0.5, limit=1.25, gain=5.0),
    Case("0.5 DCT, 256 from 240", "ap240_422_q70", 256, mpp=0.5, exact=False, limit=0.95, gain=6.5),
    Case("0.5 DCT, 224 from 256", "ap256_422_q75", 224, mpp=0.5, exact=False, limit=0.95, gain=6.5),
    Case("1.0 from level 1, 224", "ap256_422_q75", 224, mpp=1.0),
    Case("0.25 aligned, RGB JPEG", "ap256_rgb_q70", 256, gain=3.4),
    Case("0.25 aligned, JPEG 2000", "j2k256", 256, gain=1.5),
)
TWO_THREADS = 1.6
MASK = 0.35


@dataclass(frozen=True)
class Bar:
    """What a figure must be, and what it is."""

    what: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    def row(self) -> list[str]:
        wanted = f"at least {self.least:.2f}" if self.least is not None else f"at most {self.most:.2f}"
        return [self.what, wanted, f"{self.value:.2f}", "met" if self.met else "not met"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the slides are made and kept")
    parser.add_argument("--side", type=int, default=40_000, help="px a side of the slides")
    parser.add_argument("--tiles", type=int, default=1_024, help="how many tiles of 0.25 µm/px; a quarter of it at 0.5")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="the cases that have this in their name")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    slides = make_slides(given.folder, given.side)
    others = installed()
    rows, bars = [], []
    for case in (c for c in CASES if given.only in c.name):
        row, some = measured(case, slides[case.slide], others, given)
        rows.append(row)
        bars.extend(some)
    if not given.only:
        bars.append(two_threads(slides["gen256_420_q80"], given))
        mask_rows, mask_bar = thumbnail_and_mask(slides["ap256_422_q75"], given.rounds)
        bars.append(mask_bar)
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in (*others, "simplejpeg", "imagecodecs"))
    print(f"\n{machine()}, {versions}, {time.strftime('%Y-%m-%d')}")
    print(f"\nSlides of {given.side} px, {given.tiles} tiles, {given.rounds} rounds, CPU time over the raw loop's\n")
    print(table(["tiles", "raw loop, tiles/s", "Coverslip", *others], rows))
    if not given.only:
        print("\n" + table(["thumbnail and mask at 8 µm/px", "ms", "part", "IoU with the truth"], mask_rows))
    print("\n" + table(["bar", "wanted", "measured", ""], [bar.row() for bar in bars]))
    print(f"\n{sum(bar.met for bar in bars)} of {len(bars)} bars are met.")


def installed() -> list[str]:
    missing = [name for name in OTHERS if name != "openslide-python" and not importlib.util.find_spec(name)]
    if missing:
        print(f"Not compared, because not installed: {', '.join(missing)} (see --help).", file=sys.stderr)
    return [name for name in OTHERS if name not in missing]


def work_of(case: Case, path: Path, tiles: int) -> Work:
    """So many tissue tiles in neighbouring rows of the middle of the slide."""
    with cs.Slide.open(path) as slide:
        plan = cs.plan(slide, None, TileSpec(size_px=case.size_px, mpp=case.mpp))
        downsamples = [level.downsample for level in slide.levels]
    picture = Picture(slide.size.width)
    centres = np.minimum((plan.xy + plan.span / 2) // (slide.size.width / len(picture.tissue)), len(picture.tissue) - 1)
    on_tissue = np.flatnonzero(picture.tissue[centres[:, 1].astype(int), centres[:, 0].astype(int)])
    # A tile of 0.5 µm/px has four times the pixels; at 1.0 a smaller level is read.
    count = max(readers.BATCH, tiles // 4 if case.mpp == 0.5 else tiles)
    start = max(0, len(on_tissue) // 2 - count // 2)
    kept = on_tissue[start : start + count]
    plan = replace(plan, xy=plan.xy[kept], tissue=plan.tissue[kept])
    level = max(i for i, d in enumerate(downsamples) if d <= case.mpp / MPP)
    down = int(downsamples[level])
    return Work(path, plan, level, down, plan.xy // down, round(plan.span / down), case.exact)


def measured(case: Case, path: Path, others: list[str], given: argparse.Namespace) -> tuple[list[str], list[Bar]]:
    work = work_of(case, path, given.tiles)
    if case.exact:
        must_be_equal(case, work)
    raw = Raw(work)
    ways: dict[str, Callable[[], object] | None] = {"raw": raw, "Coverslip": readers.coverslip(work)}
    ways |= {name: OTHERS[name](work) for name in others}
    ways = {name: way for name, way in ways.items() if way is not None}
    taken = interleaved(ways, given.rounds)
    ratio = {name: statistics.median(a / b for a, b in zip(taken[name], taken["raw"])) for name in ways}
    gain = statistics.median(a / b for a, b in zip(taken["openslide-python"], taken["Coverslip"]))
    print(f"{case.name}: {ratio['Coverslip']:.2f} of the raw loop, {gain:.2f} times OpenSlide", file=sys.stderr)
    bars = []
    if case.limit is not None:
        bars.append(Bar(f"{case.name}: time over the raw loop", ratio["Coverslip"], most=case.limit))
    if case.gain is not None:
        bars.append(Bar(f"{case.name}: speed over OpenSlide", gain, least=case.gain))
    rate = len(work.tiles) / statistics.median(taken["raw"])
    cells = [f"{ratio[name]:.2f}" if name in ratio else "" for name in ("Coverslip", *others)]
    return [case.name, f"{rate:.0f}", *cells], bars


def must_be_equal(case: Case, work: Work) -> None:
    ours = readers.coverslip_in_order(work)
    theirs = np.concatenate(list(readers.with_openslide(work)()))
    difference = int(np.abs(ours.astype(np.int16) - theirs).max())
    if difference:
        raise SystemExit(f"{case.name}: pixels differ from OpenSlide's by up to {difference}.")


def interleaved(ways: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] | None = None) -> dict:
    """Seconds of each way in each round; one round before is not counted."""
    clock = clock or cpu_seconds
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            begin = clock()
            result = way()
            if result is not None:
                deque(result, maxlen=0)  # type: ignore[arg-type]
            if number:
                taken[name].append(clock() - begin)
    return taken


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def two_threads(path: Path, given: argparse.Namespace) -> Bar:
    """Wall time of one thread over that of two; the raw loop says what the machine allows."""
    work = work_of(CASES[1], path, given.tiles)
    raw = Raw(work)
    ways = {
        "raw": raw,
        "raw, two": raw.in_two_threads,
        "one": readers.coverslip(work),
        "two": readers.coverslip(work, threads=2),
    }
    taken = interleaved(ways, given.rounds, time.perf_counter)
    gain = statistics.median(a / b for a, b in zip(taken["one"], taken["two"]))
    limit = statistics.median(a / b for a, b in zip(taken["raw"], taken["raw, two"]))
    return Bar(f"two threads over one, by the clock (the raw loop gains {limit:.2f})", gain, least=TWO_THREADS)


def thumbnail_and_mask(path: Path, rounds: int) -> tuple[list[list[str]], Bar]:
    slide, other = cs.Slide.open(path), openslide.OpenSlide(str(path))
    side = round(slide.size.width * MPP / 8)

    def ours(quality: bool) -> np.ndarray:
        slide.thumbnail(8.0)
        return cs.segment(slide, mpp=8.0, quality=quality).mask

    def theirs() -> np.ndarray:
        return scikit_image_mask(np.asarray(other.get_thumbnail((side, side))))

    kept: dict[str, np.ndarray] = {}

    def keeping(name: str, way: Callable[[], np.ndarray]) -> Callable[[], None]:
        return lambda: kept.__setitem__(name, way())

    ways = {
        "OpenSlide and scikit-image": theirs,
        "Coverslip": lambda: ours(False),
        "Coverslip, with pen, blur and folds": lambda: ours(True),
    }
    taken = interleaved({name: keeping(name, way) for name, way in ways.items()}, rounds)
    first = taken["OpenSlide and scikit-image"]
    part = {name: statistics.median(a / b for a, b in zip(some, first)) for name, some in taken.items()}
    truth = Picture(slide.size.width).tissue
    rows = [
        [name, f"{1e3 * statistics.median(some):.0f}", f"{part[name]:.2f}", f"{agreement(kept[name], truth):.3f}"]
        for name, some in taken.items()
    ]
    return rows, Bar("thumbnail and mask: part of the time of OpenSlide and scikit-image", part["Coverslip"], most=MASK)


def scikit_image_mask(rgb: np.ndarray) -> np.ndarray:
    """The usual recipe: saturation, median, Otsu, opening and closing, no specks and no holes."""
    saturation = (color.rgb2hsv(rgb)[..., 1] * 255).astype(np.uint8)
    smooth = filters.median(saturation, morphology.disk(3), behavior="rank")
    mask = smooth > filters.threshold_otsu(smooth)
    mask = morphology.closing(morphology.opening(mask, morphology.disk(2)), morphology.disk(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the names of the limits change with the version
        return morphology.remove_small_holes(morphology.remove_small_objects(mask, 156), 125)


def agreement(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union, at the nodes of the truth."""
    h, w = truth.shape
    rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in zip((h, w), mask.shape))
    found = mask[rows.astype(int)[:, None], columns.astype(int)]
    return float((found & truth).sum() / (found | truth).sum())


if __name__ == "__main__":
    main()
