"""What only shows when slides lie side by side: the same file, the same picture, the same name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from coverslip.base.errors import Finding
from coverslip.base.fingerprint import path_digest
from coverslip.preflight.likeness import alike
from coverslip.preflight.report import CheckReport, SlideReport, Twins


def compare(reports: Sequence[SlideReport]) -> CheckReport:
    """The reports with duplicates told at the later slide of each pair, and all pairs.

    A slide is told of one twin: one of the same content before one of the same picture, and the earliest.
    """
    exact = _same_content(reports)
    near = [pair for pair in _same_picture(reports) if pair not in exact]
    told: dict[int, Finding] = {}
    for first, second in exact:
        told.setdefault(second, _duplicate_of(reports[first]))
    for first, second in near:
        told.setdefault(second, _near_duplicate_of(reports[first]))
    namesakes = _same_name(reports)
    slides = []
    for i, report in enumerate(reports):
        if i in told:
            report = report.with_reason(told[i])
        if i in namesakes:
            report = report.with_reason(_same_name_as(reports[namesakes[i]]))
        slides.append(report)
    twins = [Twins(reports[i].slide, reports[j].slide, "exact") for i, j in exact]
    twins += [Twins(reports[i].slide, reports[j].slide, "near") for i, j in near]
    return CheckReport(tuple(slides), tuple(twins))


def _same_content(reports: Sequence[SlideReport]) -> list[tuple[int, int]]:
    """Pairs of the same bytes. The digest of a large file is of samples: equal ones are confirmed by every byte."""
    by_digest: dict[str, list[int]] = defaultdict(list)
    for i, report in enumerate(reports):
        if report.digest is not None:
            by_digest[report.digest].append(i)
    pairs = []
    for members in by_digest.values():
        if len(members) < 2:
            continue
        whole = {i: _whole_digest(Path(reports[i].path)) for i in members}
        pairs += [(i, j) for i, j in combinations(members, 2) if whole[i] is not None and whole[i] == whole[j]]
    return sorted(pairs)


def _whole_digest(path: Path) -> str | None:
    try:
        return path_digest(path, whole=True)
    except OSError:
        return None


def _same_picture(reports: Sequence[SlideReport]) -> list[tuple[int, int]]:
    found = alike([r.thumbnail for r in reports], [r.size for r in reports])
    return sorted((i, j) for i, j, _ in found)


def _same_name(reports: Sequence[SlideReport]) -> dict[int, int]:
    """For each slide whose id came before: where."""
    seen: dict[str, int] = {}
    return {i: first for i, report in enumerate(reports) if (first := seen.setdefault(report.slide, i)) != i}


def _duplicate_of(other: SlideReport) -> Finding:
    return Finding(
        "duplicate_of",
        f"The file has the same content as {other.slide} ({other.path}).",
        "Keep one of them: the same slide on both sides of a split makes results look too good.",
    )


def _near_duplicate_of(other: SlideReport) -> Finding:
    return Finding(
        "near_duplicate_of",
        f"The picture is that of {other.slide} ({other.path}), saved again, scaled, turned or mirrored.",
        "Look at both. Keep one, or give both the same patient, so that they stay on one side of a split.",
    )


def _same_name_as(other: SlideReport) -> Finding:
    return Finding(
        "same_name",
        f"{other.path} has the same slide id {other.slide}; their results would overwrite each other.",
        "Rename one of the files.",
    )
