"""Warnings first: leaks, lost slides, preflight, what the evaluation says against itself, and licences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.base.errors import FAILING_CODES
from coverslip.report import time_calibration
from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import damaged_tiles, encoder, excluded, failed, findings, leaks
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import code_label, plural

ENTRIES = {"warnings": {"build": "SECTION", "summary": "What speaks against the numbers"}}


@dataclass(frozen=True)
class Caution:
    """One warning: how grave (leak, fail, warn, note), a headline, and the rest of what is known."""

    gravity: str
    headline: str
    text: str = ""
    names: tuple[str, ...] = ()
    fix: str = ""


_ORDER = ("leak", "fail", "warn", "note")
_TOLD_BY_SPLIT = "LEAK. Patients on both sides of a fold"
_LEAKING = re.compile(r"\bleak|both sides|on two sides", re.IGNORECASE)
_RESTRICTED = re.compile(r"\bnc\b|non-?commercial|research[- ]only|academic|gated", re.IGNORECASE)


def cautions(run: RunContents) -> list[Caution]:
    """Every warning of a run, the gravest first."""
    found = [
        *_leaks(run),
        *_lost(run),
        *_preflight(run),
        *_told(run),
        *_audited(run),
        *_controlled(run),
        *_off(run),
        *_left_out(run),
        *_damaged_tiles(run),
        *_licence(run),
        *_missing_parts(run),
    ]
    return sorted(found, key=lambda caution: _ORDER.index(caution.gravity))


def _leaks(run: RunContents) -> list[Caution]:
    found = leaks(run)
    patients = sorted({_who(leak) for leak in found})
    if not patients:
        return []
    # Old files do not say which sets; then the worst is assumed.
    tested = {_who(leak) for leak in found if "test" in (leak.get("sets") or ["test"])}
    text = (
        f"{len(tested)} of them were tested by models that had seen them in training or tuning. "
        "Every number below may be too good."
        if tested
        else "They are in training and tuning, not in the tests: training stopped later than it should have."
    )
    return [
        Caution(
            "leak",
            f"{plural(len(patients), 'patient')} on both sides of a fold",
            text,
            tuple(patients),
            "Make folds of patients (leave split.file out), or keep the slides of a patient in one set. "
            "Fold by fold they stand under Splits.",
        )
    ]


def _who(leak: Mapping[str, Any]) -> str:
    return str(leak.get("patient") or leak.get("slide") or leak.get("name") or "?")


def _lost(run: RunContents) -> list[Caution]:
    by_cause: dict[tuple[str, str], list[str]] = {}
    for slide, cause in failed(run).items():
        by_cause.setdefault(cause, []).append(slide)
    return [
        Caution("fail", f"{plural(len(slides), 'slide')} lost at {stage or 'an unnamed stage'}", reason, tuple(slides))
        for (stage, reason), slides in by_cause.items()
    ]


def _preflight(run: RunContents) -> list[Caution]:
    lost = set(failed(run))
    found = []
    for code, cases in findings(run).items():
        fails = code in FAILING_CODES
        names = tuple(slide for slide, _ in cases if not fails or slide not in lost)
        if names:
            reason = cases[0][1]
            found.append(
                Caution(
                    "fail" if fails else "warn",
                    f"{plural(len(names), 'slide')}: {code_label(code)}",
                    str(reason.get("message", "")) if len(names) == 1 else "",
                    names,
                    str(reason.get("fix", "")),
                )
            )
    return found


def _told(run: RunContents) -> list[Caution]:
    told = [str(text) for text in run.metric("warnings") or []]
    if leaks(run):
        # split.json names them better, and one leak is told once.
        told = [text for text in told if not text.startswith(_TOLD_BY_SPLIT)]
    # What the audits raise is told once, by them: they come after training and know as much.
    raised = [one.headline for one in _audited(run)]
    told = [text for text in told if not any(one.startswith(_message(text)) for one in raised)]
    return [Caution("leak" if _LEAKING.search(text) else "warn", text) for text in told]


def _message(text: str) -> str:
    """The sentence that says what was found, without its cases."""
    return text.removeprefix("LEAK. ").split(". ")[0]


def _audited(run: RunContents) -> list[Caution]:
    """What the audits found: features on both sides, pretraining, sites as shortcuts, subgroups, groups of errors."""
    found = [one for one in dig(run.audit, "warnings") or [] if isinstance(one, Mapping)]
    return [
        Caution(str(one["gravity"]), str(one.get("text")))
        if one.get("gravity") in _ORDER
        else Caution("warn", str(one))
        for one in found
    ]


def _controlled(run: RunContents) -> list[Caution]:
    if not dig(run.control, "above_chance"):
        return []
    return [
        Caution(
            "leak",
            "Outcomes of other patients are found too",
            str(dig(run.control, "sentence") or ""),
            fix="Look for patients on both sides of a fold, and for features that were made with the outcomes.",
        )
    ]


def _off(run: RunContents) -> list[Caution]:
    if not time_calibration.is_off(run):
        return []
    text = " ".join(time_calibration.summary(run))
    return [Caution("warn", time_calibration.verdict(run).rstrip("."), text)]


def _left_out(run: RunContents) -> list[Caution]:
    total = len(excluded(run))
    if not total:
        return []
    return [Caution("note", f"{plural(total, 'row')} of the table excluded", "The reasons stand under Cohort.")]


def _damaged_tiles(run: RunContents) -> list[Caution]:
    found = damaged_tiles(run)
    if not found:
        return []
    tiles, slides = plural(sum(found.values()), "damaged tile"), plural(len(found), "slide")
    return [
        Caution(
            "warn",
            f"{tiles} of {slides} left out",
            'They could not be read, and tiles.on_bad = "skip" allows that: what is said of these slides rests on the '
            "others. The feature files name each tile and why.",
            tuple(sorted(found)),
            "Copy the slides from their source again.",
        )
    ]


def _licence(run: RunContents) -> list[Caution]:
    facts = encoder(run)
    licence = str(facts.get("licence") or "")
    name = str(facts.get("name") or "the encoder")
    if facts and not facts.get("name"):
        return [
            Caution(
                "warn",
                "The feature files do not name their encoder",
                "What turned tiles into numbers, and under which licence, is unknown.",
                fix="Embed the slides again, or keep a note of where the files are from.",
            )
        ]
    if facts.get("gated") or _RESTRICTED.search(licence):
        return [
            Caution(
                "note",
                f"The weights of {name} are restricted ({licence or 'gated'})",
                "Features, models and results made with them may fall under the same terms.",
                fix="Read the licence before this model or its results are used commercially or passed on.",
            )
        ]
    return []


def _missing_parts(run: RunContents) -> list[Caution]:
    if run.metrics is None:
        return [Caution("warn", "This run has no metrics", "It was not finished, or stopped before its evaluation.")]
    if dig(run.metrics, "baseline", "auroc", "value") is None and run.metric("primary", "auroc", "value") is not None:
        return [Caution("warn", "There is no baseline to compare with", "The numbers stand alone.")]
    return []


def _build(run: RunContents) -> dict[str, Any] | Absent:
    return {"cautions": cautions(run)}


SECTION = Section("warnings", 10, "Warnings", Path(__file__).with_suffix(".html"), _build)
