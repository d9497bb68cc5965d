"""`coverslip demo`: the main job on slides with known answers, made here, without any download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.base.files import write_text
from coverslip.base.progress import SILENT, Progress
from coverslip.base.study import load_study
from coverslip.recipes.run import run
from coverslip.synthetic import make_cohort

STUDY = """\
# The demo's study. `coverslip run study.toml` does it again; what is finished is reused.
format = "coverslip.study/1"
name = "Lesion from tissue (synthetic demo)"
output = "runs/lesion"

[cohort]
table = "cohort.csv"

[features]
store = "features"

[task]
column = "lesion"

[heatmaps]
annotations = "truth"       # the lesions' outlines: how well do the maps find them?
"""

NUM_SLIDES = 24
NUM_DAMAGED = 1


@dataclass(frozen=True)
class DemoResult:
    """What the demo ends with; `damaged` are the slides that were damaged on purpose."""

    folder: Path
    metrics: dict[str, Any]
    report: Path | None
    failed: dict[str, str]
    damaged: tuple[str, ...]


def demo(
    folder: Path, *, slides: int = NUM_SLIDES, side_px: int = 4096, seed: int = 0, progress: Progress = SILENT
) -> DemoResult:
    """Makes the cohort in `folder`, writes its study.toml, and runs it.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder = Path(folder)
    truth = make_cohort(folder, slides=slides, damaged=NUM_DAMAGED, side_px=side_px, seed=seed, progress=progress)
    study_file = folder / "study.toml"
    write_text(study_file, STUDY)
    result = run(load_study(study_file), progress=progress)
    return DemoResult(folder, result.metrics, result.report, result.failed, truth.damaged)
