"""What the default training does with few patients: cohorts of 24 synthetic slides, out-of-fold AUROC.

Each row is one way of training gated ABMIL on the same features and folds: the defaults; with a tuning set of four
patients that chooses the epoch; and with the step that suits a thousand bags. Cohorts differ by their seed alone. None
of them is the demo's (seed 0).

    python benchmarks/small_cohorts.py [--cohorts 4] [--repeats 2]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from common import machine, table

from coverslip.base.study import load_study
from coverslip.recipes.embed import embed_study
from coverslip.recipes.train import train_study
from coverslip.synthetic import make_cohort

STUDY = """
[cohort]
table = "cohort.csv"
[task]
column = "lesion"
"""
WAYS = {
    "defaults": [],
    "four tuning patients choose the epoch": ["fit.least_tuning=1"],
    "steps of eight bags at 2e-4": ["fit.batch=8", "fit.lr=2e-4"],
}
FIRST_SEED = 21


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=4, help="synthetic cohorts of 24 slides")
    parser.add_argument("--repeats", type=int, default=2, help="times the 5 folds are drawn")
    options = parser.parse_args()
    figures: dict[str, list[float]] = {name: [] for name in (*WAYS, "baseline: mean+sd logistic")}
    for seed in range(FIRST_SEED, FIRST_SEED + options.cohorts):
        with tempfile.TemporaryDirectory() as folder:
            study = Path(folder) / "study.toml"
            study.write_text(STUDY, encoding="utf-8")
            make_cohort(folder, slides=24, damaged=0, seed=seed)
            embed_study(load_study(study))
            for name, changes in WAYS.items():
                metrics = train_study(load_study(study, [*changes, f"split.repeats={options.repeats}"])).metrics
                figures[name].append(metrics["primary"]["auroc"]["value"])
            figures["baseline: mean+sd logistic"].append(metrics["baseline"]["auroc"]["value"])
    rows = [
        [name, f"{np.mean(values):.3f}", ", ".join(f"{value:.2f}" for value in values)]
        for name, values in figures.items()
    ]
    print(f"{machine()}\n{options.cohorts} cohorts, seeds from {FIRST_SEED}, {options.repeats} x 5 patient folds\n")
    print(table(["training", "mean AUROC", "by cohort"], rows))


if __name__ == "__main__":
    main()
