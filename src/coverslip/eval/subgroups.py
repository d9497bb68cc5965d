"""Does the model work as well for everyone? Each level of each covariate against all others, counts first.

A small subgroup shows large differences by chance. So: under ten events nothing is claimed, every figure has an
interval, differences are tested by shuffling who belongs to the subgroup, and the p values are Holm's over all tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from coverslip.base.random import stream
from coverslip.eval.compare import holm
from coverslip.eval.concordance import Concordance
from coverslip.eval.fold_rows import LEAST_EVENTS, FoldRows, concordance_interval
from coverslip.eval.interval import Interval

PERMUTATIONS = 1000
# Numbers with at most this many values are levels (a grade, a stage); others are cut.
FEW_VALUES = 6
# Texts with more values than this name people rather than groups.
MANY_LEVELS = 60
NOT_GIVEN = "not given"


@dataclass(frozen=True)
class Levels:
    """A covariate as levels: `level` (n,) the number of each row's level in `names`; `note` says how numbers were
    cut."""

    names: tuple[str, ...]
    level: Int[ndarray, n]
    note: str = ""


@dataclass
class _Test:
    entry: dict[str, Any]
    p: float
    twins: list[dict[str, Any]] = field(default_factory=list)


def subgroups(
    tested: FoldRows,
    attributes: Mapping[str, Sequence[Any] | ndarray],
    *,
    cuts: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The figure of every level of every attribute, with the difference to all others, as plain values for JSON.

    `attributes` holds a value for each row of `tested`; missing values are a level of their own, "not given". Numbers
    are cut at the `cuts` given for their column, else at the median; with six values or fewer they are levels. Only
    patients of one fold are compared. A level with under ten events (`FoldRows.scarcest`: patients of the scarcest
    class, sign of a label or cause), or whose rest has under ten, is counted and no more. `p` is from shuffling
    membership among patients of one fold and group; `p_holm` is over all tests (Holm 1979), an attribute of two levels
    being one test.

    Never raises for what data can be: what cannot be computed is None with a `reason`.
    """
    found: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    tests: list[_Test] = []
    for name, values in attributes.items():
        made = make_levels(values, (cuts or {}).get(name))
        if isinstance(made, str):
            skipped.append({"column": name, "reason": made})
            continue
        levels = [_level(tested, made, i) for i in range(len(made.names))]
        entries = [entry for entry, _ in levels]
        _add_differences(tested, made, levels, tests, name, seed)
        found.append({"attribute": name, "note": made.note, "levels": entries})
    for test, adjusted in zip(tests, holm([test.p for test in tests])):
        for entry in (test.entry, *test.twins):
            entry["difference"] |= {"p": test.p, "p_holm": adjusted}
    return {
        "metric": tested.metric,
        "how": "pairs within folds, out-of-fold predictions; differences by shuffling, Holm over all tests",
        "least_events": LEAST_EVENTS,
        "overall": concordance_interval(tested).to_json(),
        "tests": len(tests),
        "attributes": found,
        "skipped": skipped,
    }


def make_levels(values: Sequence[Any] | ndarray, cuts: Sequence[float] | None = None) -> Levels | str:
    """The levels of a column, or why it makes no subgroups."""
    column = pd.Series(list(values), dtype=object)
    known = column.dropna()
    known = known[known.map(lambda v: str(v).strip() != "")]
    if known.empty:
        return "no value"
    distinct = known.map(str).nunique()
    if distinct == 1:
        return "one value"
    number = known.map(lambda v: isinstance(v, (int, float, np.number)) and not isinstance(v, (bool, np.bool_))).all()
    level = np.full(len(column), -1)
    if number and (cuts or distinct > FEW_VALUES):
        at = sorted(set(map(float, cuts or [float(np.median(known.astype(float)))])))
        place: Int[ndarray, m] = np.digitize(known.astype(float).to_numpy(), at)
        names = [f"under {at[0]:g}", *(f"{a:g} to under {b:g}" for a, b in pairwise(at)), f"{at[-1]:g} or more"]
        note = f"cut at {', '.join(f'{c:g}' for c in at)}" + ("" if cuts else " (the median)")
    else:
        if distinct > MANY_LEVELS or distinct > max(2, len(known) / 2):
            return f"{distinct} values in {len(known)} rows: names, not groups"
        texts = known.map(lambda v: f"{v:g}" if isinstance(v, float) else str(v))
        names = sorted(texts.unique())
        place, note = texts.map({name: i for i, name in enumerate(names)}).to_numpy(dtype=np.int64), ""
    level[known.index.to_numpy()] = place
    used = sorted(set(level[level >= 0].tolist()))
    if len(used) < 2:
        return f"{note}: all on one side"
    level = np.array([used.index(v) if v >= 0 else len(used) for v in level])
    kept = [names[i] for i in used]
    return Levels(tuple(kept + [NOT_GIVEN] * bool((level == len(used)).any())), level, note)


