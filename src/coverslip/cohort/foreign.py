"""Folds made elsewhere: a folder of CSV files, a split.json, or the table's own `split` column. Read, and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from coverslip.base.errors import SplitError, TableError
from coverslip.base.random import stream
from coverslip.base.study import SplitSettings
from coverslip.cohort.cells import Cells, read_cells
from coverslip.cohort.cohort import Cohort
from coverslip.cohort.folds import check_classes, draw_tune, make_split, patient_strata
from coverslip.cohort.labels import natural_key
from coverslip.cohort.site_folds import leave_site_out, site_preserved
from coverslip.cohort.split import SETS, Fold, Split, check_split, leak_error
from coverslip.cohort.table import MISSING, nearest, some
from coverslip.cohort.targets import Targets
from coverslip.cohort.temporal import temporal_split

# What others call our sets.
_SET_OF = {"train": "train", "tune": "tune", "val": "tune", "test": "test"}
_FIX = "A fold is a CSV with the columns train, val and test that name slides."

Names = dict[str, list[str]]


def resolve_split(cohort: Cohort, targets: Targets, settings: SplitSettings) -> Split:
    """The folds that the settings ask for: those of `split.file`, else those of the table's `split` column, else new
    ones of `split.design`.

    Where folds made elsewhere bring no tuning set, one is drawn from their training patients, with a warning.

    Raises:
        SplitError: folds leak, do not fit the cohort, or cannot be made.
        TableError: the `split` column holds something else than train, tune (val) and test.
    """
    if settings.file is not None:
        split = read_split(Path(settings.file), targets, allow_leaks=settings.allow_leaks)
    elif "split" in cohort.frame.columns:
        split = column_split(cohort, targets, allow_leaks=settings.allow_leaks)
    else:
        return _made(cohort, targets, settings)
    return _with_tune(split, targets, settings)


def _made(cohort: Cohort, targets: Targets, settings: SplitSettings) -> Split:
    if settings.design == "patients":
        return make_split(targets, settings)
    if settings.design == "temporal":
        return temporal_split(cohort, targets, settings)
    if "site" not in cohort.frame:
        raise SplitError(
            f"{cohort.source} has no column 'site', and split.design = {settings.design!r} makes folds of sites.",
            fix="Add the institution of each slide in a column 'site', or set split.design = 'patients'.",
            code="no_site",
        )
    sites = dict(zip(cohort.frame["slide"], cohort.frame["site"]))
    make = leave_site_out if settings.design == "leave_site_out" else site_preserved
    return make(targets, sites, settings)


def read_split(path: Path, targets: Targets, *, allow_leaks: bool = False) -> Split:
    """The folds of a file or folder, for the slides of `targets`.

    Understood: a folder with one CSV a fold, in the natural order of their names (`*_descriptor.csv` is passed over,
    and `*_bool.csv` where the same fold is there by name), one such CSV, or a split.json. Columns train, val (or tune)
    and test name slides, or patients where no name is a slide. Listed slides that are not among the targets are
    dropped, counted in the warnings. A slide may be tested in several folds.

    Raises:
        SplitError: nothing to read, no slide fits, a fold has no training or test slide, a patient is on both sides
            (unless `allow_leaks`: then they are in `Split.leaks`), or a split.json that was changed.
    """
    path = Path(path)
    if path.is_dir():
        files = _fold_files(path)
    elif path.is_file():
        files = [path]
    else:
        raise SplitError(f"There are no folds at {path}.", fix="split.file is a folder of CSV files or a split.json.")
    if len(files) == 1 and files[0].suffix.lower() == ".json":
        listed, repeats, said = _from_split_json(files[0])
        return _resolved(listed, repeats, targets, path.name, allow_leaks, already=said)
    listed = [_listed(file) for file in files]
    return _resolved(listed, [(i, 0, "") for i in range(len(listed))], targets, path.name, allow_leaks)


def column_split(cohort: Cohort, targets: Targets, *, allow_leaks: bool = False) -> Split:
    """The one fold that the table's `split` column spells: train, tune (or val) and test.

    Raises:
        TableError: another value, with its row.
        SplitError: no training or test slide, or a patient on both sides (unless `allow_leaks`).
    """
    names: Names = {name: [] for name in SETS}
    for row, slide, value in zip(cohort.frame.index, cohort.frame["slide"], cohort.frame["split"]):
        if value is None or value != value:
            continue
        key = _SET_OF.get(str(value).casefold())
        if key is None:
            raise TableError(
                f"{cohort.source}, row {row}, column 'split': {value!r} is no set of slides.",
                fix="Accepted: train, tune (or val), test; an empty cell keeps the slide out.",
            )
        names[key].append(slide)
    source = f"column 'split' of {cohort.source}"
    excluded = {exclusion.slide for exclusion in targets.exclusions}
    listed = {key: [slide for slide in slides if slide not in excluded] for key, slides in names.items()}
    return _resolved([listed], [(0, 0, "")], targets, source, allow_leaks)


def _fold_files(folder: Path) -> list[Path]:
    names = sorted((file.name for file in folder.iterdir() if file.is_file()), key=natural_key)
    tables = [name for name in names if name.endswith(".csv") and not name.endswith("_descriptor.csv")]
    # The same fold is often there twice, by name and as a table of True and False.
    tables = [n for n in tables if not (n.endswith("_bool.csv") and n.replace("_bool.csv", ".csv") in tables)]
    if not tables and "split.json" in names:
        return [folder / "split.json"]
    if not tables:
        raise SplitError(f"{folder} holds no folds.", fix=_FIX)
    return [folder / name for name in tables]


def _listed(path: Path) -> Names:
    """The names in each set of one CSV."""
    try:
        cells = read_cells(path)
    except TableError as error:
        raise SplitError(error.message, fix=error.fix) from error
    columns = {key: name for name in cells.columns for key in [_SET_OF.get(name.casefold())] if key}
    for key in ("train", "test"):
        if key not in columns:
            raise SplitError(f"{path.name} has no column {key!r}. {nearest(key, cells.columns)}", fix=_FIX)
    values = {key: cells.column(name) for key, name in columns.items()}
    said = {value.casefold() for column in values.values() for value in column}
    if said <= {"true", "false", "", "0", "1", "0.0", "1.0"} and said & {"true", "1", "1.0"}:
        slides = _first_column(cells, set(columns.values()), path)
        return {
            key: [slide for slide, value in zip(slides, column) if value.casefold() in {"true", "1", "1.0"}]
            for key, column in values.items()
        }
    return {key: [value for value in column if value not in MISSING] for key, column in values.items()}


def _first_column(cells: Cells, sets: set[str], path: Path) -> list[str]:
    """The names beside a table of True and False: its first column."""
    if cells.columns[0] in sets:
        raise SplitError(f"{path.name} says True and False, but no column names the slides.", fix=_FIX)
    return [row[0] for row in cells.rows]


def _from_split_json(path: Path) -> tuple[list[Names], list[tuple[int, int, str]], tuple[str, ...]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SplitError(f"{path} cannot be read as JSON: {error}.", fix="Restore it, or remove it.") from error
    split = Split.from_json(value, source=str(path))
    unit = split.patients_of if split.by_patient else sorted
    listed = [{key: list(unit(slides)) for key, slides in fold.sets().items()} for fold in split.folds]
    return listed, [(fold.index, fold.repeat, fold.label) for fold in split.folds], split.warnings


@dataclass
class _Tally:
    """What is dropped on the way from names to slides, counted once over all folds."""

    unknown: dict[str, None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    twice: dict[str, None] = field(default_factory=dict)


def _resolved(
    listed: Sequence[Names],
    numbers: Sequence[tuple[int, int, str]],
    targets: Targets,
    source: str,
    allow_leaks: bool,
    already: tuple[str, ...] = (),
) -> Split:
    """The folds as slides of the targets, checked."""
    slides_of = _slides_of_names(listed, targets, source)
    tally = _Tally()
    folds = []
    for names, (index, repeat, label) in zip(listed, numbers):
        sets = {key: _slides(names.get(key, []), slides_of, tally) for key in SETS}
        for key in ("train", "test"):
            if not sets[key]:
                raise SplitError(
                    f"{source}, fold {index}: none of its {len(names.get(key, []))} {key} names is in the cohort "
                    "with a target.",
                    fix="Every fold needs training and test slides.",
                )
        folds.append(Fold(index, repeat, sets["train"], sets["tune"], sets["test"], label))
    patients = {slide: patient for slide, patient in targets.patient_of.items() if slide in tally.used}
    split = Split(tuple(folds), patients, source)
    leaks = check_split(split)
    if leaks and not allow_leaks:
        raise leak_error(leaks, source)
    said = (*already, *_warnings(tally, listed, targets, folds), *check_classes(folds, targets, source=source))
    return replace(split, leaks=tuple(leaks), warnings=tuple(dict.fromkeys(said)))


def _slides_of_names(listed: Sequence[Names], targets: Targets, source: str) -> Mapping[str, Sequence[str]]:
    """What a name stands for: the slide of that name; or all slides of a patient, where no name is a slide's."""
    named = [name for names in listed for group in names.values() for name in group]
    by_slide = {slide: (slide,) for slide in targets.slides}
    if any(name in by_slide for name in named):
        return by_slide
    by_patient: dict[str, list[str]] = {}
    for slide, patient in sorted(targets.patient_of.items()):
        by_patient.setdefault(patient, []).append(slide)
    if any(name in by_patient for name in named):
        return by_patient
    raise SplitError(
        f"{source}: none of the {len(set(named))} names (such as {some(named, 2)}) is a slide or a patient "
        f"of the cohort (such as {some(targets.slides, 2)}).",
        fix="Names must be equal, letter by letter; a slide's name has no suffix such as .svs.",
    )


