"""The cohort: one row a slide with its patient, checked, joined with the clinical table and filtered."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from coverslip.base.errors import TableError
from coverslip.base.files import confined, safe_name
from coverslip.base.fingerprint import digest
from coverslip.base.study import CohortSettings
from coverslip.base.units import PLAUSIBLE_MPP
from coverslip.cohort.expression import keep_rows
from coverslip.cohort.labels import label_text
from coverslip.cohort.table import NUMBER, read_table, require_column, some

# File systems take 255 bytes; suffixes and temporary names need the rest.
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Exclusion:
    """A slide that is not used, and why."""

    slide: str
    reason: str


@dataclass(frozen=True)
class Cohort:
    """The slides of a study.

    `frame` has one row a slide, in the order of the table: slide, patient (text), and where the table has them path
    (absolute, text), mpp (µm per pixel, NaN where not given), site, split, stain, preparation (text), then every other
    column, numbers where each value is one. Its index is the row of the table as a spreadsheet shows it.
    `exclusions` are the slides that the filter left out, `warnings` what a reader should know, `digest` 16 hex digits
    over ids and values (not paths, so that a moved cohort keeps it), `source` the table's file name.
    """

    frame: pd.DataFrame
    exclusions: tuple[Exclusion, ...]
    warnings: tuple[str, ...]
    digest: str
    source: str

    @property
    def slides(self) -> tuple[str, ...]:
        return tuple(self.frame["slide"])

    @property
    def patient_of(self) -> dict[str, str]:
        """The patient of each slide."""
        return dict(zip(self.frame["slide"], self.frame["patient"]))

    def without(self, reasons: Mapping[str, str]) -> Cohort:
        """The cohort without these slides, each with the reason why; slides it does not hold are ignored."""
        gone = self.frame["slide"].isin(list(reasons))
        added = tuple(Exclusion(slide, reasons[slide]) for slide in self.frame.loc[gone, "slide"])
        frame = self.frame[~gone]
        return replace(self, frame=frame, exclusions=self.exclusions + added, digest=_digest(frame))


def load_cohort(settings: CohortSettings, *, need_paths: bool) -> Cohort:
    """The cohort of the settings: the table, joined with the clinical table, filtered, checked.

    Whether each slide's file exists is not asked here: preflight opens them. `need_paths` says that slides will be
    opened, so that every row needs a path, and the root is the right one.

    Raises:
        TableError: naming file, row and column, where the table cannot be used as it is.
        SettingsError: `cohort.filter` is not understood or names no column.
    """
    path = Path(settings.table)
    source = path.name
    root = Path(settings.root).expanduser()
    frame = read_table(path, text={settings.on})
    require_column(frame, "patient", source=source, fix="Name the patient of each slide; folds are made of patients.")
    if need_paths:
        require_column(
            frame, "path", source=source, fix="Each row needs the path of its slide, relative to cohort.root."
        )
    warnings: list[str] = []
    frame = _with_slides(frame, source, root, warnings)
    _filled(frame, "patient", source, "Every slide belongs to a patient; give unknown ones names of their own.")
    if settings.clinical is not None:
        frame = _joined(frame, Path(settings.clinical), settings.on, source, warnings)
    frame, exclusions = _filtered(frame, settings.filter, source)
    _unique_slides(frame, source)
    if "path" in frame:
        found = _with_paths(frame, source, root, need_paths=need_paths)
        if need_paths:
            _under_root(frame["path"], found["path"], root, path)
        frame = found
    if "mpp" in frame:
        frame = frame.assign(mpp=_mpp(frame["mpp"], source))
    _not_mixed(frame, settings, source, warnings)
    first = [name for name in ("slide", "patient", "path", "mpp", "site") if name in frame]
    frame = frame[[*first, *(name for name in frame if name not in first)]]
    return Cohort(frame, tuple(exclusions), tuple(warnings), _digest(frame), source)


def _with_slides(frame: pd.DataFrame, source: str, root: Path, warnings: list[str]) -> pd.DataFrame:
    """The table with a checked slide column; where it has none, slides are named by their files."""
    if "slide" not in frame:
        if "path" not in frame:
            require_column(frame, "slide", source=source, fix="Name each slide, or give its path.")
        _filled(frame, "path", source, "Without a column 'slide' the path names the slide.")
        frame = frame.assign(slide=[_slide_of(path, root) for path in frame["path"]])
        warnings.append(f"{source} has no column 'slide': slides are named by their files.")
    _filled(frame, "slide", source, "Name every slide.")
    for row, slide in frame["slide"].items():
        what = f"{source}, row {row}, column 'slide'"
        if len(safe_name(slide, what=what).encode()) > _LONGEST_NAME:
            raise TableError(f"{what}: {slide[:40]!r}... is longer than {_LONGEST_NAME} bytes.", fix="Shorten it.")
    return frame


def _slide_of(path: str, root: Path) -> str:
    # A folder is one DICOM series; a point in its name is no suffix.
    pure = PurePosixPath(path)
    return pure.name if os.path.isdir(root / path) else pure.stem  # noqa: PTH112 (False for names no system takes)


def _filled(frame: pd.DataFrame, column: str, source: str, fix: str) -> None:
    empty = frame.index[frame[column].isna()].tolist()
    if empty:
        raise TableError(f"{source}, {_rows(empty)}: column {column!r} is empty (NA and NaN count as empty).", fix=fix)


def _rows(rows: Sequence[int]) -> str:
    return f"row {rows[0]}" if len(rows) == 1 else f"rows {some(rows)}"


def _joined(frame: pd.DataFrame, path: Path, on: str, source: str, warnings: list[str]) -> pd.DataFrame:
    """The table with the clinical columns, matched by equal values of `on`; nothing is shortened or completed."""
    clinical = read_table(path, text={on})
    fix = f"cohort.on = {on!r} names the column that both tables share."
    require_column(frame, on, source=source, fix=fix)
    require_column(clinical, on, source=path.name, fix=fix)
    _filled(clinical, on, path.name, "Each row of the clinical table belongs to someone; remove the others.")
    clinical = _one_row_each(clinical, on, path.name)
    clash = [name for name in clinical.columns if name != on and name in frame.columns]
    if clash:
        raise TableError(
            f"{source} and {path.name} both have the column {some([repr(name) for name in clash])}.",
            fix="Rename or remove it in one of them.",
        )
    keys = frame[on].dropna().drop_duplicates()
    unmatched = keys[~keys.isin(clinical[on])].tolist()
    if len(unmatched) == len(keys):
        raise TableError(
            f"No {on} of {source} (such as {some(keys.tolist(), 2)}) stands in {path.name} "
            f"(such as {some(clinical[on].tolist(), 2)}).",
            fix="The values must be equal, letter by letter. Add a column to the table that holds the clinical one's, "
            "and name it in cohort.on.",
        )
    if unmatched:
        warnings.append(f"{len(unmatched)} of {len(keys)} {on} values have no row in {path.name}: {some(unmatched)}.")
    return frame.join(clinical.set_index(on), on=on)


def _one_row_each(clinical: pd.DataFrame, on: str, source: str) -> pd.DataFrame:
    """The table with rows that say the same once; rows that contradict each other are refused."""
    distinct = clinical.drop_duplicates()
    twice = distinct[distinct.duplicated(on, keep=False)]
    if len(twice):
        key = twice[on].iloc[0]
        rows = twice.index[twice[on] == key].tolist()
        differ = [name for name in twice.columns if twice.loc[rows, name].nunique(dropna=False) > 1]
        raise TableError(
            f"{source}, {_rows(rows)}: {on} {key!r} has several rows that differ in {some([repr(d) for d in differ])}.",
            fix=f"Keep one row for each {on}.",
        )
    return distinct


def _filtered(frame: pd.DataFrame, expression: str | None, source: str) -> tuple[pd.DataFrame, list[Exclusion]]:
    if expression is None or not expression.strip():
        return frame, []
    keep = keep_rows(expression, frame)
    kept = keep.fillna(False).astype(bool)
    if not kept.any():
        raise TableError(
            f"cohort.filter = {expression!r} keeps none of the {len(frame)} rows of {source} "
            f"({int(keep.isna().sum())} for want of a value).",
            fix="Look at the values of the columns it names.",
        )
    reasons = {False: "a value that cohort.filter needs is missing", True: "left out by cohort.filter"}
    gone = zip(frame.loc[~kept, "slide"], keep[~kept].isna())
    return frame[kept], [Exclusion(slide, reasons[not unknown]) for slide, unknown in gone]


def _unique_slides(frame: pd.DataFrame, source: str) -> None:
    """Refuses a slide that stands in two rows, and names that a file system may take for one."""
    folded = frame["slide"].map(lambda name: unicodedata.normalize("NFC", name).casefold())
    for _, rows in frame[folded.duplicated(keep=False)].groupby(folded, sort=False):
        names, patients = rows["slide"].unique(), rows["patient"].unique()
        where = f"{source}, {_rows(rows.index.tolist())}"
        if len(names) > 1:
            raise TableError(
                f"{where}: the slides {some([repr(n) for n in names])} differ in capitals or accents alone, "
                "and their files would be one file on some systems.",
                fix="Rename one.",
            )
        two = f" with the patients {some([repr(p) for p in patients])}" if len(patients) > 1 else ""
        raise TableError(f"{where}: slide {names[0]!r} stands there more than once{two}.", fix="Keep one row a slide.")


def _with_paths(frame: pd.DataFrame, source: str, root: Path, *, need_paths: bool) -> pd.DataFrame:
    """The table with absolute paths, none of which leaves `root`, and none twice."""
    if need_paths:
        _filled(frame, "path", source, "Every slide needs its path, relative to cohort.root.")
    paths: list[str | None] = []
    seen: dict[str, int] = {}
    for row, text in zip(frame.index.tolist(), frame["path"]):
        if text is None:
            paths.append(None)
            continue
        what = f"{source}, row {row}, column 'path'"
        if any(ord(character) < 32 for character in text):
            raise TableError(f"{what}: {text!r} holds a control character.", fix="Write the path on one line.")
        if "\\" in text and os.sep == "/":
            raise TableError(f"{what}: {text!r} has backslashes.", fix="Write paths with '/': slides/a.svs.")
        path = str(confined(root, text, what=what))
        if path in seen:
            raise TableError(
                f"{source}, rows {seen[path]}, {row}: two slides have the same path {text!r}.",
                fix="Keep one row a slide.",
            )
        seen[path] = row
        paths.append(path)
    return frame.assign(path=pd.Series(paths, index=frame.index, dtype=object))


def _under_root(written: pd.Series, paths: pd.Series, root: Path, table: Path) -> None:
    """Nothing, unless no slide lies where its path says and one lies there from the folder of the table."""
    if len(paths) == 0 or any(os.path.lexists(path) for path in paths):
        return
    folder = table.absolute().parent
    if folder != root.absolute() and any(os.path.lexists(folder / str(text)) for text in written):
        raise TableError(
            f"{table.name}: none of its {len(paths)} slides lies under cohort.root, {root.absolute()}; "
            f"their paths fit the folder of the table, {folder}.",
            fix=f'Set cohort.root = "{folder}" (--set cohort.root={folder}).',
        )


def _mpp(column: pd.Series, source: str) -> pd.Series:
    """µm per pixel as floats, NaN where the cell is empty."""
    low, high = PLAUSIBLE_MPP
    for row, value in column.items():
        if value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        number = float(value) if not isinstance(value, str) or NUMBER.fullmatch(value) else math.nan
        if not low <= number <= high:
            shown = repr(value) if isinstance(value, str) else f"{value:g}"
            raise TableError(
                f"{source}, row {row}, column 'mpp': {shown} is no plausible µm per pixel.",
                fix=f"Accepted: numbers from {low:g} to {high:g} (0.25 is 40x, 0.5 is 20x); "
                "leave the cell empty to take it from the file.",
            )
    return column.astype(float)


def _not_mixed(frame: pd.DataFrame, settings: CohortSettings, source: str, warnings: list[str]) -> None:
    for name in ("stain", "preparation"):
        if name not in frame:
            continue
        counts = frame[name].value_counts()
        if len(counts) > 1 and name not in settings.allow_mixed:
            found = ", ".join(f"{value!r} ({count})" for value, count in counts.items())
            raise TableError(
                f"{source}: the cohort mixes values of {name!r}: {found}.",
                fix=f"Choose one, for example cohort.filter = \"{name} == '{counts.index[0]}'\", "
                f'or set cohort.allow_mixed = ["{name}"].',
            )
        unknown = int(frame[name].isna().sum())
        if unknown and len(counts):
            warnings.append(f"{unknown} of {len(frame)} slides have no {name!r} in {source}.")


def _digest(frame: pd.DataFrame) -> str:
    columns = sorted(name for name in frame.columns if name != "path")
    table = frame.sort_values("slide")
    rows = [[None if pd.isna(value) else label_text(value) for value in table[name]] for name in columns]
    return digest([columns, rows])
