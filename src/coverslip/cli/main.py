"""The entry point: runs a command and turns what went wrong into one message and an exit code.

0 done · 1 some slides failed, everything else is finished · 2 settings, table or files are wrong · 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import click
from rich.console import Console

from coverslip.base.errors import CoverslipError
from coverslip.cli.commands import app

INTERRUPTED = 130


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
        for line in (str(error), *getattr(error, "__notes__", ())):
            stderr.print(f"[bold red]error[/] {_escape(line)}")
        return error.exit_code
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        stderr.print("Interrupted. What is finished is kept: the same command goes on from there.")
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return 2
    except BrokenPipeError:
        return 0
    return int(code or 0)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
