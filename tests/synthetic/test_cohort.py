"""Cohorts: what is written, and that nothing but the lesion tells the label."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import openslide
import pytest

from coverslip.base.errors import SettingsError
from coverslip.synthetic import CohortTruth, make_cohort
from coverslip.synthetic.cohort import _deal


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> CohortTruth:
    return make_cohort(tmp_path_factory.mktemp("cohort"), slides=8, damaged=1, side_px=512, seed=3)


def rows_of(cohort: CohortTruth) -> list[dict[str, str]]:
    with cohort.table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_names_every_file_and_its_columns(cohort: CohortTruth) -> None:
    rows = rows_of(cohort)
    assert list(rows[0]) == ["slide", "patient", "path", "site", "lesion", "age"]
    assert len(rows) == 9
    for row in rows:
        assert (cohort.folder / row["path"]).is_file()
        assert Path(row["path"]).stem == row["slide"]


def test_good_slides_open_and_the_damaged_one_does_not(cohort: CohortTruth) -> None:
    assert cohort.damaged == ("case-09",)
    for name in cohort.slides:
        with openslide.OpenSlide(cohort.folder / "slides" / f"{name}.tif") as slide:
            slide.read_region((0, 0), 0, (512, 512))
    with pytest.raises(openslide.OpenSlideError):
        openslide.OpenSlide(cohort.folder / "slides" / "case-09.tif").read_region((0, 0), 0, (512, 512))


def test_the_truth_matches_the_table(cohort: CohortTruth) -> None:
    for row in rows_of(cohort):
        if row["slide"] in cohort.damaged:
            continue
        truth = cohort.slides[row["slide"]]
        assert truth.recipe.site == row["site"]
        assert (truth.lesion_fraction > 0) == (row["lesion"] == "1")
        document = json.loads((cohort.folder / "truth" / f"{row['slide']}.geojson").read_text(encoding="utf-8"))
        assert bool(document["features"]) == (row["lesion"] == "1")


def test_the_same_seed_gives_the_same_cohort_with_any_number_of_workers(tmp_path: Path) -> None:
    for name, workers in (("a", 1), ("b", 3)):
        make_cohort(tmp_path / name, slides=3, damaged=1, side_px=512, seed=5, workers=workers)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 4 + 3 + 1
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.mark.parametrize("seed", range(5))
def test_neither_site_nor_pen_tells_the_label(seed: int) -> None:
    rows = _deal(24, 1, 1, seed)[:24]
    assert Counter((r.lesion, r.site) for r in rows) == {(a, s): 6 for a in (True, False) for s in ("north", "south")}
    for what in ("pen", "fold", "blur"):
        with_it = Counter(r.lesion for r in rows if getattr(r, what))
        assert with_it[True] == with_it[False] > 0


def test_patients_may_have_several_slides_with_one_outcome() -> None:
    rows = _deal(12, 2, 2, 0)
    assert len({r.slide for r in rows}) == 14
    good = rows[:12]
    assert Counter(Counter(r.patient for r in good).values()) == {2: 6}
    for patient in {r.patient for r in good}:
        assert len({(r.lesion, r.site, r.age) for r in good if r.patient == patient}) == 1
    assert not {r.patient for r in good} & {r.patient for r in rows[12:]}


def test_a_cohort_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        make_cohort(tmp_path, slides=0)
