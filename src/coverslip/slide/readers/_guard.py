"""The one boundary to third-party readers: whatever they raise becomes a `SlideError`.

A damaged file makes libraries raise anything from `struct.error` to `RecursionError`, and one bad slide must never
end a cohort. This is the only place that catches everything, and only calls into readers are wrapped in it.
"""

from __future__ import annotations

from types import TracebackType

from coverslip.base.errors import CoverslipError, SlideError


class guarded:
    """Runs a block; what it raises leaves as a `SlideError` of `code` that says what was being done.

    Our own errors pass, with the slide's name put in where it is missing.
    """

    # A class and no generator: it is entered for every stored piece of a slide.
    __slots__ = ("_code", "_doing", "_fix", "_slide")

    def __init__(self, slide: str, doing: str, *, code: str, fix: str = "") -> None:
        self._slide, self._doing, self._code, self._fix = slide, doing, code, fix

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, CoverslipError):
            if error.slide is None:
                raise type(error)(error.message, slide=self._slide, fix=error.fix, code=error.code) from error
        elif isinstance(error, Exception):
            # A file that ends too early while it is opened was cut short; no library means anything else by it.
            code = "truncated" if isinstance(error, EOFError) and self._code == "unreadable" else self._code
            text = " ".join(str(error).split())
            reason = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
            raise SlideError(
                f"{self._doing} failed ({reason}).", slide=self._slide, fix=self._fix, code=code
            ) from error
