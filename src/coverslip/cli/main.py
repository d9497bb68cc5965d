"""The entry point: runs a command and turns what went wrong into one message and an exit code.

0 done · 1 some slides failed, everything else is finished · 2 settings, table or files are wrong · 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from coverslip.base.errors import CoverslipError
from coverslip.cli.commands import app

INTERRUPTED = 130

# A wrong option or command. Typer used to raise click's errors and now raises those of its own copy of click.
_UsageError: Any = typer.BadParameter.__base__


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command of `arguments` (sys.argv without the program where None) and exits."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Exit code of the command; messages go to stderr, results to stdout."""
    stderr = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        code = app(args=list(arguments), prog_name="coverslip", standalone_mode=False)
    except CoverslipError as error:
        if "--verbose" in arguments:
            traceback.print_exc()
        stderr.print(Text.assemble(("error", "bold red"), f" {error}"))
        for note in getattr(error, "__notes__", ()):
            stderr.print(Text(f"      {note}"))
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except _UsageError as error:
        error.show()
        return 2
    except BrokenPipeError:
        return 0
    if code == INTERRUPTED:  # some versions of Typer return it, others raise
        stderr.print("Interrupted. What is finished is kept: the same command goes on from there.")
    return int(code or 0)
