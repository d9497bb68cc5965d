"""Run contents with every slide and patient id, path, host, user, date and time replaced.

Fields that hold an id are replaced exactly. Free text (warnings, reasons, settings) is searched: for every known id,
file name, folder, host and user, and for anything that looks like a path, an address, a date or a time. Where privacy
and legibility pull apart, privacy wins, with one exception: a short number or single letter that is an id (patient "1")
is replaced in free text only where it is quoted or follows a word such as "patient", since "1 slide" names nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import groupby, takewhile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd

from coverslip.report.contents import FoldModel, Json, Map, RunContents, dig

# The order of a line's rules matters: addresses hold paths, paths hold dates.
_PUBLIC = r"(?:huggingface\.co|github\.com|doi\.org|arxiv\.org|zenodo\.org)"
_LOOKS_LIKE: tuple[tuple[str, str], ...] = (
    (rf"\b(?!https?://(?:www\.)?{_PUBLIC}/)(?:https?|ftp|file|s3|gs|ssh|smb)://[^\s\"'<>]+", "[address]"),
    (r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*", "[address]"),
    (r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?(?![\w.])", "[host]"),
    (r"(?<![\w\\])\\\\[^\s\"'<>|]+", "[path]"),
    (r"(?<!\w)[A-Za-z]:[\\/][^\s\"'<>|]*", "[path]"),
    (r"(?<![\w/.:<])(?:~|\.{1,2})?/(?!/)[^\s\"'<>|:,;()]*[^\s\"'<>|:,;().]", "[path]"),
    (r"\b(?:[\w-]+\.)+(?:local|lan|internal|intranet|corp|home|cluster)\b", "[host]"),
)
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_YEAR = r"(?:19|20)\d\d"
_DATES = re.compile(
    "|".join(
        (
            rf"(?<!\d){_YEAR}([-/._])(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12]\d|3[01])(?!\d)",
            rf"(?<!\d)(?:0?[1-9]|[12]\d|3[01])([-/.])(?:0?[1-9]|[12]\d|3[01])\2(?:{_YEAR}|\d\d)(?![\d.])",
            rf"(?<![0-9a-zA-Z]){_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?![0-9a-zA-Z])",
            rf"\b(?:0?[1-9]|[12]\d|3[01])\.?[ -]{_MONTH}[ -]?(?:{_YEAR}|\d\d)?\b",
            rf"\b{_MONTH} (?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?:,? {_YEAR})?\b",
        )
    ),
    re.IGNORECASE,
)
_TIMES = re.compile(
    r"T?(?<!\d)(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:[.,]\d+)?)?(?:Z|(?: ?[+-]\d\d:?\d\d)|(?: UTC))?(?!\d)"
)
# An id that is no more than this reads as a count or a fold in a sentence.
_PLAIN = re.compile(r"\d{1,3}|[A-Za-z]")
_NAMED = r"(?:slides?|patients?|cases?|ids?)[ :=]+"
_HOST_KEYS = frozenset({"host", "hostname", "node", "machine_name", "computer", "fqdn"})
_USER_KEYS = frozenset({"user", "username", "login", "owner", "author", "operator"})
_TIME_KEYS = frozenset({"date", "when", "started", "finished", "ended", "created", "modified", "timestamp"})
_SETS = ("train", "tune", "test")
_FREE = frozenset({"message", "fix", "reason", "reasons", "warnings", "note", "text", "source"})


def pseudonymise(runs: Iterable[RunContents]) -> list[RunContents]:
    """The same runs with stable pseudonyms: S001, S002 ... and P001, P002 ... in the sorted order of the ids of all."""
    runs = list(runs)
    names = Pseudonyms(runs)
    return [_replaced(run, names) for run in runs]


class Pseudonyms:
    """The pseudonym of every id, and the text without what tells where or whose the slides are."""

    def __init__(self, runs: Iterable[RunContents]) -> None:
        runs = list(runs)
        slides: set[str] = set()
        patients: set[str] = set()
        for run in runs:
            found = _ids(run)
            slides |= found[0]
            patients |= found[1]
        self.slides = {name: f"S{i:03d}" for i, name in enumerate(sorted(slides), start=1)}
        self.patients = {name: f"P{i:03d}" for i, name in enumerate(sorted(patients), start=1)}
        self._literals = _literals(runs, self.slides)

    def slide(self, name: str) -> str:
        return self.slides.get(str(name), "[slide]")

    def patient(self, name: str) -> str:
        return self.patients.get(str(name), "[patient]")

    def text(self, text: str) -> str:
        """`text` without ids, paths, hosts, users, dates and times."""
        for pattern, table in self._patterns:
            text = pattern.sub(partial(_lookup, table), text)
        for expression, label in _LOOKS_LIKE:
            text = re.sub(expression, label, text)
        return _TIMES.sub("[time]", _DATES.sub("[date]", text))

    def value(self, value: Any, key: str = "") -> Any:
        """A nested value of JSON or TOML with its strings replaced, by their key where it tells what they are."""
        if isinstance(value, Mapping):
            replaced = self.slide if key == "by_slide" else self._key
            return {replaced(str(k)): self.value(v, str(k)) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item, key) for item in value]
        lower = key.lower()
        if lower in _TIME_KEYS and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return "[date]"
        if not isinstance(value, str):
            return value
        if lower in _FREE:
            return self.text(value)
        if lower in ("slide", "slides"):
            return self.slide(value)
        if lower in ("patient", "patients"):
            return self.patient(value)
        if lower in _HOST_KEYS:
            return "[host]"
        if lower in _USER_KEYS:
            return "[user]"
        if lower in ("path", "folder", "file", "root", "output", "cwd") or _is_path(value):
            return "[path]"
        return self.text(value)

    def _key(self, key: str) -> str:
        # Ids are keys where a file maps slides or patients to something; short ones may be class names or folds.
        if _PLAIN.fullmatch(key):
            return key
        return self.slides.get(key) or self.patients.get(key) or self.text(key)

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], dict[str, str]]]:
        ids = {**self.patients, **self.slides}
        # Files, folders and ids in one pass: an original id may read like the pseudonym of another.
        long = {**{name: label for name, label in ids.items() if not _PLAIN.fullmatch(name)}, **self._literals}
        short = {name: label for name, label in ids.items() if _PLAIN.fullmatch(name)}
        patterns = [(_alternatives(long), long)]
        if short:
            inner = "|".join(map(re.escape, short))
            named = rf"(?<=['\"])(?:{inner})(?=['\"])|\b{_NAMED}(?:{inner})\b|^(?:{inner})(?=:)"
            patterns.append((re.compile(named, re.IGNORECASE), short))
        return patterns


def _alternatives(table: Mapping[str, str]) -> re.Pattern[str]:
    """Any key of the table as a whole word, the longest first; '_' and '-' end a word, as they join ids to suffixes."""
    names = sorted({_small(name) for name in table if name})
    inner = _tree(names) if names else r"(?!)"
    return re.compile(rf"(?<![^\W_])(?:{inner})(?![^\W_])", re.IGNORECASE)


def _tree(names: Sequence[str]) -> str:
    """A pattern of sorted names with shared beginnings written once: thousands of ids are found in one reading."""
    # In sorted names, what the first and the last share, all share.
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(names[0], names[-1]))
    start = "".join(letter for letter, _ in shared)
    rest = [name[len(start) :] for name in names]
    if len(rest) == 1:
        return re.escape(start)
    branches = [_tree(list(group)) for _, group in groupby((r for r in rest if r), key=lambda r: r[0])]
    # The empty rest comes last: a longer name wins over one that it begins with.
    return re.escape(start) + "(?:" + "|".join([*branches, *([""] if "" in rest else [])]) + ")"


def _small(name: str) -> str:
    """The name in small letters, where these still match it."""
    return name.lower() if re.fullmatch(re.escape(name.lower()), name, re.IGNORECASE) else name


def _lookup(table: Mapping[str, str], match: re.Match[str]) -> str:
    found = match.group(0)
    label = _label(table, found)
    if label:
        return label
    cut = re.match(_NAMED, found, re.IGNORECASE)  # "patient 12": the word stays
    assert cut is not None, found
    return found[: cut.end()] + _label(table, found[cut.end() :])


def _label(table: Mapping[str, str], found: str) -> str:
    """What stands for a name, however it is written; empty where it is none."""
    if found in table:
        return table[found]
    # Rare: another case than the one in the files.
    same = (label for name, label in table.items() if re.fullmatch(re.escape(name), found, re.IGNORECASE))
    return next(same, "")


def _ids(run: RunContents) -> tuple[set[str], set[str]]:
    """Every slide and every patient that any part of the run names."""
    slides = {*run.tissue, *(one.slide for one in run.maps)}
    patients: set[str] = set()
    for frame in (run.predictions, run.outcomes):
        if frame is not None:
            slides |= set(map(str, frame["slide"]))
            patients |= set(map(str, frame["patient"])) if "patient" in frame else set()
    for part in (run.check, run.cohort, run.metrics, run.evaluation, run.audit):
        _collect(part, slides, patients)
    for patient, named in _slides_of(run.split).items():
        patients.add(patient)
        slides |= set(named)
    unit = patients if dig(run.split, "unit") == "patient" else slides
    for fold in _folds(run.split):
        unit |= {str(name) for which in _SETS for name in fold.get(which) or []}
    for leak in dig(run.split, "leaks") or []:
        (slides if dig(leak, "kind") == "slide" else patients).add(str(dig(leak, "name") or ""))
    return slides - {""}, patients - {""}


def _collect(value: Any, slides: set[str], patients: set[str], key: str = "") -> None:
    """Ids by the keys they stand under; a list stands under its own key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _collect(inner, slides, patients, str(name))
    elif isinstance(value, list):
        for inner in value:
            _collect(inner, slides, patients, key)
    elif isinstance(value, str):
        if key in ("patient", "patients"):
            patients.add(value)
        elif key in ("slide", "slides"):
            slides.add(value)


