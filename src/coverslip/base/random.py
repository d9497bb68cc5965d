"""Named random streams: each use of chance has its own, so that adding one changes no other."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator that depends on the seed and the names alone, on every machine."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, *names)))


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for libraries with generators of their own (torch)."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
