"""Times: who is at higher risk, how near the stated curves are, and whether groups of risk part.

Whoever is censored before the end hides their outcome; figures weigh those who are seen by the chance G to be still
followed, from the Kaplan-Meier curve of censoring among the training units of the same fold (IPCW).

c_index     of all pairs in which it is known who had the event first, the share in which they had the higher risk; ties
            of risk count half (Harrell et al. 1996, 10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>3.0.CO;2-4)
uno_c_index the same up to the end of the grid, pairs weighted with 1 / G(t)² of the earlier time, so that it does not
            depend on who was censored (Uno et al. 2011, https://doi.org/10.1002/sim.4154)
auroc_time  cumulative/dynamic AUROC: who has had the event by t against who is free of it, averaged over the grid by
            the fall of the survival curve (Hung and Chiang 2010, https://doi.org/10.1002/cjs.10046; Lambert and
            Chevret 2016, https://doi.org/10.1177/0962280213515571)
ibs         integrated Brier score: (stated survival - truth)² with IPCW, integrated over the grid by trapezoids (Graf
            et al. 1999, https://doi.org/10.1002/(SICI)1097-0258(19990915/30)18:17/18<2529::AID-SIM274>3.0.CO;2-5)

The first three rank, and compare units of one fold alone. A fold whose training units were all followed for less than a
time has no weight there: such a time counts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from coverslip.eval.auroc_interval import FEW
from coverslip.eval.bootstrap import Statistic
from coverslip.eval.censoring import Curve, drawn_survival, kaplan_meier, still_followed
from coverslip.eval.interval import Interval
from coverslip.eval.jackknife import LOGIT, on_scale, ranked, spread
from coverslip.eval.kind import Kind, nothing
from coverslip.eval.logrank import logrank
from coverslip.eval.metrics import plain
from coverslip.eval.proportion import effective_patients, fewest_events
from coverslip.eval.reduce import Units
from coverslip.eval.truth import Task

# Rows of pairs that are worked through at once, times units: memory stays bounded.
_BLOCK = 4_000_000
# Risks that differ by less are the same; published implementations say so too.
_TIE = 1e-8
_CALIBRATION_TIMES = 3
_CALIBRATION_GROUPS = 5
# The score hangs on those who have the event; with fewer of them it has no interval.
LEAST_FOR_IBS = FEW
# Times at which those still followed are counted.
_AT_RISK = 6


class Survival(Kind):
    """The time to an event, some of them censored."""

    headline: ClassVar[str] = "c_index"
    chance: ClassVar[float] = 0.5
    baseline: ClassVar[str] = "mean+sd Cox ridge"
    shown: ClassVar[tuple[str, ...]] = ("c_index", "ibs")

    def names(self, task: Task) -> tuple[str, ...]:
        return ("c_index", "uno_c_index", "auroc_time", "ibs")

    def figure(self, name: str, units: Units, weights: Float[ndarray, "r n"], task: Task) -> Float[ndarray, r]:
        if not len(units):
            return nothing(weights)
        risk, curves, grid = units.p[:, 0], units.p[:, 1:], np.array(task.grid)
        if name == "c_index":
            return concordance(units, risk, units.y[:, 1] > 0, weights)
        if name == "uno_c_index":
            return concordance(units, risk, units.y[:, 1] > 0, weights, end=grid[-1])
        if name == "auroc_time":
            return auroc_over_time(units, 1 - curves, grid, weights)
        return integrated_brier(units, 1 - curves, grid, weights, cause=1)

    def groups(self, units: Units, task: Task) -> Int[ndarray, n]:
        return units.y[:, 1].astype(np.int64)

    def counts(self, units: Units, task: Task) -> dict[str, Any]:
        events = int((units.y[:, 1] > 0).sum())
        return {"events": {"event": events, "censored": len(units) - events}}

    def scarcest(self, units: Units, task: Task) -> tuple[int, str]:
        return int((units.y[:, 1] > 0).sum()), "with the event"

    def curves(self, units: Units, task: Task) -> dict[str, Any]:
        return {
            "risk_groups": risk_groups(units, units.p[:, 0]),
            "calibration_at": [calibration(units, task, time) for time in _calibration_times(task.grid)],
            "auroc_at": auroc_at_times(units, 1 - units.p[:, 1:], np.array(task.grid)),
            "ibs_by_chance": brier_by_chance(units, np.array(task.grid)),
        }

    def fixed(self, units: Units, task: Task, resamples: int, seed: int) -> dict[str, Interval] | None:
        """c_index, uno_c_index and auroc_time as AUROCs of those with the event (`ranked`); ibs by t on the logit
        scale, from 5 events on, with a lower limit that allows for their number (`brier_interval`). Pairs stay within
        strata; G is held fixed."""
        event, end = units.y[:, 1] > 0, task.grid[-1]
        until = {"c_index": math.inf, "uno_c_index": math.nextafter(end, 0), "auroc_time": end}
        power = {"c_index": 0, "uno_c_index": 2, "auroc_time": 1}
        found = {
            name: ranked_interval(
                partial(self._weighted, name, units, task), units, event & (units.y[:, 0] <= until[name]), power[name]
            )
            for name in until
        }
        score = partial(self._weighted, "ibs", units, task)
        return {**found, "ibs": brier_interval(score, units, event & (units.y[:, 0] <= end))}

    def _weighted(self, name: str, units: Units, task: Task, weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
        return self.figure(name, units, weights, task)

    def doubts(self, units: Units, task: Task, level: str) -> list[str]:
        without = [k for k, at in units.strata() if not (units.y[at, 1] > 0).any()]
        if without and units.stratum is not None:
            return [f"{len(without)} folds test nobody with the event: they say nothing of who is at risk."]
        return []


def concordance(
    units: Units,
    risk: Float[ndarray, n],
    event: Bool[ndarray, n],
    weights: Float[ndarray, "r n"],
    *,
    end: float | None = None,
) -> Float[ndarray, r]:
    """The c-index of pairs within a stratum; with `end` Uno's, of events before it, weighted with 1 / G²."""
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    time = units.y[:, 0]
    for stratum, places in units.strata():
        first = places[event[places]]
        weight = np.ones(len(first))
        if end is not None:
            first = first[time[first] < end]
            followed = _followed(units, stratum, time[first])
            weight = np.divide(1.0, followed**2, out=np.zeros(len(first)), where=followed > 0)
        step = max(1, _BLOCK // max(1, len(places)))
        for start in range(0, len(first), step):
            i = first[start : start + step]
            # Of equal times an event comes before a censoring.
            t, other = time[i][:, None], time[places][None, :]
            later = (other > t) | ((other == t) & ~event[places][None, :])
            hit, count = _ranked(risk[i], risk[places], later)
            drawn = weights[:, i] * weight[start : start + step]
            right += (drawn * (weights[:, places] @ hit.T)).sum(axis=1)
            pairs += (drawn * (weights[:, places] @ count.T)).sum(axis=1)
    return np.divide(right, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def auroc_over_time(
    units: Units, incidence: Float[ndarray, "n g"], grid: Float[ndarray, g], weights: Float[ndarray, "r n"]
) -> Float[ndarray, r]:
    """The cumulative/dynamic AUROC averaged over the grid; times at which it cannot be computed are left out."""
    each = np.stack([_auroc_at(units, incidence[:, k], time, weights) for k, time in enumerate(grid)], axis=1)
    if len(grid) == 1:
        return each[:, 0]
    survival = drawn_survival(units.y[:, 0], units.y[:, 1] > 0, weights, grid)
    fall = -np.diff(np.concatenate([np.ones((len(weights), 1)), survival], axis=1), axis=1)
    known = ~np.isnan(each)
    total = (fall * known).sum(axis=1)
    return np.divide(
        (fall * np.where(known, each, 0)).sum(axis=1), total, out=np.full(len(weights), np.nan), where=total > 0
    )


def auroc_at_times(units: Units, incidence: Float[ndarray, "n g"], grid: Float[ndarray, g]) -> list[dict[str, Any]]:
    """The cumulative/dynamic AUROC at each time of the grid, with the events until then, and its pointwise
    interval (`ranked_interval`): of these fitted models; low and high are None with a reason where there is none."""
    found = []
    for k, time in enumerate(grid if len(units) else []):
        figure = partial(_auroc_at, units, incidence[:, k], time)
        event = (units.y[:, 0] <= time) & (units.y[:, 1] > 0)
        told = ranked_interval(figure, units, event, 1).to_json()
        found.append({"time": float(time), "auroc": told.pop("value"), **told, "events": int(event.sum())})
    return found


def brier_by_chance(units: Units, grid: Float[ndarray, g]) -> dict[str, Any]:
    """The integrated Brier score of a model that knows nobody: the Kaplan-Meier curve of each fold's training units is
    stated of all its tested units; the mean over folds. None with the reason where training units are not known."""
    known = [(k, at) for k, at in units.strata() if k in units.training]
    if not known or len(known) < len(units.strata()):
        return {"value": None, "reason": "the training patients of these predictions are not known"}
    scores = []
    for stratum, places in known:
        time, event = units.training[stratum].T
        stated = np.zeros((len(units), len(grid)))
        stated[:] = 1 - kaplan_meier(time, event > 0).at(grid)
        here = np.zeros((1, len(units)))
        here[0, places] = 1.0
        scores.append(float(integrated_brier(units, stated, grid, here, cause=1)[0]))
    of = "Kaplan-Meier curve of the training patients, mean of folds" if len(scores) > 1 else "Kaplan-Meier curve"
    return {"value": float(np.mean(scores)), "of": of}


def integrated_brier(
    units: Units,
    incidence: Float[ndarray, "n g"],
    grid: Float[ndarray, g],
    weights: Float[ndarray, "r n"],
    *,
    cause: int,
) -> Float[ndarray, r]:
    """The Brier score of a cause's cumulative incidence, integrated over the grid and divided by its length; at one
    time it is the score there. With several causes as Schoop et al. (2011, https://doi.org/10.1002/bimj.201000073)."""
    total = weights.sum(axis=1)
    losses = np.zeros((len(units), len(grid)))
    for stratum, places in units.strata():
        losses[places] = _brier_losses(units, stratum, places, incidence, grid, cause)
    scores = weights @ losses / total[:, None]
    if len(grid) == 1:
        return scores[:, 0]
    return np.trapezoid(scores, grid, axis=1) / (grid[-1] - grid[0])


def ranked_interval(statistic: Statistic, units: Units, event: Bool[ndarray, n], power: int = 0) -> Interval:
    """A share of pairs that begin with an event, with the interval of an AUROC of as many patients with the event as
    its weights 1 / G^power amount to, against the others. An event is compared with other events too, of which half are
    later on the average."""
    value = plain(float(statistic(np.ones((1, len(units))))[0])) if len(units) else None
    if value is None:
        return Interval(None, None, None, "none", reason="needs an event and somebody who is followed for longer")
    first = np.flatnonzero(event)
    weight = np.ones(len(first))
    for stratum, places in units.strata():
        mine = np.isin(first, places)
        followed = _followed(units, stratum, units.y[first[mine], 0])
        # Where all ends fall on one day nobody is followed past it; a figure without weights counts them still.
        counted = (followed > 0) | (power == 0)
        weight[mine] = np.divide(1.0, followed**power, out=np.zeros(len(followed)), where=counted)
    num = _as_many(units.patient[first], weight)
    others = max(1.0, effective_patients(units.patient) - num / 2)
    return ranked(value, num, others, spread(statistic, units.patient), "patients with the event")


def brier_interval(statistic: Statistic, units: Units, event: Bool[ndarray, n]) -> Interval:
    """An integrated Brier score by t on the logit scale; none under 5 patients with the event.

    The score grows with the number of events, and where few are expected only cohorts that by chance have many have an
    interval at all: theirs would lie too high. So the lower limit is no higher than the score that these patients would
    give with the fewest events that are still likely in a cohort which has 5 (`fewest_events`), those with the event
    counting for so much less and the others for more.
    """
    value = plain(float(statistic(np.ones((1, len(units))))[0])) if len(units) else None
    if value is None:
        return Interval(None, None, None, "none", reason="nobody to count")
    num = len(set(units.patient[event]))
    if num < LEAST_FOR_IBS:
        reason = f"{num} with the event by the end of the grid: under {LEAST_FOR_IBS}, too few for an interval"
        return Interval(value, None, None, "none", reason=reason)
    found = on_scale(value, spread(statistic, units.patient), LOGIT, "logit")
    if found.low is None or event.all():
        return found
    share, fewest = float(event.mean()), fewest_events(num, LEAST_FOR_IBS) / num
    fewer = np.where(event, fewest, (1 - share * fewest) / (1 - share))
    lowest = plain(float(statistic(fewer[None, :])[0]))
    if lowest is None or lowest >= found.low:
        return found
    return replace(found, low=lowest, how=f"{found.how}, lower limit of the fewest events that are likely")


def risk_groups(units: Units, risk: Float[ndarray, n]) -> dict[str, Any]:
    """Survival curves of the units with the higher and with the lower risk, and the log-rank statistic between them.

    The cut is the median risk of the training units of each fold, so that no tested unit has a part in it; where that
    is not known, as of another cohort, it is the median of the tested ones. `z` is the root of the statistic, negative
    where the higher risk lives longer. There is no p here: groups that cross-validation made were not given beforehand,
    and the usual p is wrong for them. A control has one (`coverslip.eval.permute`).
    """
    if not len(units):
        return {"groups": [], "logrank": None}
    if units.over_cut is not None:
        high, cut = units.over_cut > 0, "median risk of each fold's training patients"
    else:
        high, cut = np.zeros(len(units), dtype=bool), "median of each fold"
        for _, places in units.strata():
            high[places] = risk[places] > np.median(risk[places])
    time, event = units.y[:, 0], units.y[:, 1] > 0
    seen = np.linspace(0, round_up(float(time.max())), _AT_RISK)
    groups = [
        {"name": name, "patients": int(which.sum()), "events": int(event[which].sum()),
         **_drawn(kaplan_meier(time[which], event[which]), time[which]),
         "at_risk": [int((time[which] >= moment).sum()) for moment in seen]}
        for name, which in (("lower risk", ~high), ("higher risk", high))
    ]  # fmt: skip
    test = logrank(time, event, np.where(high, "higher", "lower"))
    worse = test.statistic is not None and test.observed[0] > test.expected[0]
    z = None if test.statistic is None else float(np.sqrt(test.statistic)) * (1 if worse else -1)
    return {
        "groups": groups,
        "cut": cut,
        "at_risk_at": seen.tolist(),
        "logrank": {"statistic": test.statistic, "z": z, "reason": test.reason},
    }


def round_up(value: float) -> float:
    """The next number over `value` whose fifths are short: 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 or 10 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(part * power for part in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if part * power >= value * (1 - 1e-9))


def calibration(units: Units, task: Task, time: float) -> dict[str, Any]:
    """Stated against observed chance of the event by a time, of all units together (`overall`) and in groups of stated
    chance (`bins`); observed is 1 minus the Kaplan-Meier curve of the group, with its limits. What cannot be known is
    None, with the reason."""
    stated = 1 - units.p[:, 1 + task.grid.index(time)]
    number = min(_CALIBRATION_GROUPS, max(1, int((units.y[:, 1] > 0).sum()) // 5))
    order = np.argsort(stated, kind="stable")
    groups = [members for members in np.array_split(order, number) if len(members)]
    return {
        "time": time,
        "of": f"the event by {time:g}",
        "interval": "Kaplan-Meier, 95%",
        "overall": _came_true(units, stated, order, time) if len(order) else None,
        "bins": [_came_true(units, stated, members, time) for members in groups],
    }


def _came_true(units: Units, stated: Float[ndarray, n], members: Int[ndarray, m], time: float) -> dict[str, Any]:
    """Stated and observed chance of the event of some units. A curve is not drawn on past the last who was followed,
    unless it has come to 0; Greenwood's limits need an event and a survivor."""
    told: dict[str, Any] = {"n": len(members), "stated": float(stated[members].mean())}
    curve = kaplan_meier(units.y[members, 0], units.y[members, 1] > 0)
    last = float(units.y[members, 0].max())
    survival = float(curve.at(np.array([time]))[0])
    if time > last and survival > 0:
        reason = f"nobody of these {len(members)} was followed to {time:g}; the last was to {last:g}"
        return {**told, "observed": None, "low": None, "high": None, "reason": reason}
    place = int(np.searchsorted(curve.time, time, side="right")) - 1
    reason = (
        "no event among them by then" if place < 0 else "all who were followed had the event" if survival == 0 else ""
    )
    low, high = (None, None) if reason else (float(1 - curve.high[place]), float(1 - curve.low[place]))
    said = {"reason": f"{reason}: the curve has no limits there"} if reason else {}
    return {**told, "observed": 1 - survival, "low": low, "high": high, **said}


def _ranked(
    mine: Float[ndarray, i], theirs: Float[ndarray, n], counted: Bool[ndarray, "i n"]
) -> tuple[Float[ndarray, "i n"], Float[ndarray, "i n"]]:
    """How right the order of each pair is (1, half for a tie, 0), where it is counted; and whether it is."""
    gap = mine[:, None] - theirs[None, :]
    order = np.where(np.abs(gap) <= _TIE, 0.5, (gap > 0).astype(float))
    return order * counted, counted.astype(float)


def _auroc_at(
    units: Units, incidence: Float[ndarray, n], at: float, weights: Float[ndarray, "r n"]
) -> Float[ndarray, r]:
    """Who has had the event by a time against who is free of it then, cases weighted with 1 / G."""
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    time, event = units.y[:, 0], units.y[:, 1] > 0
    for stratum, places in units.strata():
        cases = places[event[places] & (time[places] <= at)]
        controls = places[time[places] > at]
        if not len(cases) or not len(controls):
            continue
        followed = _followed(units, stratum, time[cases])
        weight = np.divide(1.0, followed, out=np.zeros(len(cases)), where=followed > 0)
        hit, _ = _ranked(incidence[cases], incidence[controls], np.ones((len(cases), len(controls)), dtype=bool))
        drawn = weights[:, cases] * weight
        right += (drawn * (weights[:, controls] @ hit.T)).sum(axis=1)
        pairs += drawn.sum(axis=1) * weights[:, controls].sum(axis=1)
    return np.divide(right, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def _brier_losses(
    units: Units, stratum: int, places: ndarray, incidence: ndarray, grid: Float[ndarray, g], cause: int
) -> Float[ndarray, "m g"]:
    """What each unit of a stratum adds to the Brier score at each time."""
    time, event = units.y[places, 0][:, None], units.y[places, 1][:, None]
    at_own, at_grid = _followed(units, stratum, time[:, 0])[:, None], _followed(units, stratum, grid)[None, :]
    stated = incidence[places]
    over, free = (event > 0) & (time <= grid), time > grid
    seen = np.divide(1.0, at_own, out=np.zeros_like(at_own), where=at_own > 0) * over
    seen = seen + np.divide(1.0, at_grid, out=np.zeros_like(at_grid), where=at_grid > 0) * free
    return seen * (stated - ((event == cause) & over)) ** 2


def _followed(units: Units, stratum: int, at: Float[ndarray, g]) -> Float[ndarray, g]:
    """G(t) among the training units of the stratum; where they are not known, among the tested units themselves."""
    known = units.training.get(stratum, units.y)
    return still_followed(known[:, 0], known[:, 1] > 0, at)


def _as_many(patient: ndarray, weight: Float[ndarray, m]) -> float:
    """As many patients as weighted units amount to, by Kish: (sum of weights)² / sum of the patients' weights²."""
    _, number = np.unique(patient.astype(str), return_inverse=True)
    each = np.bincount(number, weight)
    return float(each.sum() ** 2 / (each**2).sum())


def _calibration_times(grid: Sequence[float]) -> list[float]:
    """Up to three times of the grid, evenly apart, the last among them."""
    if len(grid) <= _CALIBRATION_TIMES:
        return list(grid)
    places = np.unique(np.linspace(0, len(grid) - 1, _CALIBRATION_TIMES + 1).round().astype(int)[1:])
    return [grid[place] for place in places]


def _drawn(curve: Curve, time: Float[ndarray, n]) -> dict[str, Any]:
    """The steps of a curve from time 0 to the longest time, as lists; `low` and `high` are its pointwise 95 % limits,
    None before the first event and where the curve has none."""
    last = float(time.max()) if len(time) else 0.0
    steps = np.append(np.insert(curve.time, 0, 0.0), last)
    value, low, high = (
        np.append(np.insert(of, 0, start), of[-1] if len(of) else start)
        for of, start in ((curve.value, curve.start), (curve.low, np.nan), (curve.high, np.nan))
    )
    limits = {name: [plain(float(x)) for x in of] for name, of in (("low", low), ("high", high))}
    return {"time": steps.tolist(), "value": value.tolist(), **limits}
