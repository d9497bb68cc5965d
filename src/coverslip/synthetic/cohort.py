"""A small cohort with known answers: slides of two sites, a table, and the lesions' outlines."""

from __future__ import annotations

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from coverslip.base.errors import SettingsError
from coverslip.base.files import write_json, write_text
from coverslip.base.progress import SILENT, Progress
from coverslip.base.random import stream, stream_seed
from coverslip.base.threads import one_blas_thread
from coverslip.synthetic.damage import damage
from coverslip.synthetic.recipe import SITES, PenColour, SlideRecipe, Truth
from coverslip.synthetic.slides import make_slide

COLUMNS = ("slide", "patient", "path", "site", "lesion", "age")


@dataclass(frozen=True)
class CohortTruth:
    """What was made: the folder, its table, the truth of each good slide by name, and the names of damaged ones."""

    folder: Path
    table: Path
    slides: dict[str, Truth]
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    slide: str
    patient: str
    site: str
    lesion: bool
    age: int
    pen: PenColour | None
    fold: bool
    blur: bool


def make_cohort(
    folder: str | Path,
    *,
    slides: int = 24,
    damaged: int = 1,
    side_px: int = 4096,
    seed: int = 0,
    slides_per_patient: int = 1,
    workers: int = 2,
    progress: Progress = SILENT,
) -> CohortTruth:
    """What is true of the cohort that is written to `folder`: `slides/*.tif`, `cohort.csv` and `truth/*.geojson`.

    `slides` good slides, half of them with a lesion, and `damaged` more that are cut off in the middle of their
    pixels. Sites, pens and folds are dealt evenly over both outcomes, so that neither tells the label. `path` in the
    table is relative to `folder`.

    Raises:
        SettingsError: a number that makes no cohort.
        StoreError: the folder cannot be written.
    """
    if slides < 1 or damaged < 0 or slides_per_patient < 1:
        raise SettingsError(
            f"No cohort of {slides} slides, {damaged} damaged, {slides_per_patient} a patient can be made.",
            fix="slides and slides_per_patient are at least 1, damaged at least 0.",
        )
    folder = Path(folder)
    rows = _deal(slides, damaged, slides_per_patient, seed)
    truths: dict[str, Truth] = {}
    with (
        one_blas_thread(),
        progress.stage("make slides", len(rows), unit="slide") as step,
        ThreadPoolExecutor(max(1, workers)) as pool,
    ):
        for row, truth in zip(rows, pool.map(lambda row: _make(folder, row, side_px, seed), rows)):
            truths[row.slide] = truth
            step.advance(note=row.slide)
    broken = tuple(row.slide for row in rows[slides:])
    for name in broken:
        damage(folder / "slides" / f"{name}.tif", "truncate")
        del truths[name]
    for name, truth in truths.items():
        write_json(folder / "truth" / f"{name}.geojson", truth.to_geojson())
    table = folder / "cohort.csv"
    write_text(table, _table(rows))
    return CohortTruth(folder, table, truths, broken)


def _deal(slides: int, damaged: int, slides_per_patient: int, seed: int) -> list[_Row]:
    """Rows in the order of their names; label, site and artefacts are crossed, then patients shuffled."""
    rng = stream(seed, "cohort")
    patients = -(-slides // slides_per_patient)
    # Lesion changes every patient, site every second, pen and fold on their own beat within each of the four groups.
    plan = [(p % 2 == 0, p // 2 % len(SITES), p // 4) for p in range(patients)]
    plan = [plan[i] for i in rng.permutation(patients)]
    sites = list(SITES)
    pens = ("blue", "green", "red", "black")
    ages = rng.integers(46, 84, patients + damaged)
    rows = []
    for number in range(slides + damaged):
        good = number < slides
        patient = number // slides_per_patient if good else patients + number - slides
        lesion, site, beat = plan[patient % patients]
        first = number % slides_per_patient == 0
        rows.append(
            _Row(
                slide=f"case-{number + 1:02d}",
                patient=f"patient-{patient + 1:02d}",
                site=sites[site],
                lesion=lesion,
                age=int(ages[patient]),
                pen=cast(PenColour, pens[(beat + 2 * lesion + site) % 4]) if first and beat % 3 == 1 else None,
                fold=first and beat % 4 == 2,
                blur=first and beat % 6 == 3,
            )
        )
    return rows


def _make(folder: Path, row: _Row, side_px: int, seed: int) -> Truth:
    recipe = SlideRecipe(
        seed=stream_seed(seed, row.slide),
        side_px=side_px,
        site=row.site,
        lesion=row.lesion,
        pen=row.pen,
        fold=row.fold,
        blur=row.blur,
    )
    return make_slide(folder / "slides" / f"{row.slide}.tif", recipe)


def _table(rows: list[_Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([row.slide, row.patient, f"slides/{row.slide}.tif", row.site, int(row.lesion), row.age])
    return text.getvalue()
