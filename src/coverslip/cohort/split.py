"""Folds: who is trained on, tuned on and tested on. A patient is on one side of a fold; this is checked each time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from coverslip.base.errors import SplitError
from coverslip.base.files import write_json
from coverslip.base.fingerprint import digest
from coverslip.cohort.table import some

FORMAT = "coverslip.split/1"
SETS = ("train", "tune", "test")


@dataclass(frozen=True)
class Fold:
    """One fold: slides in order of their ids. `index` counts the folds of a repeat, `repeat` the times they are drawn.

    `train` is fitted on, `tune` stops the training (it may be empty), `test` is read once, at the end. `label` says
    what is tested where that has a name: a site, a span of time.
    """

    index: int
    repeat: int
    train: tuple[str, ...]
    tune: tuple[str, ...]
    test: tuple[str, ...]
    label: str = ""

    @property
    def name(self) -> str:
        """A file-safe name, different for each fold of a split."""
        return f"fold{self.index}" if self.repeat == 0 else f"repeat{self.repeat}_fold{self.index}"

    @property
    def title(self) -> str:
        """The name, with the label where there is one: what a person is told."""
        return f"{self.name} ({self.label})" if self.label else self.name

    def sets(self) -> dict[str, tuple[str, ...]]:
        return {"train": self.train, "tune": self.tune, "test": self.test}


@dataclass(frozen=True)
class Leak:
    """A patient (or a slide) that is in two sets of one fold."""

    kind: Literal["patient", "slide"]
    name: str
    sets: tuple[str, str]
    fold: int
    repeat: int

    @property
    def where(self) -> str:
        """ "fold 3: train and test", with the repeat where there are several."""
        repeat = f"repeat {self.repeat}, " if self.repeat else ""
        return f"{repeat}fold {self.fold}: {self.sets[0]} and {self.sets[1]}"


@dataclass(frozen=True)
class Split:
    """The folds of a study.

    `patients` is the patient of every slide in a fold; `source` says where the folds come from; `leaks` holds what was
    allowed with `split.allow_leaks` and is empty otherwise; `warnings` what a reader should know.
    """

    folds: tuple[Fold, ...]
    patients: Mapping[str, str]
    source: str
    leaks: tuple[Leak, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """16 hex digits over folds and patients: equal for equal folds wherever they come from."""
        return digest(self._content())

    @property
    def repeats(self) -> int:
        return 1 + max(fold.repeat for fold in self.folds)

    @property
    def overlapping(self) -> bool:
        """True where a slide is tested in several folds of one repeat: then there are no pooled numbers."""
        tested = [(fold.repeat, slide) for fold in self.folds for slide in fold.test]
        return len(set(tested)) < len(tested)

    @property
    def by_patient(self) -> bool:
        """True where every set of every fold holds all slides of its patients that the split knows."""
        slides = _slides_of(self.patients)
        return all(
            set(names) == {slide for patient in {self.patients[n] for n in names} for slide in slides[patient]}
            for fold in self.folds
            for names in fold.sets().values()
        )

    def patients_of(self, slides: Iterable[str]) -> tuple[str, ...]:
        """The patients of these slides, sorted."""
        return tuple(sorted({self.patients[slide] for slide in slides}))

    def to_json(self) -> dict[str, Any]:
        """What split.json holds: sets of patients, or of slides where folds made elsewhere tear a patient apart."""
        return {
            "format": FORMAT,
            "digest": self.digest,
            "source": self.source,
            **self._content(),
            "leaks": [_leak_json(leak) for leak in self.leaks],
            "warnings": list(self.warnings),
        }

    def _content(self) -> dict[str, Any]:
        unit = "patient" if self.by_patient else "slide"
        names = self.patients_of if unit == "patient" else sorted
        folds = [
            {
                "fold": fold.index,
                "repeat": fold.repeat,
                **({"label": fold.label} if fold.label else {}),
                **{key: list(names(slides)) for key, slides in fold.sets().items()},
            }
            for fold in self.folds
        ]
        return {"unit": unit, "patients": _slides_of(self.patients), "folds": folds}

    @classmethod
    def from_json(cls, value: Any, *, source: str) -> Split:
        """The split of a split.json, its digest verified and its folds checked for leaks.

        Raises:
            SplitError: not a split, changed since it was written, or with leaks that its own record does not admit.
        """
        split, recorded = _parse(value, source)
        if value["digest"] != split.digest:
            raise SplitError(
                f"{source} has been changed since it was written (digest {value['digest']}, content {split.digest}).",
                fix="Restore it, or remove it and let the folds be made anew.",
                code="split_changed",
            )
        leaks = check_split(split)
        if leaks and leaks != list(recorded):
            raise leak_error(leaks, source)
        return replace(split, leaks=tuple(leaks))


def write_split(split: Split, path: Path) -> None:
    """Writes split.json, atomically."""
    write_json(path, split.to_json())


def check_split(split: Split, patient_of: Mapping[str, str] | None = None) -> list[Leak]:
    """Every slide and every patient that is in two sets of one fold, in the order of folds and names.

    `patient_of` says whose each slide is; by default what the split itself says.
    """
    whose = split.patients if patient_of is None else patient_of
    leaks: list[Leak] = []
    for fold in split.folds:
        slides = {name: set(members) for name, members in fold.sets().items()}
        patients = {name: {whose[slide] for slide in members} for name, members in slides.items()}
        kinds: tuple[tuple[Literal["patient", "slide"], dict[str, set[str]]], ...] = (
            ("patient", patients),
            ("slide", slides),
        )
        for kind, members in kinds:
            for a, b in combinations(SETS, 2):
                for name in sorted(members[a] & members[b]):
                    leaks.append(Leak(kind, name, (a, b), fold.index, fold.repeat))
    return leaks


def leak_error(leaks: Iterable[Leak], source: str) -> SplitError:
    """The error that names the patients on both sides, and the folds."""
    folds_of: dict[str, list[Leak]] = {}
    # A patient who is tested and trained on matters more than one who is tuned and trained on.
    for leak in sorted((k for k in leaks if k.kind == "patient"), key=lambda k: "test" not in k.sets):
        folds_of.setdefault(leak.name, []).append(leak)
    told = [f"{patient} ({some([leak.where for leak in found], 2)})" for patient, found in folds_of.items()]
    who = "1 patient is" if len(told) == 1 else f"{len(told)} patients are"
    tested = sum("test" in found[0].sets for found in folds_of.values())
    return SplitError(
        f"{source}: {who} on both sides of a fold, {tested} of them between test and the rest: {some(told)}.",
        fix="Keep the slides of a patient in one set; or set split.allow_leaks = true, and the report shows it in red.",
        code="leak",
    )


def _slides_of(patient_of: Mapping[str, str]) -> dict[str, list[str]]:
    slides: dict[str, list[str]] = {patient: [] for patient in sorted(set(patient_of.values()))}
    for slide in sorted(patient_of):
        slides[patient_of[slide]].append(slide)
    return slides


def _leak_json(leak: Leak) -> dict[str, Any]:
    return {"kind": leak.kind, "name": leak.name, "sets": list(leak.sets), "fold": leak.fold, "repeat": leak.repeat}


def _parse(value: Any, source: str) -> tuple[Split, tuple[Leak, ...]]:
    """The split that the JSON spells out, and the leaks it admits, unchecked."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise SplitError(f"{source} is not a split (format {found!r}).", fix=f"Accepted: {FORMAT}.")
    try:
        slides_of: dict[str, list[str]] = value["patients"]
        patient_of = {slide: patient for patient, slides in slides_of.items() for slide in slides}

        def slides(names: list[str]) -> tuple[str, ...]:
            known = [s for name in names for s in slides_of[name]] if value["unit"] == "patient" else names
            if unknown := [slide for slide in known if slide not in patient_of]:
                raise ValueError(f"no patient for {some(unknown)}")
            return tuple(sorted(known))

        folds = tuple(
            Fold(
                int(f["fold"]),
                int(f["repeat"]),
                slides(f["train"]),
                slides(f["tune"]),
                slides(f["test"]),
                str(f.get("label", "")),
            )
            for f in value["folds"]
        )
        leaks = tuple(
            Leak(leak["kind"], leak["name"], (leak["sets"][0], leak["sets"][1]), leak["fold"], leak["repeat"])
            for leak in value["leaks"]
        )
        if not folds or not isinstance(value["digest"], str):
            raise ValueError("no folds or no digest")
        warnings = tuple(map(str, value["warnings"]))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise SplitError(f"{source} is not a whole split: {error!r}.", fix="Restore it, or remove it.") from error
    return Split(folds, patient_of, str(value.get("source", source)), leaks, warnings), leaks