def _slides_of(split: Json | None) -> dict[str, list[str]]:
    table = dig(split, "patients")
    return {str(k): [str(s) for s in v] for k, v in table.items()} if isinstance(table, Mapping) else {}


def _folds(split: Json | None) -> list[Mapping[str, Any]]:
    return [fold for fold in dig(split, "folds") or [] if isinstance(fold, Mapping)]


def _literals(runs: Iterable[RunContents], slides: Mapping[str, str]) -> dict[str, str]:
    """Known texts that identify, and what stands for them: files, folders and their parts, hosts, users."""
    found: dict[str, str] = {}
    for run in runs:
        paths = [str(run.folder), str(run.folder.resolve())]
        for part in (run.settings, run.environment, run.cohort, run.models and [m.facts for m in run.models]):
            paths += [text for text in _strings(part) if _is_path(text)]
            _people(part, found)
        for entry in (run.check or {}).get("slides") or []:
            path = str(entry.get("path") or "")
            if path:
                paths.append(path)
                _files(path, slides.get(str(entry.get("slide")), "[file]"), found)
        for path in paths:
            for whole in _prefixes(path):
                found.setdefault(whole, "[path]")
            user = re.search(r"(?:/home/|/Users/|\\Users\\)([^/\\]+)", path)
            if user:
                found.setdefault(user.group(1), "[user]")
    # Python and JSON double backslashes where they quote a path.
    doubled = {name.replace("\\", "\\\\"): label for name, label in found.items() if "\\" in name}
    return {**doubled, **found}


