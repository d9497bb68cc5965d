"""Where does the model fail? Groups of units, by what they look like and by what is known of them, ranked by error.

Look at enough groups and some will be bad by chance. So errors are compared with those of patients of the same class
and fold, small groups are shrunk towards no excess, and a group is a finding only where its excess is larger than the
largest of all groups when errors are shuffled (the maximum over groups, Westfall and Young 1993).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from sklearn.cluster import KMeans

from coverslip.base.random import stream, stream_seed
from coverslip.eval.subgroups import make_levels

PERMUTATIONS = 2000
# A group of fewer units is no slice.
LEAST_UNITS = 5
CLUSTERS = (4, 8)
_DIMENSIONS = 32
_EXAMPLES = 6
_SHOWN = 12
_LOOKED_AT = 3


@dataclass(frozen=True)
class Slice:
    """A group of units: what it is, and who belongs to it (n,)."""

    name: str
    kind: str
    members: Bool[ndarray, n]


def clusters(embedding: Float[ndarray, "n d"], *, counts: Sequence[int] = CLUSTERS, seed: int = 0) -> list[Slice]:
    """Groups that look alike: k-means of the standardised embeddings, in their first principal components, for each
    count. The same seed gives the same clusters. Too few units for a count give none of it."""
    x = np.asarray(embedding, dtype=np.float64)
    sd = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(sd > 1e-12, sd, 1.0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    x = u[:, :_DIMENSIONS] * s[:_DIMENSIONS]
    found = []
    for count in counts:
        if len(x) < count * LEAST_UNITS or len(np.unique(x.round(9), axis=0)) < count:
            continue
        label = KMeans(count, n_init=5, random_state=stream_seed(seed, "slices", count) % 2**32).fit(x).labels_
        found += [Slice(f"look-alikes {i + 1} of {count}", "cluster", label == i) for i in range(count)]
    return found


def attribute_slices(attributes: Mapping[str, Sequence[Any] | ndarray]) -> list[Slice]:
    """A group for each level of each attribute; numbers are cut at the median."""
    found = []
    for name, values in attributes.items():
        made = make_levels(values)
        if not isinstance(made, str):
            found += [Slice(f"{name}: {level}", "attribute", made.level == i) for i, level in enumerate(made.names)]
    return found


def error_slices(
    error: Float[ndarray, n],
    expected_of: Int[ndarray, n],
    names: Sequence[str],
    groups: Sequence[Slice],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """The groups in which the model errs most, worst first, as plain values for JSON.

    `error` is each unit's (0 right, larger worse; NaN left out). `expected_of` numbers what the error is compared with:
    units of one class and fold. `names` are the units'. Per slice: `excess` (mean error over that of units of the same
    class and fold), `shrunk` (the same, drawn towards 0 by what so few units tell), `p` (chance that the worst of all
    slices is as bad when errors are shuffled), `finding` (p under .05), and the worst units as examples.
    """
    error = np.asarray(error, dtype=np.float64)
    known = ~np.isnan(error)
    kept = [s for s in groups if LEAST_UNITS <= (s.members & known).sum() <= known.sum() - LEAST_UNITS]
    empty: dict[str, Any] = {"units": int(known.sum()), "looked_at": len(kept), "slices": []}
    if not kept:
        return empty | {"reason": f"no group of {LEAST_UNITS} units or more to look at"}
    _, cell = np.unique(np.asarray(expected_of)[known], return_inverse=True)
    mine = error[known]
    mean_of = np.bincount(cell, mine) / np.bincount(cell)
    excess = mine - mean_of[cell]
    spread = float(excess.std())
    if spread < 1e-12:
        return empty | {"reason": "every unit errs as much as others of its class and fold"}
    inside = np.stack([s.members[known] for s in kept]).astype(np.float64)
    size = inside.sum(axis=1)
    means = inside @ excess / size
    # What chance alone does to a mean, by the finite number of units.
    noise = spread**2 / size
    between = max(0.0, float(np.mean(means**2 - noise)))
    shrunk = means * between / (between + noise)
    z = means * np.sqrt(size) / spread
    worst = _worst_by_chance(excess, cell, inside, np.sqrt(size) / spread, seed)
    p = (1 + (worst[None, :] >= z[:, None] - 1e-12).sum(axis=1)) / (1 + len(worst))
    order = [i for i in np.lexsort((-z, p)).tolist() if means[i] > 0]
    units = np.asarray(names, dtype=object)[known]
    shown = []
    for i in order[:_SHOWN]:
        members = np.flatnonzero(inside[i] > 0)
        examples = members[np.argsort(-mine[members], kind="stable")][:_EXAMPLES]
        shown.append(
            {
                "slice": kept[i].name,
                "kind": kept[i].kind,
                "units": int(size[i]),
                "error": float(mine[members].mean()),
                "excess": float(means[i]),
                "shrunk": float(shrunk[i]),
                "p": float(p[i]),
                "finding": bool(p[i] < 0.05),
                "examples": [str(name) for name in units[examples]],
            }
        )
    return {"units": int(known.sum()), "looked_at": len(kept), "slices": shown, "reason": None}


def worth_a_look(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups of `error_slices` whose slides are worth opening: the findings; where there is none, the first few."""
    rows = [row for row in found.get("slices") or [] if isinstance(row, dict)]
    return [row for row in rows if row.get("finding")] or rows[:_LOOKED_AT]


def _worst_by_chance(
    excess: Float[ndarray, n], cell: Int[ndarray, n], inside: Float[ndarray, "g n"], scale: Float[ndarray, g], seed: int
) -> Float[ndarray, r]:
    """The largest standardised excess of any group, when errors are shuffled among units of one class and fold."""
    chance = stream(seed, "slices", "shuffle")
    worst = np.empty(PERMUTATIONS)
    size = inside.sum(axis=1)
    shuffled = np.empty_like(excess)
    members = [np.flatnonzero(cell == c) for c in range(int(cell.max()) + 1)]
    for r in range(PERMUTATIONS):
        for at in members:
            shuffled[at] = chance.permutation(excess[at])
        worst[r] = ((inside @ shuffled) / size * scale).max()
    return worst
