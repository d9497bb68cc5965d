"""Studies on real data, each run from the command line and written up as a page of docs/studies.

    python benchmarks/studies.py --data DATA --work FOLDER                   # all, hours on one core
    python benchmarks/studies.py --data DATA --work FOLDER --only thca_braf  # some
    python benchmarks/studies.py --work FOLDER --pages                       # runs nothing: pages of what is there

`--data` has `tcga_features` and `tcga_clinical`. A run that is finished is not run again, one that was stopped goes on;
what it cost is added up in its `cost.json`. Pages are made of the JSON files of the runs alone: see `study_pages.py`.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from study_pages import PAGES, write_index

from coverslip.base.settings import dump_toml

SEED = 0
# Institutions with fewer patients are tested together.
LEAST_SITE = 20
# AJCC's stages without their letters: a letter is rare in a fold, and some are not given.
STAGES = {"Stage I": "I", "Stage II": "II", "Stage III": "III", "Stage IV": "IV"}


@dataclass(frozen=True)
class Planned:
    """One run: its settings over the common ones, and the run whose models serve it too."""

    settings: dict[str, dict[str, Any]]
    models_of: str = ""


@dataclass(frozen=True)
class Planning:
    """A page's runs by name, and where its features and targets come from."""

    features: str
    table: str
    runs: dict[str, Planned] = field(default_factory=dict)


def subtypes(task: str) -> Planning:
    """Published folds, folds of patients, and institutions left out."""
    published = {"file": f"tcga_features/splits/tcga_{task}", "allow_leaks": True}
    column = {"column": "subtype"}
    return Planning(
        f"tcga_{task}",
        "subtype",
        {
            "published": Planned({"task": {**column, "level": "slide"}, "split": published}),
            "patients": Planned({"task": column}),
            "sites": Planned({"task": column, "split": {"design": "leave_site_out", "least_site": LEAST_SITE}}),
        },
    )


def survival(task: str) -> Planning:
    """Tissue beside age, and beside age and stage; the tissue models are the same."""
    target = {"kind": "survival", "time": "os_days", "event": "os"}
    return Planning(
        f"tcga_{task}",
        "survival",
        {
            "age": Planned({"task": target, "cohort": {"covariates": ["age"]}, "evaluation": {"inner_folds": 3}}),
            "age_stage": Planned(
                {"task": target, "cohort": {"covariates": ["age", "stage"]}, "evaluation": {"inner_folds": 3}}, "age"
            ),
        },
    )


def mutation(task: str, gene: str, *, control: int = 0) -> Planning:
    """A mutation by patient; with `control`, all of it again that many times, on outcomes of other patients."""
    settings: dict[str, dict[str, Any]] = {"task": {"column": gene}}
    if control:
        settings["evaluation"] = {"control": control}
    return Planning(f"tcga_{task}", gene, {"patients": Planned(settings)})


