"""What top-k, masks, positions and packing are for: large bags with few witnesses, whose rows are known.

    python benchmarks/mil_planted.py --work FOLDER                                 # what is left, hours on one core
    python benchmarks/mil_planted.py --work FOLDER --bags small-5% --methods abmil
    python benchmarks/mil_planted.py --work FOLDER --bags small-1% --epochs 60     # three times the training
    python benchmarks/mil_planted.py --work FOLDER --keep

Every row is Gaussian; in a positive bag a share of them (the witnesses, side by side on the slide) is moved by 4
standard deviations. Each kind of bags is drawn with three seeds; a method trains on 48 bags at its default settings for
20 epochs and is tested on 64 fresh ones. Slide AUROC; that of the bags it was trained on, which tells a method that
learns nothing from one that learns them by heart; and localisation AUROC: in each positive test bag, do witnesses score
over the other rows? By evidence where a method gives it, and by attention. One cell is one method on one draw.

In `hard-5%` every other witness is hard: moved by 2 standard deviations, along a direction of its own. Bags can be told
apart without them; methods that hide what is easy are there to find them. Of these bags it is also written what part of
the witnesses' attention is on hard ones, and whether hard ones score over the rows that are no witnesses.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine
from mil_methods import alone
from sklearn.metrics import roc_auc_score

from coverslip import __version__
from coverslip.base.errors import CoverslipError
from coverslip.base.registry import AGGREGATORS
from coverslip.base.study import FitSettings
from coverslip.mil import BagSource, Target, fit_bags
from coverslip.mil.tasks.classification import Classification
from coverslip.store import Features
from coverslip.synthetic import PlantedBags, make_bags

KEPT = Path(__file__).with_name("mil_planted.json")
DIM, SHIFT, TRAIN, TEST, EPOCHS, SEEDS = 64, 4.0, 48, 64, 20, 3
HARD, HARD_SHIFT = "hard-5%", 2.0
KINDS = {
    "small-5%": ((2_000, 5_000), 0.05),
    "small-1%": ((2_000, 5_000), 0.01),
    "small-0.1%": ((2_000, 5_000), 0.001),
    HARD: ((500, 2_000), 0.05),
    "large-1%": ((20_000, 50_000), 0.01),
    "large-0.1%": ((20_000, 50_000), 0.001),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where cells are kept")
    parser.add_argument("--bags", nargs="*", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--methods", nargs="+", default=AGGREGATORS.names())
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(SEEDS)))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--keep", action="store_true", help="write all cells into mil_planted.json; with --bags alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for kind in given.bags:
        for seed in given.seeds:
            planted = None
            for method in given.methods:
                longer = "" if given.epochs == EPOCHS else f"-{given.epochs}"
                path = given.work / kind / f"{method}-{seed}{longer}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.is_file():
                    continue
                with alone(path.with_suffix(".lock")) as free:
                    if free:
                        planted = planted or draw(kind, seed)
                        cell(planted, kind, method, seed, given.epochs, path)
    if given.keep:
        keep(given.work)


def draw(kind: str, seed: int) -> PlantedBags:
    rows, rate = KINDS[kind]
    shift = 0.0 if kind == HARD else SHIFT
    planted = make_bags(TRAIN + TEST, rows=rows, dim=DIM, witness_rate=rate, shift=shift, seed=1000 + seed)
    if kind == HARD:
        hard = hard_rows(planted)
        planted.x[planted.witness & ~hard, 0] += SHIFT
        planted.x[hard, 1] += HARD_SHIFT
    return planted


def hard_rows(planted: PlantedBags) -> np.ndarray:
    """Every other witness (m,)."""
    return planted.witness & (np.cumsum(planted.witness) % 2 == 0)


def cell(planted: PlantedBags, kind: str, method: str, seed: int, epochs: int, path: Path) -> None:
    source = BagSource([features(planted, i) for i in range(TRAIN + TEST)], target=Target(torch.from_numpy(planted.y)))
    names = list(source.names)
    settings = FitSettings(epochs=epochs, device="cpu", seed=seed)
    begin = time.process_time()
    try:
        model = fit_bags(source.take(names[:TRAIN]), None, Classification(("no", "yes")), method, settings)
    except CoverslipError as error:
        print(f"{kind} / {method} / {seed}: {error}", flush=True)
        return
    cpu = time.process_time() - begin
    scores, places = [], {name: [] for name in ("evidence", "attention", "hard", "hard_share")}
    hard_of_all = hard_rows(planted)
    for place in range(TRAIN + TEST):
        output = model.output(source.bags([place]))
        scores.append(float(output.logits[0, 1] - output.logits[0, 0]))
        if place < TRAIN:
            continue
        part = slice(planted.offsets[place], planted.offsets[place + 1])
        witness, hard = planted.witness[part], hard_of_all[part]
        if planted.y[place] == 1:
            if output.evidence is not None:
                places["evidence"].append(roc_auc_score(witness, output.evidence[:, 1] - output.evidence[:, 0]))
            if output.attention is not None:
                a = output.attention.mean(1).numpy()
                places["attention"].append(roc_auc_score(witness, a))
                if kind == HARD:
                    places["hard"].append(roc_auc_score(hard[hard | ~witness], a[hard | ~witness]))
                    places["hard_share"].append(a[hard].sum() / a[witness].sum())
    figures: dict[str, Any] = {
        "kind": kind,
        "method": method,
        "seed": seed,
        "epochs": epochs,
        "slide_auroc": float(roc_auc_score(planted.y[TRAIN:], scores[TRAIN:])),
        "train_auroc": float(roc_auc_score(planted.y[:TRAIN], scores[:TRAIN])),
        **{
            name if name == "hard_share" else f"{name}_auroc": float(np.mean(found)) if found else None
            for name, found in places.items()
        },
        "train_cpu_s": round(cpu, 1),
        "coverslip": __version__,
        "machine": machine(),
    }
    path.write_text(json.dumps(figures), encoding="utf-8")
    told = ", ".join(
        f"{key} {figures[key]:.3f}" for key in figures if key.endswith("auroc") and figures[key] is not None
    )
    print(f"{kind} / {method} / {seed}: {told}, {cpu:.0f} s", flush=True)


def features(planted: PlantedBags, index: int) -> Features:
    part = slice(planted.offsets[index], planted.offsets[index + 1])
    xy = planted.xy[part].astype(np.int32)
    return Features(f"bag{index:03d}", planted.bag(index).astype(np.float16), coords=xy, mpp=0.25, span=448.0)


def keep(work: Path) -> None:
    """All finished cells of `work` into the kept file; what it had of other cells stays."""
    kept = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    for path in sorted(work.glob("*/*.json")):
        figures = json.loads(path.read_text())
        kept[f"{figures['kind']} {figures['method']} {figures['seed']} {figures['epochs']}"] = figures
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(kept)} cells in {KEPT.name}")


if __name__ == "__main__":
    main()
