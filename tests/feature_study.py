"""A study that begins with feature files, small enough to train in a second."""

from __future__ import annotations

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