def _files(path: str, label: str, found: dict[str, str]) -> None:
    """A slide's file may be named after the person: its name stands for the slide, like its id."""
    pure = _pure(path)
    found.setdefault(pure.name, label + pure.suffix)
    if not _PLAIN.fullmatch(pure.stem):
        found.setdefault(pure.stem, label)


def _prefixes(path: str) -> list[str]:
    """The path, its tails and its folders, so long as they are more than one name."""
    pure = _pure(path)
    parts = [part for part in pure.parts if part not in (pure.anchor, ".", "..")]
    separator = "\\" if isinstance(pure, PureWindowsPath) else "/"
    tails = [separator.join(parts[i:]) for i in range(len(parts) - 1)]
    heads = [str(parent) for parent in pure.parents if len(parent.parts) > 2]
    return [text for text in (str(pure), *heads, *tails) if len(text) > 3]


def _people(value: Any, found: dict[str, str]) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            lower = str(key).lower()
            if isinstance(inner, str) and len(inner) > 1 and lower in _HOST_KEYS | _USER_KEYS:
                label = "[host]" if lower in _HOST_KEYS else "[user]"
                for part in (inner, inner.split(".")[0]):
                    found.setdefault(part, label)
            _people(inner, found)
    elif isinstance(value, list):
        for inner in value:
            _people(inner, found)


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value


