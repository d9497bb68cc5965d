"""How many machines a cohort needs: measured rates of one core, and arithmetic that is shown.

python benchmarks/sizing.py --out benchmarks/sizing.json      # measures here, keeps the rates, prints the tables
python benchmarks/sizing.py --rates benchmarks/sizing.json    # the same tables from rates that were kept

Rates of cores are tiles a second of CPU time with one thread, so that who else uses the machine matters little. A GPU
is measured where there is one; where there is none, its rate is an assumption, and marked as one.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, table
from large_slides import ENCODINGS, Picture, write_slide

import coverslip as cs
from coverslip.encoders import encoder_info, identity
from coverslip.encoders.device import choose_precision
from coverslip.encoders.runner import Runner
from coverslip.store import FeatureWriter

FORMAT = "coverslip.sizing/1"
SPEC = cs.TileSpec(size_px=224, mpp=0.5)
ENCODERS = {
    "texture": "texture",
    "ViT-S/16": "timm:vit_small_patch16_224",
    "ViT-L/16": "timm:vit_large_patch16_224",
}
ON_GPU = "ViT-L/16"
COHORTS = (1_000, 10_000, 1_000_000)
DAY_H, WEEK_H = 24, 168
GOALS = ((1_000, DAY_H), (10_000, WEEK_H), (1_000_000, WEEK_H))


def measure(side: int, seconds: float) -> dict[str, Any]:
    """Tiles a second: of a core that reads, of a core that encodes, of a GPU, and of the process that writes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.svs"
        write_slide(path, Picture(side), ENCODINGS["ap240_422_q70"])
        with cs.Slide.open(path) as slide:
            tiles = cs.plan(slide, cs.segment(slide), SPEC)
            reader = _reading(slide, tiles)
            images = next(iter(slide.tiles(replace(tiles, xy=tiles.xy[:64], tissue=tiles.tissue[:64])))).images
            writer = _writing(slide, tiles, Path(folder))
    cores = {name: _encoding(full, images, "cpu", 16, seconds) for name, full in ENCODERS.items()}
    gpu = _encoding(ENCODERS[ON_GPU], images, "cuda", 512, seconds) if torch.cuda.is_available() else None
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "format": FORMAT,
        "machine": machine(),
        "slide": f"{side} px, JPEG 4:2:2 quality 70 in tiles of 240 px, 0.25 µm/px",
        "reader_per_core": reader,
        "encoder_per_core": cores,
        "gpu": gpu,
        "gpu_name": device,
        "writer": writer,
    }


def _reading(slide: cs.Slide, tiles: cs.Tiles) -> float:
    begin = time.process_time()
    with closing(slide.tiles(tiles, batch=64, threads=1)) as batches:
        read = sum(len(batch) for batch in batches)
    return read / (time.process_time() - begin)


def _encoding(name: str, images: np.ndarray, device: str, batch: int, seconds: float) -> float:
    model = cs.encoder(name, weights=None if name == "texture" else "random", device=device)
    where = torch.device(device)
    precision = choose_precision("auto", where, model.info)
    runner = Runner(model, device=where, precision=precision, batch=batch)
    images = np.resize(images, (batch, *images.shape[1:]))
    clock = time.perf_counter if device == "cuda" else time.process_time
    runner.rows(images)  # the first batch warms up
    begin, done = clock(), 0
    while clock() - begin < seconds:
        runner.rows(images)
        done += batch
    return done / (clock() - begin)


def _writing(slide: cs.Slide, tiles: cs.Tiles, folder: Path, dim: int = 1024, piece: int = 222) -> float:
    """Rows that one process keeps a second, each piece on the disk before the next, and the finished file: 20,000 rows
    of 1,024 numbers, the fastest of five rounds, since waiting for a disk is no CPU time."""
    info = replace(encoder_info("texture"), dim=dim)
    xy = np.stack(np.divmod(np.arange(20_000), 200), axis=1).astype(np.int32) * 448
    many = replace(tiles, xy=xy, tissue=np.ones(len(xy), np.float32))
    rows = np.random.default_rng(0).standard_normal((piece, dim), dtype=np.float32)
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        with FeatureWriter(folder, slide.id, identity(slide, many, info, "fp32"), many.xy) as writer:
            todo = writer.missing()
            for start in range(0, len(todo), piece):
                part = todo[start : start + piece]
                writer.put(part, rows[: len(part)])
        taken.append(time.perf_counter() - begin)
        writer.path.unlink()
    return len(xy) / min(taken)


