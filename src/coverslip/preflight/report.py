"""What a check found: of one slide, and of a cohort. Plain values that turn into the JSON of `coverslip check`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from coverslip.base.errors import Finding, Verdict
from coverslip.base.geometry import Size

FORMAT = "coverslip.check/1"


@dataclass(frozen=True)
class SlideReport:
    """One slide: what the file says of itself, and every reason to doubt it.

    What could not be learnt is None (a file that does not open has a path and, mostly, a digest). `thumbnail` is what
    near duplicates are found by, as `preflight.likeness.fingerprint` makes it; None for a picture without contrast.
    """

    slide: str
    path: str
    reasons: tuple[Finding, ...] = ()
    vendor: str | None = None
    reader: str | None = None
    size: Size | None = None
    mpp: float | None = None
    levels: tuple[float, ...] = ()
    digest: str | None = None
    thumbnail: str | None = None

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict among the reasons; "ok" without any."""
        verdicts = {reason.verdict for reason in self.reasons}
        return "fail" if "fail" in verdicts else "warn" if verdicts else "ok"

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(reason.code for reason in self.reasons)

    def with_reason(self, reason: Finding) -> SlideReport:
        return replace(self, reasons=(*self.reasons, reason))

    def to_json(self) -> dict[str, Any]:
        """The entry of this slide in `coverslip.check/1`."""
        return {
            "slide": self.slide,
            "path": self.path,
            "verdict": self.verdict,
            "reasons": [{"code": r.code, "message": r.message, "fix": r.fix} for r in self.reasons],
            "vendor": self.vendor,
            "reader": self.reader,
            "size": None if self.size is None else list(self.size),
            "mpp": self.mpp,
            "levels": list(self.levels),
            "digest": self.digest,
            "thumbnail": self.thumbnail,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> SlideReport:
        """The report of an entry that `to_json` made."""
        return cls(
            slide=entry["slide"],
            path=entry["path"],
            reasons=tuple(Finding(r["code"], r["message"], r["fix"]) for r in entry["reasons"]),
            vendor=entry["vendor"],
            reader=entry["reader"],
            size=None if entry["size"] is None else Size(*entry["size"]),
            mpp=entry["mpp"],
            levels=tuple(entry["levels"]),
            digest=entry["digest"],
            thumbnail=entry.get("thumbnail"),
        )


@dataclass(frozen=True)
class Twins:
    """Two slides (ids, in the order given) with the same content ("exact") or the same picture ("near")."""

    first: str
    second: str
    kind: Literal["exact", "near"]


@dataclass(frozen=True)
class CheckReport:
    """All slides in the order given, and the pairs that are the same."""

    slides: tuple[SlideReport, ...]
    twins: tuple[Twins, ...] = ()

    @property
    def failed(self) -> tuple[SlideReport, ...]:
        return tuple(slide for slide in self.slides if slide.verdict == "fail")

    def to_json(self) -> dict[str, Any]:
        """What `coverslip check --json` prints."""
        return {
            "format": FORMAT,
            "slides": [slide.to_json() for slide in self.slides],
            "duplicates": [{"slides": [twins.first, twins.second], "kind": twins.kind} for twins in self.twins],
        }
