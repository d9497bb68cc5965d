"""How long work tells how far it is. The library prints nothing: the command line hands in something that does."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Step(Protocol):
    """One running stage."""

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """`n` more units are done; `note` is the thing just finished (a slide, a fold)."""
        ...

    def expect(self, total: int) -> None:
        """There will be about `total` units: what was not known when the stage began."""
        ...


class Progress(Protocol):
    """Opens stages; each ends with its `with` block."""

    def stage(self, name: str, total: int, *, unit: str) -> AbstractContextManager[Step]: ...

    def say(self, message: str) -> None:
        """A line a person should see, whatever the stage."""
        ...


class _SilentStep:
    def advance(self, n: int = 1, *, note: str = "") -> None:
        pass

    def expect(self, total: int) -> None:
        pass


SILENT_STEP: Step = _SilentStep()


class Silent:
    """Progress that says nothing: the default in the library and in tests."""

    def stage(self, name: str, total: int, *, unit: str) -> AbstractContextManager[Step]:
        return nullcontext(SILENT_STEP)

    def say(self, message: str) -> None:
        pass


SILENT: Progress = Silent()
