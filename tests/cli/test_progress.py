"""Progress without a terminal."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from coverslip.cli.progress import ConsoleProgress


def test_a_slow_stage_has_one_line_a_slide_and_one_that_flies_past_has_few() -> None:
    out = StringIO()
    progress = ConsoleProgress(Console(file=out))
    with progress.stage("features", 20_000, unit="slide") as step:
        for _ in range(20_000):
            step.advance()
    lines = out.getvalue().splitlines()
    assert 100 < len(lines) < 1_000
    assert lines[0].startswith("features: 1/20000") and lines[-1].startswith("features: 20000/20000")
