"""Progress on stderr: bars with an ETA on a terminal, one line a unit elsewhere (log files, job arrays)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from coverslip.base.progress import SILENT_STEP, Step

# Stages that fly past (opening a thousand feature files) would bury what matters: after this many lines, a line at most
# every so many seconds.
_LINES, _PAUSE_S = 100, 0.1


class _BarStep:
    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def advance(self, n: int = 1, *, note: str = "") -> None:
        self._bars.update(self._task, advance=n, note=note)

    def expect(self, total: int) -> None:
        self._bars.update(self._task, total=total)


class _LineStep:
    def __init__(self, console: Console, name: str, total: int, unit: str) -> None:
        self._console = console
        self._name = name
        self._total = total
        self._unit = unit
        self._done = self._lines = 0
        self._start = self._last = time.monotonic()

    def expect(self, total: int) -> None:
        self._total = total

    def advance(self, n: int = 1, *, note: str = "") -> None:
        self._done += n
        now = time.monotonic()
        if self._lines >= _LINES and now - self._last < _PAUSE_S and self._done < self._total:
            return
        self._lines, self._last = self._lines + 1, now
        elapsed = now - self._start
        left = elapsed / self._done * max(0, self._total - self._done) if self._done else 0.0
        self._console.print(
            f"{self._name}: {self._done}/{self._total} {self._unit} {note} ({elapsed:.0f} s, {left:.0f} s left)",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


class ConsoleProgress:
    """The `Progress` of the command line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._depth = 0

    @contextmanager
    def stage(self, name: str, total: int, *, unit: str) -> Iterator[Step]:
        if not self._console.is_terminal:
            # One line a slide: what runs inside a stage (tiles, epochs) would bury them.
            self._depth += 1
            try:
                yield _LineStep(self._console, name, total, unit) if self._depth == 1 else SILENT_STEP
            finally:
                self._depth -= 1
            return
        outermost = self._bars is None
        if outermost:
            self._bars = _bars(self._console)
            self._bars.start()
        bars = self._bars
        assert bars is not None
        task = bars.add_task(name, total=total, unit=unit, note="")
        try:
            yield _BarStep(bars, task)
        finally:
            # A finished stage stays on the screen; an inner one goes, so that folds do not pile up.
            if outermost:
                bars.stop()
                self._bars = None
            else:
                bars.remove_task(task)

    def say(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)


def _bars(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=console,
        refresh_per_second=5,
    )
