"""How much of the reader's and of the encoder's own speed is left when slides are embedded, and in what memory.

python benchmarks/embed.py
python benchmarks/embed.py --only null vit --rounds 5

Slides are made here: for the null encoder as large as a scanner's and with as many bytes a pixel, in two sizes, so that
what a slide costs is told apart from what a tile costs; for the rest small ones, mostly glass. What is compared is done
in turn, round by round, and the ratio of each round is taken: seconds depend on the machine and on who else uses it,
ratios hardly do.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openslide
import torch
from common import machine, table
from large_slides import ENCODINGS, Picture, write_slide
from torch.utils.data import DataLoader, Dataset

from coverslip.base.geometry import Tiles, TileSpec
from coverslip.encoders import Encoder, EncoderInfo, encoder, identity
from coverslip.encoders.engine import Engine, Outcome, SlideWork
from coverslip.encoders.runner import Runner
from coverslip.encoders.tuning import CPU_BATCH, ReadingThreads, choose_batch
from coverslip.slide import Slide
from coverslip.store import FeatureWriter
from coverslip.synthetic import SlideRecipe, make_slide
from coverslip.tiles import plan

SPEC = TileSpec(224, 0.5)
CPU = torch.device("cpu")
PARTS = ("null", "vit", "loop", "memory", "gpu")
SCANNED = ENCODINGS["ap256_422_q75"]


class Null(Encoder):
    """Takes tiles and gives four of their bytes: whatever time is spent is not the encoder's."""

    def __init__(self) -> None:
        super().__init__()
        self.info = EncoderInfo(
            *("null", 4, None, (0.1, 10.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
            *("none", "none", "benchmark", "1", None, "none", False),
        )
        self.eval()

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, 0, :4].float()


class Quiet:
    """Hears of every slide, and lets none fail."""

    def planned(self, num_tiles: int) -> None: ...

    def advanced(self, num_tiles: int) -> None: ...

    def finished(self, outcome: Outcome) -> None:
        assert outcome.status == "done", outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slides", type=int, default=4)
    parser.add_argument("--side-px", type=int, default=8_192)
    parser.add_argument("--scanned-px", type=int, nargs=2, default=[8_192, 20_480], help="of the null encoder's slides")
    parser.add_argument("--scanned", type=int, default=2, help="how many of each size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vit-tiles", type=int, default=160)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(peak_mb([Path(given.child[0])] * int(given.child[1]), given.threads))
        return
    with tempfile.TemporaryDirectory() as folder:
        slides = [Path(folder) / f"slide-{i}.tif" for i in range(given.slides)]
        for seed, path in enumerate(slides):
            make_slide(path, SlideRecipe(seed=seed, side_px=given.side_px))
        rows: list[list[str]] = []
        for part in given.only:
            rows += {"null": null, "vit": vit, "loop": loop, "memory": memory, "gpu": gpu}[part](slides, given)
    print(f"{machine()}\n\n{given.slides} slides of {given.side_px} px a side, tiles of 224 px at 0.5 µm/px, ", end="")
    print(f"{given.threads} reading threads, median of {given.rounds} rounds\n")
    print(table(["what", "compared with", "ratio", "bar"], rows))


def null(slides: list[Path], given: argparse.Namespace) -> list[list[str]]:
    """Reading, batching and writing, against reading alone; and what they add to it, a slide and a tile."""
    rows, tiles, added = [], [], []
    for side in given.scanned_px:
        scanned = [slides[0].with_name(f"scanned-{side}-{seed}{SCANNED.suffix}") for seed in range(given.scanned)]
        for seed, path in enumerate(scanned):
            write_slide(path, Picture(side, seed), SCANNED)
        tiles.append(sum(len(planned(path)) for path in scanned) / len(scanned))
        what = f"null encoder, {len(scanned)} slides of {side} px, half tissue, {tiles[-1]:.0f} tiles each"
        found = null_rows(what, scanned, given, bar=">= 0.90")
        rows += found[0]
        added.append(found[1] / len(scanned))
    a_tile = (added[1] - added[0]) / (tiles[1] - tiles[0])
    told = f"{(added[0] - a_tile * tiles[0]) * 1e3:.0f} ms a slide, {a_tile * 1e6:.0f} µs a tile"
    rows.append(["the same, CPU time", "what it adds to reading, from the two sizes", told, ""])
    return rows + null_rows(f"null encoder, {len(slides)} slides of {given.side_px} px, mostly glass", slides, given)[0]


def null_rows(what: str, slides: list[Path], given: argparse.Namespace, bar: str = "") -> tuple[list[list[str]], float]:
    """The rows of the table, and the CPU seconds that embedding adds to reading."""
    ways = {"read": lambda: read(slides, given.threads), "embed": lambda: embed(slides, Null(), given.threads)}
    wall, cpu, added_s = compared(ways, given.rounds)
    rows = [
        [what, "`Slide.tiles` alone, rate by the clock", f"{wall:.3f}", bar],
        [what, "`Slide.tiles` alone, tiles a CPU second", f"{cpu:.3f}", bar],
    ]
    return rows, added_s


def vit(slides: list[Path], given: argparse.Namespace) -> list[list[str]]:
    """ViT-S on the CPU, against the same network on batches that are there already."""
    model = encoder("timm:vit_small_patch16_224", "random")
    count = given.vit_tiles // CPU_BATCH * CPU_BATCH  # whole batches: how the last one is padded is not the question
    ways = {
        "alone": lambda: synthetic(Runner(model, device=CPU, precision="fp32", batch=CPU_BATCH), count),
        "embed": lambda: embed(slides[:1], model, given.threads, most=count),
    }
    wall, cpu, _ = compared(ways, given.rounds)
    return [
        ["ViT-S on the CPU", "the encoder on tiles in memory, rate by the clock", f"{wall:.3f}", ">= 0.97"],
        ["ViT-S on the CPU", "the same, tiles a CPU second", f"{cpu:.3f}", ">= 0.97"],
    ]


def loop(slides: list[Path], given: argparse.Namespace) -> list[list[str]]:
    """A torch DataLoader over openslide-python, as it is usually written, with the same number of workers."""
    ways = {
        "loop": lambda: plain_loop(slides, Null(), given.threads),
        "embed": lambda: embed(slides, Null(), given.threads),
    }
    wall, cpu, _ = compared(ways, given.rounds)
    what = "null encoder, features written"
    return [
        [what, "DataLoader + openslide-python, rate by the clock", f"{wall:.2f}", ""],
        [what, "DataLoader + openslide-python, tiles a CPU second", f"{cpu:.2f}", ""],
    ]


def memory(slides: list[Path], given: argparse.Namespace) -> list[list[str]]:
    """Peak memory of a process that embeds 4 slides, and of one that embeds 64."""
    peaks = [
        json.loads(subprocess.check_output([sys.executable, __file__, "--child", str(slides[0]), str(count)]))
        for count in (4, 64)
    ]
    return [["peak memory, 64 slides", f"4 slides ({peaks[0]:.0f} MB)", f"{peaks[1] / peaks[0]:.3f}", "0.90 to 1.10"]]


def gpu(slides: list[Path], given: argparse.Namespace) -> list[list[str]]:
    """ViT-L in bf16 on a graphics card, against the same network on batches that are there already."""
    if not torch.cuda.is_available():
        return [["ViT-L in bf16 on a GPU", "this machine has none: not measured", "", ">= 0.90"]]
    device = torch.device("cuda")
    model = encoder("timm:vit_large_patch16_224", "random", device=device)
    batch = choose_batch(model, device=device, precision="bf16", size_px=SPEC.size_px).batch
    many = slides * 8
    tiles = sum(len(planned(path)) for path in many)
    runner = Runner(model, device=device, precision="bf16", batch=batch)
    ways = {
        "alone": lambda: synthetic(runner, tiles // batch * batch),
        "embed": lambda: embed(many, model, given.threads, runner=runner),
    }
    wall, _, _ = compared(ways, given.rounds)
    return [[f"ViT-L in bf16 on a GPU, batch {batch}", "the encoder on tiles in memory", f"{wall:.3f}", ">= 0.90"]]


class Compared(NamedTuple):
    """The rate of the second way over that of the first, by the clock and a CPU second, and the CPU seconds that it
    takes more: medians over rounds."""

    wall: float
    cpu: float
    added_s: float


def compared(ways: dict[str, Callable[[], int]], rounds: int) -> Compared:
    """Both ways in turn, round by round."""
    found: list[tuple[float, float, float]] = []
    for number in range(rounds + 1):
        spent = []
        for way in ways.values():
            begin, used = time.perf_counter(), cpu_s()
            count = way()
            spent.append((count, time.perf_counter() - begin, cpu_s() - used))
        if number:  # the first round warms up
            (count, wall, cpu), (other_count, other_wall, other_cpu) = spent
            share = other_count / count
            found.append((share * wall / other_wall, share * cpu / other_cpu, other_cpu - share * cpu))
    return Compared(*(statistics.median(values) for values in zip(*found)))


def cpu_s() -> float:
    """CPU seconds of this process and of its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def planned(path: Path, most: int | None = None) -> Tiles:
    with Slide.open(path) as slide:
        tiles = plan(slide, None, SPEC)
    return replace(tiles, xy=tiles.xy[:most], tissue=tiles.tissue[:most])


def read(slides: list[Path], threads: int) -> int:
    count = 0
    for path in slides:
        with Slide.open(path) as slide, closing(slide.tiles(plan(slide, None, SPEC), threads=threads)) as batches:  # type: ignore[type-var]
            count += sum(len(batch) for batch in batches)
    return count


def embed(
    slides: list[Path], model: Encoder, threads: int, *, most: int | None = None, runner: Runner | None = None
) -> int:
    """Tiles embedded by the engine, into a store that is thrown away."""
    store = Path(tempfile.mkdtemp())
    by_name = {f"{place}": path for place, path in enumerate(slides)}
    counts: list[int] = []

    def prepare(name: str) -> SlideWork:
        slide = Slide.open(by_name[name], id=name)
        tiles = plan(slide, None, SPEC)
        tiles = replace(tiles, xy=tiles.xy[:most], tissue=tiles.tissue[:most])
        counts.append(len(tiles))
        made = identity(slide, tiles, model.info, "fp32")
        return SlideWork(slide, tiles, FeatureWriter(store, name, made, tiles.xy))

    ready = runner or Runner(model, device=CPU, precision="fp32", batch=CPU_BATCH)
    Engine(prepare, lambda _: ready, Quiet(), threads=ReadingThreads(threads)).run(list(by_name))
    shutil.rmtree(store)
    return sum(counts)


def synthetic(runner: Runner, count: int) -> int:
    """Tiles through the encoder alone, as many batches under way as the engine has."""
    images = runner.buffer(SPEC.size_px)
    under_way = []
    for _ in range(count // runner.batch):
        under_way.append(runner.submit(images))
        if len(under_way) > runner.ahead:
            under_way.pop(0).rows()
    for pending in under_way:
        pending.rows()
    return count // runner.batch * runner.batch


class _Regions(Dataset[tuple[torch.Tensor, int]]):
    """The usual dataset: a slide is opened by each worker, a tile is one read_region."""

    def __init__(self, path: Path, tiles: Tiles) -> None:
        self._path, self._tiles = path, tiles
        self._slide: openslide.OpenSlide | None = None

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self._slide is None:
            self._slide = openslide.OpenSlide(self._path)
        x, y, side, _ = self._tiles.box(index)
        image = self._slide.read_region((x, y), 0, (side, side)).convert("RGB")
        return torch.from_numpy(np.asarray(image).copy()), index


def plain_loop(slides: list[Path], model: Encoder, workers: int) -> int:
    count = 0
    for path in slides:
        tiles = planned(path)
        rows = np.zeros((len(tiles), model.info.dim), dtype=np.float16)
        for images, index in DataLoader(_Regions(path, tiles), batch_size=CPU_BATCH, num_workers=workers):
            with torch.inference_mode():
                rows[index.numpy()] = model(model.prepare(images)).numpy()
            count += len(images)
        with tempfile.TemporaryFile() as file:
            np.save(file, rows)
    return count


def peak_mb(slides: list[Path], threads: int) -> float:
    embed(slides, Null(), threads)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
