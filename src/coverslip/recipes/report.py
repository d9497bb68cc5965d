"""`coverslip report`: finished runs as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coverslip.report import write_report


def report(
    runs: Sequence[Path], *, out: Path | None = None, title: str | None = None, pseudonymise: bool = False
) -> Path:
    """The path of the report that was written.

    Raises:
        StoreError: a folder is no run, or a file of it is damaged.
    """
    return write_report(list(runs), out, title=title, pseudonymise=pseudonymise)
