"""Leaks between the sets of a fold and between cohorts: patients, slides, and the same image under two names.

Patients and slides are found by name. Content is found by what the caller knows of it: digests of files or features
(equal means equal), and the pairs of near duplicates that the preflight saw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy import ndarray

from coverslip.cohort import Fold, Leak, Split, check_split
from coverslip.cohort.table import some

_MOVE = "Keep all slides of a patient in one set of each fold."
_LOOK = "Look at both: keep one, or give them the same patient so that they stay on one side."
_DROP = "Leave them out of the new cohort: the model has seen them."


@dataclass(frozen=True)
class AuditFinding:
    """One kind of leak: a stable code, what was found in a sentence, what to do, and every case in words.

    Codes: patient_leak, slide_leak, content_leak, feature_leak, near_duplicate_leak (between sets of a fold);
    shared_patient, shared_slide, shared_content, shared_features, shared_picture (between cohorts).
    """

    code: str
    message: str
    fix: str
    cases: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it in one line, with the first few cases."""
        return f"{self.message} {some(self.cases)}. {self.fix}"


def audit_split(
    split: Split,
    *,
    contents: Mapping[str, str] | None = None,
    exact: Iterable[tuple[str, str]] = (),
    near: Iterable[tuple[str, str]] = (),
    features: Iterable[tuple[str, str]] = (),
) -> tuple[AuditFinding, ...]:
    """What leaks between training, tuning and test sets; nothing where the folds are clean.

    `contents` is a digest of each slide's image or features: slides of equal digests are the same. `exact` and `near`
    are pairs of slides that are the same and that look alike, as `duplicate_pairs` reads them from a check report;
    `features` pairs of the same features, as `feature_twins` finds them. Slides that are in no fold are passed over.
    """
    leaks = check_split(split)
    same = _pairs_of_equal(contents or {}) | {frozenset(pair) for pair in exact}
    equal = {frozenset(pair) for pair in features if pair[0] != pair[1]} - same
    alike = {frozenset(pair) for pair in near if pair[0] != pair[1]} - same - equal
    findings = (
        _named("patient_leak", "Patients on both sides of a fold", _MOVE, leaks, "patient"),
        _named("slide_leak", "Slides on both sides of a fold", _MOVE, leaks, "slide"),
        _torn("content_leak", "Pairs of slides with the same content, on both sides of a fold", split, same),
        _torn("feature_leak", "Pairs of slides with the same features, on both sides of a fold", split, equal),
        _torn("near_duplicate_leak", "Pairs of slides that look alike, on both sides of a fold", split, alike),
    )
    return tuple(finding for finding in findings if finding is not None)


def audit_cohorts(
    known: Mapping[str, str],
    new: Mapping[str, str],
    *,
    known_contents: Mapping[str, str] | None = None,
    new_contents: Mapping[str, str] | None = None,
    features: Iterable[tuple[str, str]] = (),
    near: Iterable[tuple[str, str]] = (),
) -> tuple[AuditFinding, ...]:
    """What a new cohort shares with the one a model was made from; both map slides to patients, contents to digests;
    `features` are pairs of a known and a new slide with the same features, as `feature_twins` finds them, `near` pairs
    that look alike, as `shared_pictures` finds them.

    Names are compared as they are: equal names of different hospitals are told too, and are for the reader to judge.
    """
    patients = sorted(set(known.values()) & set(new.values()))
    slides = sorted(set(known) & set(new))
    holders = _holders(known_contents or {})
    twins = [
        f"{slide} is {other}"
        for slide, content in sorted((new_contents or {}).items())
        for other in holders.get(content, [])
    ]
    findings = (
        _counted("shared_patient", "Patients of the new cohort that the training cohort has too", _DROP, patients),
        _counted("shared_slide", "Slides of the new cohort with the name of a training slide", _DROP, slides),
        _counted(
            "shared_features",
            "Slides of the new cohort with the features of a training slide",
            _DROP,
            [f"{new_slide} is {known_slide}" for known_slide, new_slide in sorted(features)],
        ),
        _counted("shared_content", "Slides of the new cohort with the content of a training slide", _DROP, twins),
        _counted(
            "shared_picture",
            "Slides of the new cohort that look like a training slide",
            "Look at both. If they are the same slide, leave it out of the new cohort.",
            [f"{new_slide} looks like {known_slide}" for known_slide, new_slide in sorted(near)],
        ),
    )
    return tuple(finding for finding in findings if finding is not None)


def content_digests(arrays: Mapping[str, ndarray]) -> dict[str, str]:
    """16 hex digits for each array: equal for arrays of the same rows, in whatever order the rows stand.

    Feature files of one slide that were written by two runs may differ in row order alone; an array of no rows says
    nothing about its slide and gets no digest.
    """
    digests = {}
    for slide, array in arrays.items():
        if len(array) == 0:
            continue
        rows = sorted(hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest() for row in array)
        whole = hashlib.sha256(f"{array.dtype.str}{array.shape[1:]}".encode() + b"".join(rows))
        digests[slide] = whole.hexdigest()[:16]
    return digests


def duplicate_pairs(check: Mapping[str, Any]) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """The pairs of slides that a check report (coverslip.check/1) calls the same, and those it calls alike."""
    pairs: dict[str, set[frozenset[str]]] = {"exact": set(), "near": set()}
    for found in check.get("duplicates", ()):
        pairs[found["kind"]].add(frozenset(found["slides"]))
    return _as_tuples(pairs["exact"]), _as_tuples(pairs["near"] - pairs["exact"])


def _holders(contents: Mapping[str, str]) -> dict[str, list[str]]:
    """The slides of each digest."""
    holders: dict[str, list[str]] = {}
    for slide in sorted(contents):
        holders.setdefault(contents[slide], []).append(slide)
    return holders


def _pairs_of_equal(contents: Mapping[str, str]) -> set[frozenset[str]]:
    return {frozenset(pair) for slides in _holders(contents).values() for pair in combinations(slides, 2)}


def _as_tuples(pairs: Iterable[frozenset[str]]) -> tuple[tuple[str, str], ...]:
    ordered = sorted(tuple(sorted(pair)) for pair in pairs)
    return tuple((a, b) for a, b in ordered)


def _named(code: str, what: str, fix: str, leaks: Iterable[Leak], kind: str) -> AuditFinding | None:
    where: dict[str, list[str]] = {}
    for leak in leaks:
        if leak.kind == kind:
            where.setdefault(leak.name, []).append(leak.where)
    return _counted(code, what, fix, [f"{name} ({'; '.join(places)})" for name, places in sorted(where.items())])


def _torn(code: str, what: str, split: Split, pairs: Iterable[frozenset[str]]) -> AuditFinding | None:
    """Pairs of which one slide is in one set and the other in another set of the same fold."""
    cases = []
    for a, b in _as_tuples(pairs):
        places = [place for fold in split.folds for place in _apart(fold, a, b)]
        if places:
            cases.append(f"{a} and {b} ({'; '.join(places)})")
    return _counted(code, what, _LOOK, cases)


def _apart(fold: Fold, a: str, b: str) -> list[str]:
    repeat = f"repeat {fold.repeat}, " if fold.repeat else ""
    of_a = [name for name, slides in fold.sets().items() if a in slides]
    of_b = [name for name, slides in fold.sets().items() if b in slides]
    return [f"{repeat}fold {fold.index}: {x} and {y}" for x in of_a for y in of_b if x != y]


def _counted(code: str, what: str, fix: str, cases: list[str]) -> AuditFinding | None:
    if not cases:
        return None
    return AuditFinding(code, f"{what}: {len(cases)}.", fix, tuple(cases))
