"""What a piece of work costs: seconds by the clock and of the processor, and the most memory it held at once."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """Filled in when the work is done. `peak_bytes` is of the device, or of this process above what it held before
    ("device" or "process"); None where the system does not tell."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int | None = None
    memory_of: str = "process"


@contextmanager
def measured(device: str) -> Iterator[Cost]:
    """Measures its block. `device` is that of the settings: auto, cpu, cuda ...

    The peak of a process is its high-water mark of resident memory, which Linux alone lets one set back, after what is
    free went back to the system: a process that kept it would seem to need nothing. A few MB are noise.
    """
    cost = Cost()
    on_card = device != "cpu" and torch.cuda.is_available()
    if on_card:
        torch.cuda.reset_peak_memory_stats()
    held = None if on_card else _mark()
    wall, cpu = time.perf_counter(), time.process_time()
    yield cost
    if on_card:
        torch.cuda.synchronize()
    cost.seconds, cost.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    if on_card:
        cost.peak_bytes, cost.memory_of = int(torch.cuda.max_memory_allocated()), "device"
    elif held is not None and (most := _resident("VmHWM")) is not None:
        cost.peak_bytes = max(0, most - held)


def _mark() -> int | None:
    """Sets the high-water mark back; the bytes held now, None where the system does not allow it."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # another library than glibc
        return None
    try:
        _CLEAR.write_text("5")
    except OSError:
        return None
    return _resident("VmRSS")


def _resident(name: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else None
