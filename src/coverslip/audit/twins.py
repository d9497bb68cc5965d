"""The same slide under two names, found by its features: for features of other tools, and images that were saved again.

Two slides are candidates where their mean features point the same way; they are called the same where most tiles of the
one have a tile in the other that is all but equal. Slides of one patient, or of one stain, are nowhere near that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

# Means at least this alike are looked at tile by tile; at most so many pairs, the most alike first. A slide cut to two
# thirds of its 50 tiles may lie at .92; of 900 slides of one cancer some 150 pairs lie over .9.
_CANDIDATE, _MOST_PAIRS = 0.9, 300
# Of this many tiles of one slide, most need a tile of the other within this share of the usual squared distance.
_TILES, _MOST_ROWS, _SAME, _SHARE = 64, 8192, 1e-3, 0.6
_BLOCK = 512


@dataclass(frozen=True)
class Sketch:
    """What is kept of a slide's features: the mean of its rows, and a few of them, evenly spaced."""

    mean: Float[ndarray, d]
    tiles: Float[ndarray, "t d"]


def sketch(rows: Float[ndarray, "n d"], *, tiles: int = 32, most: int = 2048) -> Sketch:
    """The sketch of a slide; reads at most `most` rows, evenly spaced."""
    n = len(rows)
    taken = np.asarray(rows[np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))], dtype=np.float32)
    few = taken[np.unique(np.linspace(0, len(taken) - 1, min(len(taken), tiles)).astype(np.int64))]
    return Sketch(taken.mean(axis=0), few)


def feature_twins(
    means: Mapping[str, Float[ndarray, d]],
    rows: Callable[[str], Float[ndarray, "n d"]],
    others: Mapping[str, Float[ndarray, d]] | None = None,
    other_rows: Callable[[str], Float[ndarray, "n d"]] | None = None,
) -> tuple[tuple[str, str], ...]:
    """Pairs of slides whose features are the same, or the same but for rounding; sorted.

    `means` are the mean rows of slides, `rows` reads all rows of one. With `others` and `other_rows`, pairs of one
    slide of each cohort. Slides of a single tile are passed over: one tile is no slide.
    """
    names = sorted(means)
    partners = names if others is None else sorted(others)
    if len(names) < 1 or len(partners) < 1 or (others is None and len(names) < 3):
        return ()
    ours = np.stack([means[name] for name in names]).astype(np.float64)
    theirs = ours if others is None else np.stack([others[name] for name in partners]).astype(np.float64)
    if ours.shape[1] != theirs.shape[1]:
        return ()
    every = np.concatenate([ours, theirs]) if others is not None else ours
    centre, sd = every.mean(axis=0), every.std(axis=0)
    sd = np.where(sd > 1e-12, sd, np.inf)
    pairs = _candidates(_unit((ours - centre) / sd), _unit((theirs - centre) / sd), same=others is None)
    reader = rows if other_rows is None else other_rows
    found = []
    for i, j in pairs:
        if _same_tiles(rows(names[i]), reader(partners[j])):
            found.append((names[i], partners[j]))
    return tuple(sorted(found))


def _unit(x: Float[ndarray, "n d"]) -> Float[ndarray, "n d"]:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def _candidates(a: Float[ndarray, "n d"], b: Float[ndarray, "m d"], *, same: bool) -> Sequence[tuple[int, int]]:
    """The pairs of most alike means, at most so many."""
    found: list[tuple[float, int, int]] = []
    for start in range(0, len(a), _BLOCK):
        likeness = a[start : start + _BLOCK] @ b.T
        for i, j in np.argwhere(likeness >= _CANDIDATE).tolist():
            if not same or start + i < j:
                found.append((float(likeness[i, j]), start + i, j))
    return [(i, j) for _, i, j in sorted(found, key=lambda f: -f[0])[:_MOST_PAIRS]]


def _same_tiles(a: Float[ndarray, "n d"], b: Float[ndarray, "m d"]) -> bool:
    if min(len(a), len(b)) < 2:
        return False
    if len(a) > len(b):
        a, b = b, a  # a slide that was cut to fewer tiles is found in the whole one
    some = np.asarray(a[np.unique(np.linspace(0, len(a) - 1, min(len(a), _TILES)).astype(np.int64))], dtype=np.float64)
    usual = float(2 * some.var(axis=0).sum())
    if usual <= 0:
        return False
    nearest = np.full(len(some), np.inf)
    norms = (some**2).sum(axis=1)
    for start in range(0, len(b), _MOST_ROWS):
        block = np.asarray(b[start : start + _MOST_ROWS], dtype=np.float64)
        distance = norms[:, None] - 2 * some @ block.T + (block**2).sum(axis=1)[None, :]
        nearest = np.minimum(nearest, distance.min(axis=1))
    return bool((nearest <= _SAME * usual).mean() >= _SHARE)