def vit_l_flops() -> float:
    """Floating-point operations of one ViT-L/16 pass over a tile of 224 px: per layer 12 n d² multiplications in its
    four matrices and 2 n² d in its attention, two operations each (n = 197 tokens, d = 1,024, 24 layers)."""
    n, d, layers = 197, 1024, 24
    return 2.0 * layers * (12 * n * d**2 + 2 * n**2 * d)


def report(rates: dict[str, Any], options: argparse.Namespace) -> str:
    """The rates, the arithmetic and the tables, as they stand in docs/cluster.md."""
    r, cores = rates["reader_per_core"], options.cores
    gpu, told = rates["gpu"], f"measured on {rates['gpu_name']}"
    if not gpu:
        gpu = options.gpu_tflops * 1e12 * options.gpu_share / vit_l_flops()
        peak = f"{options.gpu_tflops:.0f} TFLOP/s x {options.gpu_share:.0%}"
        told = f"assumed: {peak} / {vit_l_flops() / 1e9:.0f} GFLOP a tile"
    encoders = rates["encoder_per_core"]
    lines = [
        f"Measured on: {rates['machine']}.",
        f"Slide: {rates['slide']}; tiles of 224 px at 0.5 µm/px.",
        "",
        table(
            ["what", "tiles/s", "from"],
            [
                ["one core reads and decodes, r", _number(r), "measured"],
                *[[f"one core encodes, {name}, e", _number(e), "measured"] for name, e in encoders.items()],
                [f"one GPU encodes, {ON_GPU}", _number(gpu), told],
                ["one process keeps rows of 1,024 numbers", _number(rates["writer"]), "measured, local disk"],
            ],
        ),
        "",
        f"Without GPU, {cores} cores (assumed): {cores} / (1/r + 1/e) tiles/s a machine.",
        "",
    ]
    machines = {}
    for name, e in encoders.items():
        machines[f"{name}, {cores} cores"] = rate = cores / (1 / r + 1 / e)
        lines.append(f"- {name}: {cores} / (1/{_number(r)} + 1/{_number(e)}) = {_number(rate)}")
    machines[f"{ON_GPU}, {cores} cores, 1 GPU"] = min(cores * r, gpu)
    lines += [
        "",
        f"With a GPU and {cores} cores (assumed): the smaller of {cores} r = {_number(cores * r)} and the GPU's "
        f"{_number(gpu)}. {gpu / r:.1f} cores feed the GPU.",
        "",
        f"Hours of one machine = slides x {options.tiles_per_slide:,} tiles (assumed) / (tiles/s) / 3,600.",
        "",
        table(
            [
                "encoder, machine",
                "tiles/s",
                *[f"{n:,} slides, h" for n in COHORTS],
                *[f"machines for {n:,} in a {'day' if hours == DAY_H else 'week'}" for n, hours in GOALS],
            ],
            [_row(name, rate, options.tiles_per_slide) for name, rate in machines.items()],
        ),
        "",
        f"One process keeps {_number(rates['writer'])} rows/s: from {max(2, int(rates['writer'] / gpu) + 1)} GPUs on, "
        "start several processes with `--shard`.",
    ]
    return "\n".join(lines)


def _row(name: str, rate: float, tiles_per_slide: int) -> list[str]:
    hours = {n: n * tiles_per_slide / rate / 3600 for n in COHORTS}
    machines = [math.ceil(hours[n] / goal) for n, goal in GOALS]
    return [name, _number(rate), *(_number(h) for h in hours.values()), *(f"{m:,}" for m in machines)]


def _number(value: float) -> str:
    """Three digits, or all of a larger number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=Path, help="rates that were kept; nothing is measured")
    parser.add_argument("--out", type=Path, help="keep the rates here")
    parser.add_argument("--side", type=int, default=16_384, help="side of the slide that is read, px")
    parser.add_argument("--seconds", type=float, default=8.0, help="CPU seconds an encoder")
    parser.add_argument("--cores", type=int, default=16, help="cores of a machine (assumption)")
    parser.add_argument("--tiles-per-slide", type=int, default=10_000, help="tiles of a slide (assumption)")
    parser.add_argument("--gpu-tflops", type=float, default=312.0, help="bf16 peak (assumption: an A100's data sheet)")
    parser.add_argument("--gpu-share", type=float, default=0.4, help="share of the peak that is reached (assumption)")
    options = parser.parse_args()
    rates = json.loads(options.rates.read_text()) if options.rates else measure(options.side, options.seconds)
    if options.out:
        options.out.write_text(json.dumps(rates, indent=1) + "\n")
    print(report(rates, options))


if __name__ == "__main__":
    main()
