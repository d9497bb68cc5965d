"""Who may use several threads: our own pools that read and draw, and torch. Not the matrix library below numpy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """numpy's and scipy's matrix products use one thread inside the block.

    Their matrices are small here (a pixel has three numbers), and they are called from pools of threads already. Where
    other programs keep the cores busy, waiting for each other's threads costs many times the work: measured on two
    busy cores, drawing four synthetic slides took 43 s of CPU time with two threads each and 3.3 s with one.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        yield
