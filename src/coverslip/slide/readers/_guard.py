"""The one boundary to third-party readers: whatever they raise becomes a `SlideError`.

A damaged file makes libraries raise anything from `struct.error` to `RecursionError`, and one bad slide must never
end a cohort. This is the only place with a broad except, and only calls into readers are wrapped in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coverslip.base.errors import CoverslipError, SlideError


@contextmanager
def guarded(slide: str, doing: str, *, code: str, fix: str = "") -> Iterator[None]:
    """Runs a block; what it raises leaves as a `SlideError` of `code` that says what was being done.

    Our own errors pass, with the slide's name put in where it is missing.
    """
    try:
        yield
    except CoverslipError as error:
        if error.slide is not None:
            raise
        raise type(error)(error.message, slide=slide, fix=error.fix, code=error.code) from error
    except Exception as error:
        # A file that ends too early while it is opened was cut short; no library means anything else by it.
        code = "truncated" if isinstance(error, EOFError) and code == "unreadable" else code
        text = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
        raise SlideError(f"{doing} failed ({reason}).", slide=slide, fix=fix, code=code) from error
