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
from coverslip.eval.auroc_interval import newcombe
from coverslip.eval.bootstrap import bca
from coverslip.eval.compare import holm
from coverslip.eval.concordance import Concordance, Contrast
from coverslip.eval.interval import Interval
from coverslip.eval.metrics import plain

# Events in a subgroup, and in the rest, under which nothing is claimed.
LEAST_EVENTS = 10
PERMUTATIONS = 1000
# Numbers with at most this many values are levels (a grade, a stage); others are cut.
FEW_VALUES = 6
# Texts with more values than this name people rather than groups.
MANY_LEVELS = 60
NOT_GIVEN = "not given"
# Under this many in the smaller class an AUROC's interval is Newcombe's; resamples are too few-sided there.
_RESAMPLED_FROM = 50


@dataclass(frozen=True)
class FoldRows:
    """Out-of-fold rows, one a unit (patient or slide) and fold.

    `unit` and `patient` name them, `fold` numbers the fold over all repeats, `group` (n,) is the class of each row, or
    for survival whether there was an event. `needed` are the groups of which a subgroup needs ten; empty: ten units.
    """

    unit: Sequence[str] | ndarray
    patient: Sequence[str] | ndarray
    fold: Int[ndarray, n]
    group: Int[ndarray, n]
    names: tuple[str, ...]
    needed: tuple[int, ...]
    contrasts: tuple[Contrast, ...]
    metric: str = "auroc"

    def __len__(self) -> int:
        return len(self.fold)

    def only(self, which: Bool[ndarray, n]) -> FoldRows:
        def cut(c: Contrast) -> Contrast:
            return Contrast(c.score[which], c.truth[which], None if c.time is None else c.time[which])

        return FoldRows(
            np.asarray(self.unit)[which],
            np.asarray(self.patient)[which],
            self.fold[which],
            self.group[which],
            self.names,
            self.needed,
            tuple(map(cut, self.contrasts)),
            self.metric,
        )

    def counts(self) -> dict[str, int]:
        """Units of each group, each unit once."""
        _, first = np.unique(np.asarray(self.unit, dtype=str), return_index=True)
        return {name: int((self.group[first] == g).sum()) for g, name in enumerate(self.names)}

    @property
    def num_units(self) -> int:
        return len(set(map(str, self.unit)))

    @property
    def events(self) -> int:
        """Units of the scarcest group that is needed."""
        counts = list(self.counts().values())
        return min((counts[g] for g in self.needed), default=self.num_units)


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
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The figure of every level of every attribute, with the difference to all others, as plain values for JSON.

    `attributes` holds a value for each row of `tested`; missing values are a level of their own, "not given". Numbers
    are cut at the `cuts` given for their column, else at the median; with six values or fewer they are levels. Only
    patients of one fold are compared. A level with under ten events (units of the scarcest class, events of survival),
    or whose rest has under ten, is counted and no more. `p` is from shuffling membership among patients of one fold and
    group; `p_holm` is over all tests (Holm 1979), an attribute of two levels being one test.

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
        levels = [_level(tested, made, i, resamples, seed) for i in range(len(made.names))]
        entries = [entry for entry, _ in levels]
        _add_differences(tested, made, levels, tests, name, resamples, seed)
        found.append({"attribute": name, "note": made.note, "levels": entries})
    for test, adjusted in zip(tests, holm([test.p for test in tests])):
        for entry in (test.entry, *test.twins):
            entry["difference"] |= {"p": test.p, "p_holm": adjusted}
    return {
        "metric": tested.metric,
        "how": "pairs within folds, out-of-fold predictions; differences by shuffling, Holm over all tests",
        "least_events": LEAST_EVENTS,
        "overall": _figure(tested, resamples, seed).to_json(),
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


def _level(tested: FoldRows, made: Levels, i: int, resamples: int, seed: int) -> tuple[dict[str, Any], Interval | None]:
    here = tested.only(made.level == i)
    few = here.events < LEAST_EVENTS
    figure = None if few else _figure(here, resamples, seed)
    entry = {
        "level": made.names[i],
        "units": here.num_units,
        "counts": here.counts(),
        "figure": None if figure is None else figure.to_json(),
        "difference": None,
        "reason": f"too few: {here.events} events, under {LEAST_EVENTS}" if few else None,
    }
    return entry, figure


def _add_differences(
    tested: FoldRows,
    made: Levels,
    levels: list[tuple[dict[str, Any], Interval | None]],
    tests: list[_Test],
    name: str,
    resamples: int,
    seed: int,
) -> None:
    for i, (entry, figure) in enumerate(levels):
        if figure is None:
            continue
        inside = made.level == i
        rest = tested.only(~inside)
        if rest.events < LEAST_EVENTS:
            entry["reason"] = f"too few others: {rest.events} events, under {LEAST_EVENTS}"
            continue
        # Of two levels each is the other's rest.
        other = levels[1 - i][1] if len(levels) == 2 else None
        limits = independent_difference(figure, other or _figure(rest, resamples, seed))
        if limits is None:
            continue
        value, low, high = limits
        entry["difference"] = {"value": value, "low": low, "high": high, "interval": "this level minus all others, 95%"}
        if len(made.names) == 2 and i == 1 and tests and tests[-1].entry is levels[0][0]:
            tests[-1].twins.append(entry)
            continue
        tests.append(_Test(entry, _shuffled_p(tested, inside, stream(seed, "subgroups", name, i))))


def _figure(tested: FoldRows, resamples: int, seed: int) -> Interval:
    statistic = Concordance(tested.contrasts, tested.fold)
    value = plain(float(statistic(np.ones((1, len(tested))))[0])) if len(tested) else None
    if value is None:
        return Interval(None, None, None, "", reason="no pair within a fold to compare")
    counts = list(tested.counts().values())
    if tested.metric == "auroc" and len(tested.contrasts) == 1 and min(counts) < _RESAMPLED_FROM:
        low, high = newcombe(value, counts[1], counts[0])
        return Interval(value, low, high, "these fitted models, pairs within folds, Newcombe's method 5, 95%")
    return bca(statistic, tested.patient, tested.group, resamples=resamples, seed=seed, bounds=(0.0, 1.0))


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