STUDIES = {
    "brca_subtype": subtypes("brca"),
    "lung_subtype": subtypes("lung"),
    "brca_survival": survival("brca"),
    "lung_survival": survival("lung"),
    "thca_braf": mutation("thca", "braf", control=20),
    "brca_tp53": mutation("brca", "tp53"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with tcga_features and tcga_clinical")
    parser.add_argument("--work", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--only", nargs="+", choices=list(STUDIES), default=list(STUDIES), metavar="NAME")
    parser.add_argument("--runs", nargs="+", default=[], metavar="RUN", help="some runs of a study")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "studies")
    parser.add_argument("--pages", action="store_true", help="write pages, run nothing")
    given = parser.parse_args()
    if not given.pages and given.data is None:
        parser.error("--data names the folder with the data; --pages runs nothing and needs none")
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.only:
        folder = given.work / name
        if not given.pages:
            for run in STUDIES[name].runs:
                if not given.runs or run in given.runs:
                    carry_out(STUDIES[name], run, folder, given.data)
        if all(finished(folder / run) for run in STUDIES[name].runs):
            (given.out / f"{name}.md").write_text(PAGES[name](folder), encoding="utf-8")
    write_index(given.out, given.work)


def finished(run: Path) -> bool:
    cost = run / "cost.json"
    return cost.is_file() and bool(json.loads(cost.read_text())["finished"])


def carry_out(planning: Planning, run: str, folder: Path, data: Path) -> None:
    """Trains one run by `coverslip train`, as anyone would; adds what it cost to its cost.json."""
    out = folder / run
    planned = planning.runs[run]
    settings = study_settings(planning, planned, out, data)
    file = folder / f"{run}.toml"
    text = dump_toml(settings)
    done = out / "cost.json"
    before = json.loads(done.read_text())["cpu_s"] if done.is_file() else 0.0
    if finished(out) and file.is_file() and file.read_text(encoding="utf-8") == text:
        return
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    cohort_table(planning, data).to_csv(settings["cohort"]["table"], index=False)
    if planned.models_of and not (out / "models").is_dir():
        shutil.copytree(folder / planned.models_of / "models", out / "models")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = shutil.which("coverslip", path=str(Path(sys.executable).parent)) or "coverslip"
    ended = subprocess.run([command, "train", str(file)], check=False)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    done.write_text(json.dumps({"cpu_s": before + spent, "finished": ended.returncode == 0}) + "\n")
    if ended.returncode != 0:
        raise SystemExit(f"{file} ended with {ended.returncode}; run the script again to go on.")


def study_settings(planning: Planning, planned: Planned, out: Path, data: Path) -> dict[str, Any]:
    """What the study's TOML file holds. Inner folds are trained where their models are shown, and nowhere else."""
    made = {name: dict(part) for name, part in planned.settings.items()}
    made["cohort"] = {"table": str(out.with_name("cohort.csv").absolute()), **made.get("cohort", {})}
    made["split"] = {"seed": SEED, **made.get("split", {})}
    if "file" in made["split"]:
        made["split"]["file"] = str((data / made["split"]["file"]).absolute())
    made["evaluation"] = {"inner_folds": 0, **made.get("evaluation", {})}
    made["features"] = {"store": str((data / "tcga_features" / f"{planning.features}.npz").absolute())}
    return {
        "format": "coverslip.study/1",
        "name": f"{planning.features} {planning.table}",
        "output": str(out.absolute()),
        "fit": {"seed": SEED},
        **made,
    }


def cohort_table(planning: Planning, data: Path) -> pd.DataFrame:
    """Slides with their patient, institution and target."""
    with np.load(data / "tcga_features" / f"{planning.features}.npz", allow_pickle=False) as z:
        frame = pd.DataFrame({"slide": z["slide_ids"]})
        if "labels" in z:
            frame["subtype"] = z["label_names"][z["labels"]]
    frame["patient"] = frame["slide"].str[:12]
    clinical = data / "tcga_clinical"
    codes = pd.read_csv(clinical / "tcga-institution-sites.csv", sep=";", dtype=str, keep_default_na=False)
    frame["site"] = frame["patient"].str[5:7].map(dict(zip(codes["TSS Code"], codes["Source Site"])))
    if planning.table == "survival":
        frame = frame.merge(outcomes(clinical), on="patient", how="left")
    elif planning.table != "subtype":
        cancer = planning.features.removeprefix("tcga_")
        known = pd.read_csv(clinical / f"{cancer}_{planning.table}.csv")
        frame[planning.table] = frame["patient"].map(dict(zip(known["patient"], known.iloc[:, 1])))
    return frame.drop(columns=[] if planning.table == "subtype" else ["subtype"], errors="ignore")


def outcomes(clinical: Path) -> pd.DataFrame:
    """Overall survival, age and stage of patients; who has no time or a time of 0 has no outcome."""
    table = pd.read_csv(clinical / "tcga_cdr.csv.gz", low_memory=False)
    stage = table["ajcc_pathologic_tumor_stage"].str.replace(r"[ABC]$", "", regex=True).map(STAGES)
    known = table["OS.time"] > 0
    return pd.DataFrame(
        {
            "patient": table["bcr_patient_barcode"],
            "os_days": table["OS.time"].where(known),
            "os": table["OS"].where(known),
            "age": table["age_at_initial_pathologic_diagnosis"],
            "stage": stage,
        }
    )


if __name__ == "__main__":
    main()
