"""A study that begins with feature files, small enough to train in a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

STUDY = """\
format = "coverslip.study/1"
output = "run"
[cohort]
table = "cohort.csv"
[task]
column = "lesion"
[aggregator]
name = "mean"
[split]
folds = 2
[fit]
epochs = 2
fixed_epochs = 2
[audit]
enabled = false
[evaluation]
resamples = 100
inner_folds = 2
"""


def write_study(folder: Path, patients: int, *, slides: int = 1, shift: float = 1.5, **columns: list[Any]) -> Path:
    """A study on features of `patients`, half with a lesion that the first column shows; the path of its file."""
    rng = np.random.default_rng(0)
    rows = []
    (folder / "features").mkdir(parents=True)
    for i in range(patients):
        for s in range(slides):
            x = rng.normal(size=(10, 4)) + shift * (i % 2) * (np.arange(4) == 0)
            np.savez(folder / "features" / f"s{i:03}-{s}.npz", features=x.astype(np.float16))
            more = {name: values[i % len(values)] for name, values in columns.items()}
            rows.append({"slide": f"s{i:03}-{s}", "patient": f"p{i:03}", "lesion": i % 2, **more})
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    path = folder / "study.toml"
    path.write_text(STUDY)
    return path


KINDS = {
    "classification": {"column": "lesion"},
    "regression": {"column": "amount"},
    "ordinal": {"column": "grade"},
    "multilabel": {"columns": ["lesion", "hole"]},
    "survival": {"time": "days", "event": "died", "times": [100, 200]},
    "survival_cox": {"time": "days", "event": "died", "times": [100, 200]},
    "survival_parametric": {"time": "days", "event": "died", "times": [100, 200]},
    "competing_risks": {"time": "days", "event": "cause", "times": [100, 200]},
}
"""The task settings of each kind on the table of `write_kinds`."""


def write_kinds(folder: Path, patients: int, *, seed: int = 0, start: int = 0) -> Path:
    """A study whose table has an outcome for every kind of task, all shown by the first column of the features; its
    file trains none until a kind is set (`kind_options`)."""
    rng = np.random.default_rng(seed)
    rows = []
    (folder / "features").mkdir(parents=True)
    for i in range(start, start + patients):
        g = rng.normal()
        x = rng.normal(size=(10, 4)) + g * (np.arange(4) == 0)
        xy = np.stack([np.arange(10) % 5 * 256, np.arange(10) // 5 * 256], axis=1)
        np.savez(folder / "features" / f"s{i:03}.npz", features=x.astype(np.float16), coords=xy)
        time, end = rng.exponential(150 * np.exp(-g)), rng.uniform(60, 500)
        rows.append(
            {
                "slide": f"s{i:03}",
                "patient": f"p{i:03}",
                "lesion": int(g > 0),
                "hole": None if i % 5 == 0 else int(rng.normal() + g > 0),
                "amount": round(50 + 10 * g, 2),
                "grade": int(np.clip(round(g + 2), 1, 3)),
                "days": round(min(time, end) + 1, 1),
                "died": int(time < end),
                "cause": int(time < end) * (1 + i % 2),
            }
        )
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    path = folder / "study.toml"
    path.write_text(STUDY.replace('column = "lesion"\n', ""))
    return path


def kind_options(kind: str) -> list[str]:
    """The options of the command line that set the task of `write_kinds`."""
    settings = {"kind": kind, **KINDS[kind]}
    return [text for name, value in settings.items() for text in ("--set", f"task.{name}={json.dumps(value)}")]
