"""Subtypes from published region features of TCGA: the mean+sd logistic baseline and gated ABMIL.

`--data` is a folder with `tcga_brca.npz` and `tcga_lung.npz` (features, offsets, slide_ids, case_ids, labels,
label_names) and `splits/tcga_<task>/splits_<k>.csv`. Two kinds of folds:

- patient: 5 folds of patients made by Coverslip; the figures are at patient level;
- published: the 10 folds that papers report on. They put 35 (BRCA) and 30 (lung) patients on both sides of a fold, so
  they are read with `allow_leaks`, and serve to compare with papers alone; the figures are at slide level.

The row of 5 nearest neighbours on the mean of a slide's rows (10 stratified folds of slides, shuffled with seed 0)
checks the reading of the file: its value is known to the last digit.

    python benchmarks/tcga_baseline.py --data DATA/tcga_features --tasks brca
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import machine, table
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

from coverslip.base.settings import override, parse
from coverslip.base.study import Study
from coverslip.recipes.train import train_study
from coverslip.store import FeatureStore

PUBLISHED = {
    "brca": {"abmil": ".885 to .898 over six seeds", "mean+sd logistic": ".889", "5-NN": "0.7738300898746104"},
    "lung": {"abmil": ".947 to .952 over six seeds", "mean+sd logistic": ".942", "5-NN": "0.8935382487870264"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the npz files and splits/")
    parser.add_argument("--tasks", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED))
    parser.add_argument("--folds", nargs="+", choices=["patient", "published"], default=["patient", "published"])
    parser.add_argument("--method", default="abmil")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, and of the folds of patients")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="a setting, as in --set fit.lr=1e-3")
    given = parser.parse_args()
    rows: list[list[str]] = []
    for task in given.tasks:
        rows.append([task, "10 of slides", "5-NN", f"{neighbours(given.data, task)}", PUBLISHED[task]["5-NN"], ""])
        for folds in given.folds:
            rows += trained(given, task, folds)
    print(f"{machine()}\n\nseed {given.seed}\n")
    print(table(["task", "folds", "method", "AUROC, mean over folds (95 %)", "published", "s"], rows))


def trained(given: argparse.Namespace, task: str, folds: str) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        metrics = train_study(study(given, Path(folder), task, folds)).metrics
        taken = f"{time.perf_counter() - begin:.0f}"
    kind = f"{len(metrics['folds'])} {folds}, {metrics['level']} level"
    published = PUBLISHED[task] if folds == "published" else {}
    baseline = metrics["baseline"]["name"]
    return [
        [task, kind, given.method, auroc(metrics["primary"]), published.get(given.method, ""), taken],
        [task, kind, baseline, auroc(metrics["baseline"]), published.get(baseline, ""), "in the above"],
    ]


def study(given: argparse.Namespace, folder: Path, task: str, folds: str) -> Study:
    z = arrays(given.data, task)
    frame = pd.DataFrame({"slide": z["slide_ids"], "patient": z["case_ids"]})
    frame["subtype"] = z["label_names"][z["labels"]]
    frame.to_csv(folder / "cohort.csv", index=False)
    published = folds == "published"
    split = {"file": str(given.data / "splits" / f"tcga_{task}"), "allow_leaks": True} if published else {}
    return parse(
        Study,
        override(
            {
                "output": str(folder / "run"),
                "cohort": {"table": str(folder / "cohort.csv")},
                "features": {"store": str(given.data / f"tcga_{task}.npz")},
                "task": {"column": "subtype", "level": "slide" if published else "patient"},
                "aggregator": {"name": given.method},
                "split": {"seed": given.seed, **split},
                "fit": {"seed": given.seed},
            },
            given.changes,
        ),
        source="benchmark",
    )


def arrays(data: Path, task: str) -> dict[str, np.ndarray]:
    with np.load(data / f"tcga_{task}.npz", allow_pickle=False) as z:
        return {name: z[name] for name in z.files if name != "features"}


def auroc(part: dict[str, Any]) -> str:
    number = part["auroc"]
    return f"{number['value']:.3f} ({number['low']:.3f} to {number['high']:.3f})"


def neighbours(data: Path, task: str) -> float:
    """Mean AUROC of 5 nearest neighbours on the mean row of each slide, read through the feature store."""
    z = arrays(data, task)
    store = FeatureStore(data / f"tcga_{task}.npz")
    x = np.stack([store.read(slide).x.astype(np.float32).mean(axis=0) for slide in z["slide_ids"].tolist()])
    y = z["labels"]
    figures = []
    for train, test in StratifiedKFold(10, shuffle=True, random_state=0).split(x, y):
        p = KNeighborsClassifier(5).fit(x[train], y[train]).predict_proba(x[test])[:, 1]
        figures.append(roc_auc_score(y[test], p))
    return float(np.mean(figures))


if __name__ == "__main__":
    main()
