"""A run folder like the demo's: 25 good slides and a damaged one, two sites, maps with tiles. Nothing in it is real."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from coverslip.base.files import write_json
from coverslip.base.study import Study
from coverslip.cohort import Fold, Split
from coverslip.eval import evaluate
from coverslip.eval.covariates import added_value
from coverslip.eval.evaluate import FoldSize
from coverslip.eval.learnt import before_and_after, learn, with_calibrated
from coverslip.eval.permute import control, null_mean
from coverslip.eval.truth import Task
from coverslip.store.environment import describe_environment
from coverslip.store.run import RunFolder, save_settings
from coverslip.store.tables import OutcomeLog, write_table

# What a pseudonymised report must not hold.
FOLDER = "/srv/st-elsewhere/pathology/Doe Jane 1961"
HOST = "ward7-scanner.st-elsewhere.org"
DAMAGED = "biopsy-0099-broken"
UNLABELLED = ("biopsy-7001-a", "biopsy-7002-a")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run folder; shared, so tests that change one copy it."""
    return make_run(tmp_path_factory.mktemp("run") / "demo")


@pytest.fixture
def copy_of(run_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the run folder without some of its parts."""

    def copy(*, without: tuple[str, ...] = (), name: str = "copy") -> Path:
        target = tmp_path / name
        for path in sorted(run_folder.rglob("*")):
            relative = path.relative_to(run_folder)
            if path.is_file() and not any(str(relative) == gone or relative.parts[0] == gone for gone in without):
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                (target / relative).write_bytes(path.read_bytes())
        return target

    return copy


@pytest.fixture
def edit() -> Callable[[Path, Callable[[dict[str, Any]], None]], None]:
    """Changes a JSON file in place."""

    def change_file(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
        value = json.loads(path.read_text(encoding="utf-8"))
        change(value)
        path.write_text(json.dumps(value), encoding="utf-8")

    return change_file


@pytest.fixture(scope="session")
def secrets(run_folder: Path) -> list[str]:
    """Every text of the run that tells whose slides these are, or where and when the work was done."""
    predictions = pd.read_csv(run_folder / "predictions.csv", dtype=str)
    ids = [*predictions["slide"], *predictions["patient"], DAMAGED, *UNLABELLED]
    places = [FOLDER, "Doe Jane", "st-elsewhere", HOST, "ward7", str(run_folder), str(run_folder.parent.parent)]
    return sorted({*ids, *places, "2026-03-14", "15:09", "2021-07-09"})


def make_run(folder: Path, *, patients: int = 20, pictures: Callable[[str], Image.Image] | None = None) -> Path:
    """Writes a run of `patients` patients and about a fourth more slides."""
    rng = np.random.default_rng(7)
    files = RunFolder(folder).create()
    save_settings(files.settings, _study(folder))
    cohort = _cohort(patients)
    split = _split(cohort)
    write_json(files.split, split.to_json())
    write_json(
        files.cohort,
        {
            "format": "coverslip.cohort/1",
            "source": f"{FOLDER}/cohort.csv",
            "digest": "3f2a8be01c77d9e4",
            "rows": len(cohort) + 1 + len(UNLABELLED),
            "slides": list(cohort["slide"]),
            "exclusions": [{"slide": name, "reason": "no value of lesion"} for name in UNLABELLED],
        },
    )
    predictions = _predictions(cohort, split, rng, strength=0.75)
    write_table(files.predictions, predictions)
    _write_evaluation(files, cohort, split, predictions, _predictions(cohort, split, rng, strength=0.55))
    _write_check(files, cohort)
    _write_outcomes(files, cohort)
    write_json(
        files.environment,
        {
            **describe_environment(now=datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC), seeds={"split": 0, "fit": 0}),
            "host": HOST,
            "digests": {"cohort": "3f2a8be01c77d9e4", "weights": "91b7c05512aa03fe"},
        },
    )
    write_json(files.audit, _audit(cohort))
    write_json(files.control, _control())
    for fold in split.folds:
        write_json(files.model(fold.name) / "model.json", _model(fold, rng))
    draw = pictures or (lambda slide: tissue_picture(slide, 240))
    for slide in cohort["slide"]:
        _draw(files, slide, draw(slide), rng)
    return folder


def _audit(cohort: pd.DataFrame) -> dict[str, Any]:
    """Audits of every kind, some of them red."""
    figure = {"value": 0.7, "low": 0.5, "high": 0.84, "interval": "these fitted models, Newcombe's method 5, 95%"}
    probe = {"value": 0.8, "low": 0.7, "high": 0.9, "chance": 0.5, "counts": {"north": 14, "south": 6}, "red": True}
    level = {"level": "F", "units": 12, "counts": {"0": 6, "1": 6}, "figure": None, "difference": None}
    gap = {"value": -0.2, "low": -0.4, "high": -0.01, "p": 0.01, "p_holm": 0.03, "interval": "95%"}
    slides = list(cohort["slide"])[:3]
    worst = {"slice": "look-alikes 1 of 4", "kind": "cluster", "units": 6, "error": 0.5, "excess": 0.2, "shrunk": 0.1}
    return {
        "format": "coverslip.audit/1",
        "level": "patient",
        "leaks": {"feature_twins": [slides[:2]], "findings": [{"code": "feature_leak", "message": "Pairs: 1.",
                  "fix": "Look.", "cases": [f"{slides[0]} and {slides[1]} (fold 0)"]}]},
        "pretraining": {"seen": ["TCGA"], "by_cohort": {"TCGA": 2}, "warnings": ["2 of 25 tested slides may be seen."]},
        "sites": {"reason": None, "site_from_features": {"auroc": probe, "balanced_accuracy": probe},
                  "label_from_site": probe, "confounding": {"cramers_v": 0.5, "p": 0.001, "red": True},
                  "within_sites": {"sites": ["north"], "within": figure, "overall": figure}},
        "collapse": {"accuracy": 0.4, "chance": 0.04, "within_site": {"accuracy": 0.5, "chance": 0.1}},
        "subgroups": {"metric": "auroc", "overall": figure, "tests": 1, "least_events": 10,
                      "skipped": [{"column": "note", "reason": "one value"}],
                      "attributes": [{"attribute": "sex", "note": "", "levels": [
                          {**level, "reason": "too few: 6 events, under 10"},
                          {**level, "level": "M", "figure": figure, "difference": gap, "reason": None}]}]},
        "slices": {"units": 20, "looked_at": 9, "error": "share of wrong pairs", "reason": None,
                   "slices": [{**worst, "p": 0.01, "finding": True, "slides": slides}]},
        "warnings": [{"gravity": "fail", "text": f"Pairs of slides with the same features: {slides[0]}."}],
    }  # fmt: skip


def _control() -> dict[str, Any]:
    """20 permutations about chance."""
    values = [0.4 + 0.01 * i for i in range(20)]
    return {
        "format": "coverslip.control/1",
        "level": "patient",
        "metric": "auroc",
        "chance": 0.5,
        "seed": 0,
        "dealt": "patients",
        "headline": control(0.81, values).to_json(),
        "null_mean": null_mean(values).to_json(),
        "above_chance": False,
        "sentence": "auroc is 0.810; with outcomes of other patients it is 0.495 on average: no leak shows.",
    }


def _study(folder: Path) -> Study:
    return Study.model_validate(
        {
            "name": "Lesion demo",
            "output": str(folder),
            "cohort": {"table": f"{FOLDER}/cohort.csv", "root": FOLDER},
            "task": {"column": "lesion"},
        }
    )


def _cohort(patients: int) -> pd.DataFrame:
    rows = []
    for i in range(patients):
        for part in "ab" if i % 4 == 0 else "a":
            rows.append(
                {
                    "slide": f"biopsy-{1000 + 37 * i}-{part}",
                    "patient": f"case-{4400 + i}",
                    "site": "north" if i % 3 else "south",
                    "lesion": str(i % 2),
                }
            )
    return pd.DataFrame(rows)


def _split(cohort: pd.DataFrame) -> Split:
    patients = sorted(set(cohort["patient"]))
    patient_of = dict(zip(cohort["slide"], cohort["patient"]))

    def slides(chosen: set[str]) -> tuple[str, ...]:
        return tuple(sorted(slide for slide, patient in patient_of.items() if patient in chosen))

    folds = []
    for k in range(5):
        test = {p for i, p in enumerate(patients) if i // 2 % 5 == k}
        rest = [p for p in patients if p not in test]
        tune = set(rest[k : k + 4])
        folds.append(Fold(k, 0, slides(set(rest) - tune), slides(tune), slides(test)))
    return Split(tuple(folds), patient_of, "made from the cohort, seed 0")


def _predictions(cohort: pd.DataFrame, split: Split, rng: np.random.Generator, *, strength: float) -> pd.DataFrame:
    rows = []
    by_slide = cohort.set_index("slide")
    for fold in split.folds:
        for slide in fold.test:
            sign = 1 if by_slide.loc[slide, "lesion"] == "1" else -1
            p = float(1 / (1 + np.exp(-(strength * sign + 1.3 * rng.standard_normal()))))
            patient, label = by_slide.loc[slide, "patient"], by_slide.loc[slide, "lesion"]
            rows.append(
                {"slide": slide, "patient": patient, "fold": fold.index, "repeat": 0, "set": "test", "lesion": label}
                | {"p_0": 1 - p, "p_1": p}
            )
    return pd.DataFrame(rows)


def _write_evaluation(
    files: RunFolder, cohort: pd.DataFrame, split: Split, predictions: pd.DataFrame, baseline: pd.DataFrame
) -> None:
    sizes = [FoldSize(f.index, len(split.patients_of(f.train)), len(split.patients_of(f.test))) for f in split.folds]
    result = evaluate(
        predictions,
        baseline,
        task={"kind": "classification", "column": "lesion", "classes": ["0", "1"]},
        level="patient",
        split=sizes,
        resamples=200,
        sites=cohort.set_index("slide")["site"],
        warnings=[f"{DAMAGED}: no features, left out of every fold."],
    )
    lesions = sorted(set(cohort["slide"][cohort["lesion"] == "1"]))
    localisation = {
        "level": "tile",
        "auroc": {"value": 0.93, "low": 0.88, "high": 0.97, "interval": "mean over slides, patients resampled"},
        "slides": len(lesions),
        "highest_tile_hits": len(lesions) - 1,
        "by_slide": {slide: 0.9 + 0.01 * (i % 9) for i, slide in enumerate(lesions)},
        "text": f"tile-level AUROC 0.93 (95% 0.88 to 0.97), mean of {len(lesions)} annotated slides; the highest tile "
        f"touches the region in {len(lesions) - 1} of {len(lesions)}",
    }
    task = Task("classification", "lesion", ("0", "1"))
    learnt = learn(task, np.zeros(0, np.int64), np.zeros((0, 2)))
    corrected = before_and_after(with_calibrated(predictions, learnt, task), task, "patient")
    added = {"names": ["age"], "sizes": sizes, "task": task, "level": "patient"}
    figures = {
        "localisation": localisation,
        "inner": {"folds": 3, "without": {}},
        "operating_points": {"points": [], "reason": "no inner folds"},
        "covariates": added_value(predictions, baseline, predictions, **added),
    }
    write_json(files.metrics, {**result.metrics, **figures})
    write_json(files.evaluation, {**result.curves, "recalibration": {"folds": [], **corrected}})


def _write_check(files: RunFolder, cohort: pd.DataFrame) -> None:
    def entry(slide: str, verdict: str, *reasons: dict[str, str]) -> dict[str, Any]:
        return {
            "slide": slide,
            "path": f"{FOLDER}/slides/{slide}.tif",
            "verdict": verdict,
            "reasons": list(reasons),
            "vendor": "generic-tiff" if verdict != "fail" else "",
            "reader": "openslide" if verdict != "fail" else "",
            "size": [4096, 4096] if verdict != "fail" else None,
            "mpp": 0.5 if verdict != "fail" else None,
            "levels": [1.0, 2.0, 4.0] if verdict != "fail" else [],
            "digest": "1f" * 8,
        }

    def reason(code: str, message: str, fix: str) -> dict[str, str]:
        return {"code": code, "message": message, "fix": fix}

    slides = list(cohort["slide"])
    cut = f"{FOLDER}/slides/{DAMAGED}.tif ends after 61 % of its tiles."
    label = reason("label_image_present", "Holds a label image, scanned on 2021-07-09.", "Remove it before passing on.")
    twin = reason("near_duplicate_of", f"Looks like {slides[0]}, turned by 90°.", "If they are one section, drop one.")
    entries = [entry(slide, "ok") for slide in slides[2:]]
    entries += [entry(slides[0], "warn", label), entry(slides[1], "warn", twin)]
    entries += [entry(DAMAGED, "fail", reason("truncated", cut, "Copy it again from the scanner."))]
    write_json(files.check, {"format": "coverslip.check/1", "slides": sorted(entries, key=lambda e: e["slide"])})


def _write_outcomes(files: RunFolder, cohort: pd.DataFrame) -> None:
    with OutcomeLog(files.outcomes) as log:
        for slide in cohort["slide"]:
            log.record(slide, "check", "done", seconds=0.4)
            log.record(slide, "embed", "done", seconds=3.1)
        log.record(DAMAGED, "check", "failed", f"{FOLDER}/slides/{DAMAGED}.tif ends after 61 % of its tiles", 0.2)


def _model(fold: Fold, rng: np.random.Generator) -> dict[str, Any]:
    best = int(rng.integers(12, 30))
    history = [
        {
            "epoch": e,
            "loss": 0.7 * 0.95**e,
            "tune_loss": 0.42 + 0.0006 * (e - best) ** 2 + 0.01 * rng.random(),
            "lr": 1e-4,
        }
        for e in range(best + 10)
    ]
    return {
        "format": "coverslip.model/1",
        "method": "abmil",
        "options": {},
        "origin": {
            "dim": 128,
            "text": "texture (128 numbers a tile) on 224 px at 0.5 µm/px",
            "kind": "9be2",
            "encoder": "texture",
            "licence": "Apache-2.0",
            "attributes": {
                "encoder_source": "coverslip",
                "encoder_revision": "1",
                "encoder_precision": "fp32",
                "tile_px": 224,
                "tile_mpp": 0.5,
            },
        },
        "training": {
            "settings": {"epochs": 50},
            "patients": 12,
            "slides": len(fold.train),
            "rows": 4123,
            "epochs": best + 10,
            "best_epoch": best,
            "best_loss": history[best]["tune_loss"],
            "steps": 2 * best,
            "history": history,
        },
    }


def tissue_picture(slide: str, side: int) -> Image.Image:
    """Pink blobs on white: enough to see where a picture stands."""
    rng = np.random.default_rng(sum(map(ord, slide)))
    image = Image.new("RGB", (side, side), (245, 243, 245))
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y = rng.normal(side / 2, side / 7, 2)
        r = rng.uniform(side / 30, side / 9)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(int(rng.integers(205, 235)), 170, int(rng.integers(195, 220))))
    return image


def _draw(files: RunFolder, slide: str, image: Image.Image, rng: np.random.Generator) -> None:
    files.tissue.mkdir(exist_ok=True)
    (files.heatmaps / "tiles").mkdir(parents=True, exist_ok=True)
    image.save(files.tissue_overlay(slide), quality=80)
    heat = Image.effect_noise((12, 12), 90).resize(image.size, Image.Resampling.BICUBIC)
    red = Image.merge("RGB", (Image.new("L", image.size, 200), heat, heat.point(lambda v: v // 2)))
    Image.blend(image, red, 0.35).save(files.heatmap(slide, ".png"))
    tiles = []
    for rank in ("top", "bottom"):
        for k in range(6):
            name = f"{slide}_{rank}_{k}.jpg"
            x, y = (int(v) for v in rng.integers(0, image.width - 60, 2))
            image.crop((x, y, x + 56, y + 56)).resize((112, 112)).save(files.heatmaps / "tiles" / name)
            tiles.append(
                {
                    "rank": rank,
                    "score": float(rng.normal(1 if rank == "top" else -1, 0.2)),
                    "x": x,
                    "y": y,
                    "file": name,
                }
            )
    write_json(
        files.heatmaps / "tiles" / f"{slide}.json", {"slide": slide, "kind": "evidence", "class": "1", "tiles": tiles}
    )