def _is_path(text: str) -> bool:
    return bool(re.match(r"(?:~|\.{1,2})?[\\/](?=[\w.])|[A-Za-z]:[\\/]|\\\\\w", text)) and "\n" not in text


def _pure(path: str) -> PurePosixPath | PureWindowsPath:
    return PureWindowsPath(path) if "\\" in path else PurePosixPath(path)


def _replaced(run: RunContents, names: Pseudonyms) -> RunContents:
    return replace(
        run,
        name=names.text(run.name),
        folder=Path("run"),
        settings=names.value(run.settings),
        split=_split(run.split, names),
        cohort=names.value(run.cohort),
        predictions=_frame(run.predictions, names),
        metrics=names.value(run.metrics),
        evaluation=names.value(run.evaluation),
        audit=names.value(run.audit),
        control=names.value(run.control),
        check=names.value(run.check),
        outcomes=_frame(run.outcomes, names),
        environment=names.value(run.environment),
        embedding=tuple(names.value(one) for one in run.embedding),
        models=tuple(FoldModel(m.fold, names.value(m.facts)) for m in run.models),
        tissue={names.slide(slide): path for slide, path in run.tissue.items()},
        maps=tuple(_map(one, names) for one in run.maps),
        slices={names.slide(slide): tiles for slide, tiles in run.slices.items()},
        pseudonymised=True,
    )


def _map(one: Map, names: Pseudonyms) -> Map:
    return replace(one, slide=names.slide(one.slide))


def _split(split: Json | None, names: Pseudonyms) -> Json | None:
    """Sets hold patients or slides, as the split's unit says."""
    if split is None:
        return None
    one = names.patient if dig(split, "unit") == "patient" else names.slide
    rest = {key: value for key, value in split.items() if key not in ("patients", "folds", "leaks")}
    return {
        **names.value(rest),
        "patients": {names.patient(k): [names.slide(s) for s in v] for k, v in _slides_of(split).items()},
        "folds": [
            {
                key: [one(name) for name in value] if key in _SETS else names.value(value, key)
                for key, value in fold.items()
            }
            for fold in _folds(split)
        ],
        "leaks": [
            {**leak, "name": (names.slide if leak.get("kind") == "slide" else names.patient)(str(leak.get("name")))}
            for leak in dig(split, "leaks") or []
            if isinstance(leak, Mapping)
        ],
    }


def _frame(frame: pd.DataFrame | None, names: Pseudonyms) -> pd.DataFrame | None:
    if frame is None:
        return None
    frame = frame.copy()
    for column in frame.columns:
        if column == "slide":
            frame[column] = [names.slide(value) if value else "" for value in frame[column]]
        elif column == "patient":
            frame[column] = [names.patient(value) if value else "" for value in frame[column]]
        elif column in ("reason", "error", "message"):
            frame[column] = [names.text(str(value)) for value in frame[column]]
    return frame
