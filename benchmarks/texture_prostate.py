"""How well cancer is told from 48 real prostate biopsies with the classical texture encoder, and how long it takes.

`--data` is a folder with `cohort.csv` (slide, patient, cancer, path) and the slides. Folds are of patients, drawn anew
in each repeat; the figure is the mean over all folds, the interval that of Nadeau and Bengio. The reference is logistic
regression on 43 hand-made colour and texture features of the same slides: slide AUROC about .90.

    python benchmarks/texture_prostate.py --data DATA/prostate_slides --repeats 5
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import machine, table

import coverslip as cs
from coverslip.base.study import Study
from coverslip.recipes.embed import embed_study
from coverslip.recipes.train import train_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cohort.csv and the slides")
    parser.add_argument("--methods", nargs="+", default=["abmil", "mean"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        embed_study(study(given, Path(folder), "abmil"))
        embedding_s = time.perf_counter() - begin
        rows: list[list[str]] = []
        for method in given.methods:
            begin = time.perf_counter()
            metrics = train_study(study(given, Path(folder), method)).metrics
            rows.append([method, auroc(metrics["primary"]), f"{time.perf_counter() - begin:.0f}"])
        rows.append([metrics["baseline"]["name"], auroc(metrics["baseline"]), "in the above"])
    patients = metrics["counts"]["patients"]
    print(f"{machine()}\n\n5 patient folds x {given.repeats}, seed {given.seed}, {patients} patients\n")
    print(table(["texture features and", "AUROC (95 %), patient level", "s"], rows))
    print(f"\nEmbedding: {embedding_s:.0f} s in all. Encoding alone: {tile_ms(given.data):.1f} ms of one core a tile.")


def study(given: argparse.Namespace, folder: Path, method: str) -> Study:
    return Study.model_validate(
        {
            "output": str(folder / method),
            "cohort": {"table": str(given.data / "cohort.csv"), "root": str(given.data)},
            "task": {"column": "cancer"},
            "features": {"store": str(folder / "features")},
            "aggregator": {"name": method},
            "split": {"repeats": given.repeats, "seed": given.seed},
        }
    )


def auroc(part: dict[str, Any]) -> str:
    number = part["auroc"]
    return f"{number['value']:.3f} ({number['low']:.3f} to {number['high']:.3f})"


def tile_ms(data: Path) -> float:
    """Processor time in ms that the encoder alone takes for a tile, in batches of 32."""
    torch.set_num_threads(1)
    encoder = cs.encoder("texture")
    with cs.Slide.open(next(iter(sorted((data / "slides").iterdir())))) as slide:
        tiles = cs.plan(slide, cs.segment(slide), cs.TileSpec(size_px=224, mpp=0.5))
        images = torch.from_numpy(next(iter(slide.tiles(tiles, batch=32))).images)
    taken = []
    with torch.inference_mode():
        for _ in range(5):
            begin = time.process_time()
            encoder(encoder.prepare(images))
            taken.append(time.process_time() - begin)
    return 1e3 * statistics.median(taken) / len(images)


if __name__ == "__main__":
    main()