def _slides(names: Sequence[str], slides_of: Mapping[str, Sequence[str]], tally: _Tally) -> tuple[str, ...]:
    found: set[str] = set()
    for name in names:
        slides = slides_of.get(name, ())
        if not slides:
            tally.unknown[name] = None
        if found.issuperset(slides) and slides:
            tally.twice[name] = None
        found.update(slides)
    tally.used |= found
    return tuple(sorted(found))


def _warnings(tally: _Tally, listed: Sequence[Names], targets: Targets, folds: Sequence[Fold]) -> list[str]:
    warnings = []
    total = len({name for names in listed for group in names.values() for name in group})
    if tally.unknown:
        unknown = list(tally.unknown)
        warnings.append(
            f"{len(unknown)} of {total} listed names are not among the slides with a target and are left out: "
            f"{some(unknown, 3)}."
        )
    idle = [slide for slide in targets.slides if slide not in tally.used]
    if idle:
        warnings.append(f"{len(idle)} of {len(targets.slides)} slides of the cohort are in no fold: {some(idle, 3)}.")
    if tally.twice:
        warnings.append(f"{len(tally.twice)} names stand twice in one set: {some(list(tally.twice), 3)}.")
    rows = [(fold.repeat, slide) for fold in folds for slide in fold.test]
    if len(set(rows)) < len(rows):
        warnings.append(
            f"The test sets overlap: {len(rows)} test rows over {len(set(rows))} slides; there are no pooled numbers."
        )
    return warnings


def _with_tune(split: Split, targets: Targets, settings: SplitSettings) -> Split:
    """The split with a tuning set drawn from the training patients in every fold that has none."""
    if all(fold.tune for fold in split.folds):
        return split
    strata = patient_strata(targets)
    folds = []
    for fold in split.folds:
        if not fold.tune:
            chance = stream(settings.seed, "split", fold.repeat, "tune", fold.index)
            # Where a leak was allowed, the patients who are tested too are not made to stop the training as well.
            trained = set(split.patients_of(fold.train)) - set(split.patients_of(fold.test))
            drawn = set(draw_tune({p: strata[p] for p in trained}, settings.tune, chance))
            tune = tuple(slide for slide in fold.train if split.patients[slide] in drawn)
            fold = replace(fold, train=tuple(s for s in fold.train if s not in set(tune)), tune=tune)
        folds.append(fold)
    if folds == list(split.folds):
        return split
    share = f"{100 * settings.tune:g} % of their training patients"
    note = f"{split.source} has folds without a tuning set: {share} were drawn for it."
    return replace(split, folds=tuple(folds), warnings=(*split.warnings, note))