def independent_difference(one: Interval, other: Interval) -> tuple[float, float, float] | None:
    """The difference of two figures of different patients, with limits from those of each (Zou and Donner 2008,
    https://doi.org/10.1002/sim.3095): each limit is as far as the two limits that make it. None without an interval."""
    parts = (one.value, one.low, one.high, other.value, other.low, other.high)
    if any(part is None for part in parts):
        return None
    a, al, ah, b, bl, bh = (float(part) for part in parts if part is not None)
    return a - b, a - b - float(np.hypot(a - al, bh - b)), a - b + float(np.hypot(ah - a, b - bl))


def _level(tested: FoldRows, made: Levels, i: int) -> tuple[dict[str, Any], Interval | None]:
    here = tested.only(made.level == i)
    few = here.too_few()
    figure = None if few else concordance_interval(here)
    entry = {
        "level": made.names[i],
        "units": here.num_units,
        "counts": here.counts(),
        "figure": None if figure is None else figure.to_json(),
        "difference": None,
        "reason": few,
    }
    return entry, figure


def _add_differences(
    tested: FoldRows,
    made: Levels,
    levels: list[tuple[dict[str, Any], Interval | None]],
    tests: list[_Test],
    name: str,
    seed: int,
) -> None:
    for i, (entry, figure) in enumerate(levels):
        if figure is None:
            continue
        inside = made.level == i
        rest = tested.only(~inside)
        if few := rest.too_few():
            entry["reason"] = few.replace("too few", "too few others")
            continue
        # Of two levels each is the other's rest.
        other = levels[1 - i][1] if len(levels) == 2 else None
        limits = independent_difference(figure, other or concordance_interval(rest))
        if limits is None:
            continue
        value, low, high = limits
        entry["difference"] = {"value": value, "low": low, "high": high, "interval": "this level minus all others, 95%"}
        if len(made.names) == 2 and i == 1 and tests and tests[-1].entry is levels[0][0]:
            tests[-1].twins.append(entry)
            continue
        tests.append(_Test(entry, _shuffled_p(tested, inside, stream(seed, "subgroups", name, i))))


def _shuffled_p(tested: FoldRows, inside: Bool[ndarray, n], chance: np.random.Generator) -> float:
    """How often a subgroup drawn by chance, with as many patients of each fold and group, differs as much."""
    _, first, of = np.unique(np.asarray(tested.patient, dtype=str), return_index=True, return_inverse=True)
    member = inside[first]
    cell = np.unique(np.stack([tested.fold[first], tested.group[first]]), axis=1, return_inverse=True)[1].reshape(-1)
    draws = np.tile(member, (PERMUTATIONS + 1, 1))
    for c in range(int(cell.max()) + 1):
        at = np.flatnonzero(cell == c)
        if 0 < member[at].sum() < len(at):
            draws[1:, at] = chance.permuted(np.tile(member[at], (PERMUTATIONS, 1)), axis=1)
    statistic = Concordance(tested.contrasts, tested.fold)
    weights: Float[ndarray, "r n"] = draws[:, of].astype(np.float64)
    gaps = np.abs(statistic(weights) - statistic(1 - weights))
    known = gaps[1:][~np.isnan(gaps[1:])]
    if np.isnan(gaps[0]) or not len(known):
        return 1.0
    return float((1 + (known >= gaps[0] - 1e-12).sum()) / (1 + len(known)))
