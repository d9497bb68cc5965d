"""Every MIL method at its default settings on the same folds of real data, cell by cell.

    python benchmarks/mil_methods.py --data DATA --work FOLDER --plans brca lung          # what is left of these plans
    python benchmarks/mil_methods.py --data DATA --work FOLDER --plans musk1 --entries abmil mean
    python benchmarks/mil_methods.py --list

A cell is one way of training (an entry) on one plan: data, target, folds. A cell that is done is not done again, one
that was stopped goes on, and two processes may work in one folder. `--keep` writes the figures of all cells into
`mil_methods.json` beside this script; `mil_tables.py` makes the tables of the documentation of that file alone. What
is kept there counts as done, too, unless `--again` is given.

Plans:

- brca, lung: 5 patient folds; *_10 and *_25: with a tenth or a quarter of the training patients
- brca_published, lung_published: the 10 folds of papers, slide level, with patients on both sides
- thca_braf, brca_tp53: 5 patient folds
- musk1, fox, elephant, ucsb_breast_cancer: 10 folds, 5 times
- lung_pos5, lung_pos10, lung_pos20: 5 patient folds, that share of positives among the training patients

Nothing is chosen on a test fold: the entries that are tuned choose inside each fold.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import machine

from coverslip import __version__
from coverslip.base.errors import CoverslipError
from coverslip.base.random import stream
from coverslip.base.registry import AGGREGATORS
from coverslip.base.settings import parse
from coverslip.base.study import Study
from coverslip.recipes.train import train_study

KEPT = Path(__file__).with_name("mil_methods.json")
FIGURES = ("auroc", "accuracy", "auprc", "brier")
SEED = 0
PUBLISHED_FOLDS = "tcga_features/splits/tcga_{task}"
Settings = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """Data, target and folds. `keep` and `positives` thin out the training patients of each fold."""

    features: str
    target: str
    settings: Settings = field(default_factory=dict)
    keep: float = 1.0
    positives: float | None = None


def tcga(task: str, target: str = "subtype", **others: Any) -> Plan:
    return Plan(f"tcga_features/tcga_{task}.npz", target, **others)


def published(task: str) -> Plan:
    split = {"file": PUBLISHED_FOLDS.format(task=task), "allow_leaks": True}
    return tcga(task, settings={"task": {"level": "slide"}, "split": split})


def classic(name: str) -> Plan:
    return Plan(f"mil_classic/{name}.npz", "label", {"split": {"folds": 10, "repeats": 5}})


PLANS = {
    **{task: tcga(task) for task in ("brca", "lung")},
    **{f"{task}_published": published(task) for task in ("brca", "lung")},
    **{f"{task}_{share}": tcga(task, keep=share / 100) for task in ("brca", "lung") for share in (10, 25)},
    "thca_braf": tcga("thca", "braf"),
    "brca_tp53": tcga("brca", "tp53"),
    **{name: classic(name) for name in ("musk1", "fox", "elephant", "ucsb_breast_cancer")},
    **{f"lung_pos{share}": tcga("lung", positives=share / 100) for share in (5, 10, 20)},
}

IMBALANCE: dict[str, Settings] = {
    "abmil, no weights": {"fit": {"class_weights": "none"}},
    "abmil, class weights": {},
    "abmil, effective number": {"fit": {"class_weights": "effective_number"}},
    "abmil, balanced sampling": {"fit": {"sampling": "balanced"}},
    "abmil, focal": {"fit": {"class_weights": "none"}, "task": {"options": {"loss": "focal"}}},
    "abmil, logit adjustment": {"fit": {"class_weights": "none"}, "task": {"options": {"loss": "logit_adjusted"}}},
    "abmil, psemix": {"fit": {"augment": "psemix"}},
    "abmil, remix": {"fit": {"augment": "remix"}},
    "abmil, smote": {"fit": {"augment": "smote"}},
    "abmil, smote of embeddings": {"fit": {"augment": "smote", "augment_options": {"space": "embeddings"}}},
    "scmil": {"aggregator": {"name": "scmil"}},
}

_RATES = [1e-4, 3e-4, 1e-3]
TUNED: dict[str, Settings] = {
    "abmil, tuned": {"tune": {"grid": {"fit.lr": _RATES, "aggregator.options.dropout": [0.25, 0.5]}}},
    "acmil, tuned": {
        "aggregator": {"name": "acmil"},
        "tune": {"grid": {"fit.lr": _RATES, "aggregator.options.mask_drop": [0.0, 0.6]}},
    },
    "clam_sb, tuned": {
        "aggregator": {"name": "clam_sb"},
        "tune": {"grid": {"fit.lr": _RATES, "aggregator.options.bag_weight": [0.5, 0.7]}},
    },
}

# Why a method lies below the reference: the same with one thing changed. And the reference from other seeds.
WITHOUT: dict[str, Settings] = {
    "acmil, no masks": {"aggregator": {"name": "acmil", "options": {"mask_drop": 0.0}}},
    "abmilx, no correlation": {"aggregator": {"name": "abmilx", "options": {"correlation": False}}},
    "abmilx, one head": {"aggregator": {"name": "abmilx", "options": {"heads": 1}}},
    "mhim, no masks": {"aggregator": {"name": "mhim", "options": {"mask_random": 0.0, "mask_high": 0.0}}},
    "ins, mean of all rows": {"aggregator": {"name": "ins", "options": {"pool": "mean"}}},
    "gnn_vitcap, 4 clusters": {"aggregator": {"name": "gnn_vitcap", "options": {"clusters": 4}}},
    "abmilx, smaller steps": {"aggregator": {"name": "abmilx"}, "fit": {"lr": 5e-5}},
    "rrt, smaller steps": {"aggregator": {"name": "rrt"}, "fit": {"lr": 5e-5}},
    "transmil, smaller steps": {"aggregator": {"name": "transmil"}, "fit": {"lr": 5e-5}},
    "mambamil, smaller steps": {"aggregator": {"name": "mambamil"}, "fit": {"lr": 5e-5}},
    "scmil, no contrast": {"aggregator": {"name": "scmil", "options": {"beta": 0.0}}},
    "abmil, no gate": {"aggregator": {"name": "abmil", "options": {"gated": False}}},
    "abmil, seed 1": {"fit": {"seed": 1}},
    "abmil, seed 2": {"fit": {"seed": 2}},
}


def entries_of(plan: str) -> dict[str, Settings]:
    """What is trained on a plan, by name."""
    if "_pos" in plan:
        return IMBALANCE
    methods: dict[str, Settings] = {name: {"aggregator": {"name": name}} for name in AGGREGATORS.names()}
    return {**methods, **WITHOUT, **TUNED} if plan in ("brca", "lung") else methods


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with tcga_features, tcga_clinical and mil_classic")
    parser.add_argument("--work", type=Path, help="where runs and figures are kept")
    parser.add_argument("--plans", nargs="+", choices=list(PLANS), default=list(PLANS), metavar="PLAN")
    parser.add_argument("--entries", nargs="+", default=[], metavar="ENTRY", help="some, where not all of a plan")
    parser.add_argument("--again", action="store_true", help="also cells whose figures are kept in mil_methods.json")
    parser.add_argument("--keep", action="store_true", help="write the figures of all cells into mil_methods.json")
    parser.add_argument("--list", action="store_true", help="print plans and entries")
    given = parser.parse_args()
    if given.list:
        for plan in given.plans:
            print(f"{plan}: {', '.join(entries_of(plan))}")
        return
    if given.work is None:
        parser.error("--work names the folder where runs are kept")
    if given.data is not None:
        # Steps over bags of thirty rows gain nothing from a second thread, and two processes may work side by side.
        torch.set_num_threads(1)
        kept = {} if given.again else read_kept()
        for plan in given.plans:
            for entry, settings in entries_of(plan).items():
                if entry not in kept.get(plan, {}) and (not given.entries or entry in given.entries):
                    cell(given, plan, entry, settings)
    if given.keep:
        keep(given.work)


def cell(given: argparse.Namespace, plan: str, entry: str, settings: Settings) -> None:
    """Trains one cell, unless it is done or another process is at it."""
    folder = given.work / plan / entry.replace(", ", "-").replace(" ", "_")
    done = folder / "cell.json"
    if done.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / "lock") as free:
        if not free:
            return
        begin, cpu = time.perf_counter(), time.process_time()
        try:
            metrics = train_study(study(given, PLANS[plan], folder, settings)).metrics
        except CoverslipError as error:
            print(f"{plan} / {entry}: {error}", flush=True)
            return
        figures = {
            "entry": entry,
            "plan": plan,
            "level": metrics["level"],
            # The widening to the sampling of the test patients needs their predictions, which are not kept.
            "intervals": {"entry": metrics["primary"]["auroc"], "baseline": metrics["baseline"]["auroc"]},
            "folds": [fold_figures(fold) for fold in metrics["folds"]],
            "baseline": [{name: fold[name] for name in FIGURES} for fold in metrics["baseline"]["folds"]],
            "cpu_s": round(time.process_time() - cpu, 1),
            "wall_s": round(time.perf_counter() - begin, 1),
            "seed": SEED,
            "coverslip": __version__,
            "machine": machine(),
        }
        done.write_text(json.dumps(figures), encoding="utf-8")
        mean = np.mean([fold["auroc"] for fold in figures["folds"] if fold["auroc"] is not None])
        print(f"{plan} / {entry}: AUROC {mean:.3f}, {figures['cpu_s']:.0f} s", flush=True)


def fold_figures(fold: dict[str, Any]) -> dict[str, Any]:
    """A fold's figures; how many units it was trained and tested on, as the corrected t wants them."""
    named = {name: fold[name] for name in ("fold", "repeat", *FIGURES)}
    train = fold.get("train_patients", fold.get("train_slides"))
    return {**named, "train": train, "test": sum(fold["classes"].values())}


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """True while no other process holds the lock; it is let go of whatever happens to the process."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def study(given: argparse.Namespace, plan: Plan, folder: Path, settings: Settings) -> Study:
    """The study of a cell; its table, and its features and folds where they have to be made, lie beside the cells."""
    shared = folder.parent
    table = shared / "cohort.csv"
    with_lock(shared / "lock", partial(prepare, given.data, plan, shared))
    common: Settings = {
        "cohort": {"table": str(table)},
        "features": {"store": str(shared / "features.npz")},
        "task": {"column": "target"},
        "split": {"seed": SEED},
        "fit": {"seed": SEED},
        "audit": {"enabled": False},
        "evaluation": {"inner_folds": 0, "resamples": 100},
    }
    merged: dict[str, Any] = {"output": str(folder / "run")}
    for part in (common, plan.settings, settings):
        for section, values in part.items():
            merged.setdefault(section, {}).update(values)
    if "file" in merged["split"]:
        merged["split"]["file"] = str(given.data / merged["split"]["file"])
    if (shared / "folds").is_dir():
        merged["split"]["file"] = str(shared / "folds")
    return parse(Study, merged, source="benchmark")


def with_lock(path: Path, work: Any) -> None:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        work()


def prepare(data: Path, plan: Plan, shared: Path) -> None:
    """cohort.csv, features.npz and, where training patients are thinned out, folds/ of a plan."""
    table, features = shared / "cohort.csv", shared / "features.npz"
    if table.is_file():
        return
    source = data / plan.features
    with np.load(source, allow_pickle=False) as z:
        frame = bags_of_rows(z, features) if "bag_index" in z.files else slides_of_tcga(z, plan.target, data)
    if not features.exists():
        features.symlink_to(source.resolve())
    if plan.keep < 1 or plan.positives is not None:
        thinned_folds(frame, plan, shared / "folds")
    frame.to_csv(table, index=False)


def bags_of_rows(z: Any, features: Path) -> pd.DataFrame:
    """The classic sets: each bag is its own patient; the rows as a feature file with offsets."""
    order = np.argsort(z["bag_index"], kind="stable")
    counts = np.bincount(z["bag_index"])
    names = np.array([f"bag{i:03d}" for i in range(len(counts))])
    np.savez(features, features=z["features"][order], offsets=np.concatenate([[0], np.cumsum(counts)]), slide_ids=names)
    labels = np.where(z["bag_label"] > 0, "positive", "negative")
    return pd.DataFrame({"slide": names, "patient": names, "target": labels})


def slides_of_tcga(z: Any, target: str, data: Path) -> pd.DataFrame:
    frame = pd.DataFrame({"slide": z["slide_ids"]})
    frame["patient"] = frame["slide"].str[:12]
    if target == "subtype":
        return frame.assign(target=z["label_names"][z["labels"]])
    status = mutations(data / "tcga_clinical" / {"braf": "thca_braf.csv", "tp53": "brca_tp53.csv"}[target])
    frame["target"] = frame["patient"].map(status)
    return frame.dropna(subset=["target"])


def mutations(path: Path) -> dict[str, str]:
    """mutated or wild type, by patient."""
    frame = pd.read_csv(path)
    patient, status = frame.columns[:2]
    return {name: "mutated" if int(value) else "wild_type" for name, value in zip(frame[patient], frame[status])}


def thinned_folds(frame: pd.DataFrame, plan: Plan, folder: Path) -> None:
    """Five patient folds with all test patients, and a share of the training patients of each class.

    With `positives` the second class is thinned out until it has that share of the training patients.
    """
    folder.mkdir()
    classes = sorted(frame["target"].unique())
    patients = frame.drop_duplicates("patient").set_index("patient")["target"]
    chance = stream(SEED, "thinned")
    dealt = {name: list(chance.permutation(patients.index[patients == name])) for name in classes}
    for fold in range(5):
        test = [p for name in classes for p in dealt[name][fold::5]]
        learn = {name: [p for p in dealt[name] if p not in set(test)] for name in classes}
        learn = {name: names[: max(2, round(plan.keep * len(names)))] for name, names in learn.items()}
        if plan.positives is not None:
            others = len(learn[classes[0]])
            learn[classes[1]] = learn[classes[1]][: round(others * plan.positives / (1 - plan.positives))]
        tune = [p for names in learn.values() for p in names[: len(names) // 5]]
        train = [p for names in learn.values() for p in names[len(names) // 5 :]]
        sets = {"train": train, "val": tune, "test": test}
        columns = {name: sorted(frame.loc[frame["patient"].isin(set(p)), "slide"]) for name, p in sets.items()}
        table = pd.DataFrame({name: pd.Series(slides, dtype=str) for name, slides in columns.items()})
        table.to_csv(folder / f"splits_{fold}.csv", index=False)


def read_kept() -> dict[str, Any]:
    """The kept figures: plan, entry."""
    kept: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}
    return kept


def keep(work: Path) -> None:
    """All finished cells of `work` into the kept file; what it had of other cells stays."""
    kept = read_kept()
    for path in sorted(work.glob("*/*/cell.json")):
        figures = json.loads(path.read_text())
        kept.setdefault(figures["plan"], {})[figures["entry"]] = figures
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{sum(map(len, kept.values()))} cells in {KEPT.name}")


if __name__ == "__main__":
    main()
