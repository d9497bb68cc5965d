"""The errors a user can meet: each names the thing, what was found, what is accepted and the way out.

Every error that a user's input can cause is a `CoverslipError`. The command line prints its text and exits with
`exit_code`; a traceback is shown with `--verbose` only. Broken invariants of ours are plain `assert`s instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail"]

# Preflight codes that make a slide unusable; every other code is a warning.
FAILING_CODES = frozenset({"unreadable", "truncated", "decode_failed", "extra_axes", "no_tissue"})


@dataclass(frozen=True)
class Finding:
    """Something worth telling about one slide: a stable code, what was found, and what to do about it."""

    code: str
    message: str
    fix: str = ""

    @property
    def verdict(self) -> Verdict:
        return "fail" if self.code in FAILING_CODES else "warn"


class CoverslipError(Exception):
    """A mistake in what the user gave us, told in one message.

    `slide` is put in front of the message and `fix` behind it, so that callers pass the parts and not a sentence.
    """

    exit_code = 2

    def __init__(self, message: str, *, slide: str | None = None, fix: str = "", code: str = "") -> None:
        self.message = message
        self.slide = slide
        self.fix = fix
        self.code = code
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.slide}: {self.message}" if self.slide else self.message
        return f"{text} {self.fix}" if self.fix else text

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only parts survive the trip from a child process.
        return _rebuild, (type(self), self.message, self.slide, self.fix, self.code)


def _rebuild(kind: type[CoverslipError], message: str, slide: str | None, fix: str, code: str) -> CoverslipError:
    return kind(message, slide=slide, fix=fix, code=code)


class SettingsError(CoverslipError):
    """The study file, a `--set` or an argument is wrong."""


class TableError(CoverslipError):
    """The cohort or clinical table is wrong; names row and column."""


class SplitError(CoverslipError):
    """Folds leak, do not cover the cohort, or cannot be made."""


class SlideError(CoverslipError):
    """One slide cannot be read or used; `code` is a preflight code. Never ends a cohort."""

    exit_code = 1

    def finding(self) -> Finding:
        return Finding(self.code or "unreadable", self.message, self.fix)


class FeatureError(CoverslipError):
    """A feature file is damaged, has the wrong width, holds NaN, or is of another encoder."""


class EncoderError(CoverslipError):
    """Weights are missing, gated, or do not fit the architecture."""


class StoreError(CoverslipError):
    """Something cannot be written or read: disk full, read-only, locked by another process."""


class MissingExtra(CoverslipError):
    """An optional package is needed: says which extra installs it."""
