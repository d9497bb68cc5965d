"""Slides are opened in child processes, because native code may crash or hang on a damaged file.

A worker is a fresh interpreter that imports the slide floors (no torch) and answers one JSON line with one JSON line.
It is used for slide after slide; when it dies or is too slow it is killed and another one takes its place. No process
is forked and no `__main__` is imported again, so scripts and notebooks need no guard, on Linux and macOS alike.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO, Any

from coverslip.base.errors import CoverslipError

Json = dict[str, Any]

_READY = "ready"
# Importing from a cold network disk takes its time; this only catches an interpreter that never comes up.
_START_S = 300.0


class WorkerLost(Exception):
    """The worker gave no answer: `why` in words that go on after "the process that read the slide"."""

    def __init__(self, why: str, *, hung: bool) -> None:
        super().__init__(why)
        self.why = why
        self.hung = hung


def worker_command(module: str) -> tuple[str, ...]:
    """The command of a worker that runs `module.main()` with this interpreter and this search path.

    The current folder is not put in front of the search path: a `random.py` lying there is not ours.
    """
    start = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main()"
    return (sys.executable, "-P", "-c", start, json.dumps([p for p in sys.path if p]))


def serve(handle: Callable[[Json], Json]) -> None:
    """Runs in the child: answers each line of standard input until it ends.

    Libraries that print must not spoil the answers, so these go out through a copy of standard output, and standard
    output itself leads to standard error.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    answers.write(json.dumps(_READY) + "\n")
    for line in sys.stdin:
        answers.write(json.dumps(handle(json.loads(line)), allow_nan=False) + "\n")


class Worker:
    """One child process that can be asked again and again; a context manager. Not for several threads at once."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._complaints: IO[bytes] | None = None
        self._answered = 0
        self._closed = False

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process for good. May be called from another thread, which ends a request that is under way."""
        self._closed = True
        self.kill()
        if self._complaints is not None:
            self._complaints.close()

    def ask(self, request: Json, timeout_s: float) -> Json:
        """The answer to a request.

        A process that dies after it has answered others is given a second chance with a fresh one: what it carried
        over from them may be what killed it.

        Raises:
            WorkerLost: it died, or took longer than `timeout_s`; the next request gets a fresh process.
            CoverslipError: no worker process can be started at all.
        """
        fresh = self._answered == 0
        try:
            return self._ask(request, timeout_s)
        except WorkerLost as lost:
            if lost.hung or fresh or self._closed:
                raise
            return self._ask(request, timeout_s)

    def _ask(self, request: Json, timeout_s: float) -> Json:
        if self._closed:
            raise WorkerLost("was ended", hung=False)
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except (OSError, ValueError):  # it is gone, or was closed by another thread
            raise WorkerLost(self._explain(process), hung=False) from None
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            self.kill()
            raise WorkerLost(f"gave no answer within {timeout_s:g} s and was stopped", hung=True) from None
        if line is None:
            raise WorkerLost(self._explain(process), hung=False)
        self._answered += 1
        answer: Json = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[str]:
        if self._complaints is not None:
            self._complaints.close()
        self._answers = queue.SimpleQueue()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._answered = 0
        process = self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            encoding="utf-8",
        )
        if self._closed:  # by another thread, just now
            self.kill()
        # A thread of its own reads, so that a process that cannot even be killed (a dead network disk) holds up nobody.
        threading.Thread(target=_pump, args=(process.stdout, self._answers), daemon=True).start()
        try:
            ready = self._answers.get(timeout=_START_S)
        except queue.Empty:
            ready = None
        if ready is None or json.loads(ready) != _READY:
            raise CoverslipError(
                f"The process that opens slides does not start: it {self._explain(process)}.",
                fix="The installation looks broken: install coverslip again.",
                code="worker",
            )
        return process

    def _explain(self, process: subprocess.Popen[str]) -> str:
        """How the process ended, with the last thing it said."""
        try:
            status = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            status = None
        lines: list[str] = []
        with suppress(ValueError):  # closed by another thread
            assert self._complaints is not None
            self._complaints.seek(0)
            text = self._complaints.read().decode("utf-8", "replace")
            lines = [line.strip() for line in text.splitlines() if line.strip()]
        self.kill()
        how = "closed its end" if status is None else f"ended with status {status}"
        if status is not None and status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        return f"{how} ({lines[-1][:200]})" if lines else how

    def kill(self) -> None:
        """Ends the process, if there is one; the next request gets another."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        try:
            process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            pass  # stuck in the kernel; the system collects it once the disk answers
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()


def _pump(lines: IO[str], answers: queue.SimpleQueue[str | None]) -> None:
    with lines:
        for line in lines:
            answers.put(line)
    answers.put(None)
