"""How many threads a CPU computation is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Matrix products over fewer numbers than this are done before a second thread has woken up. Measured on two cores that
# other work keeps busy: a training step over 40 x 166 numbers takes 47 ms with two threads and 6 ms with one.
_WORTH_THREADS = 1_000_000


@contextmanager
def threads_for(num_values: int) -> Iterator[None]:
    """One thread inside the block where about `num_values` numbers are worked on at a time, and that is few."""
    before = torch.get_num_threads()
    if num_values >= _WORTH_THREADS or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
