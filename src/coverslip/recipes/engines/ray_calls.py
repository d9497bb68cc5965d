"""What was asked of a Ray cluster and is not answered yet; the death of a process or a machine is an answer too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

# A process or a machine died, not the code in it.
DEATHS = (
    RayActorError,
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    WorkerCrashedError,
)
# What dies this often is no accident.
ATTEMPTS = 5

Ref = Any  # of an object in Ray's store


@dataclass(frozen=True)
class _Call:
    answered: Callable[[Any], None]
    died: Callable[[Exception], None]


class Calls:
    """Calls under way. Each is answered once, in this process and this thread, inside `wait`."""

    def __init__(self) -> None:
        self._calls: dict[Ref, _Call] = {}

    def ask(self, ref: Ref, answered: Callable[[Any], None], died: Callable[[Exception], None]) -> None:
        """Hands the answer behind `ref` to `answered`, or to `died` why there is none."""
        self._calls[ref] = _Call(answered, died)

    def wait(self, seconds: float) -> None:
        """Waits for an answer and hands on whatever is there.

        Raises:
            RayTaskError: a bug, with the traceback of the other process.
        """
        if not self._calls:
            return
        ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=seconds)
        more, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
        for ref in dict.fromkeys([*ready, *more]):
            call = self._calls.pop(ref)
            try:
                answer = ray.get(ref)
            except RayError as error:
                if not isinstance(error.cause if isinstance(error, RayTaskError) else error, DEATHS):
                    raise
                call.died(error)
            else:
                call.answered(answer)

    def cancel(self) -> None:
        """Asks for nothing any more."""
        for ref in self._calls:
            ray.cancel(ref, force=False)
        self._calls.clear()


def first_line(error: Exception) -> str:
    """What happened, in one line, without the full stop."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    text = str(cause).strip()
    return f"{type(cause).__name__}: {text.splitlines()[0].rstrip('.')}" if text else type(cause).__name__
