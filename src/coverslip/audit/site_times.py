"""Does the site tell who has the event sooner? Whether there was one is not asked: that tells how long they were seen.

A site that follows its patients for long sees more events, whatever their hazard. So events are held against those
that are expected in the same time at risk, and ranks compare only patients who were at risk together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from coverslip.audit.probe import FOLDS, LEAST_PATIENTS, RED_AUROC, Probe, counted, dealt, nothing, probe
from coverslip.eval.concordance import Contrast
from coverslip.eval.fold_rows import LEAST_EVENTS, FoldRows, concordance_interval
from coverslip.eval.logrank import logrank

_WHAT = "time to the event from site"


def risk_from_site(
    time: Float[ndarray, n], cause: Int[ndarray, n], sites: Sequence[str | None], *, seed: int = 0
) -> Probe:
    """C-index of telling from the site alone who has the event sooner, five patient folds.

    A site's risk is its events over those expected, (O + 1) / (E + 1), among the other folds' patients; E takes each of
    its patients to have had the cumulative hazard of all (Nelson-Aalen) while followed, as the log-rank test does. A
    site that they do not have is 1. How long a site follows its patients moves neither the risk nor, by itself, the
    c-index from .5. `cause` is 0 for censored; of several causes each by itself, averaged, others being censored.
    """
    rows, site, counts = _known(sites)
    time, cause = np.asarray(time, dtype=np.float64)[rows], np.asarray(cause)[rows]
    causes = [int(c) for c in np.unique(cause) if c > 0]
    if len(counts) < 2 or not causes:
        return nothing(_WHAT, "c_index", 0.5, counts, "one site" if causes else "no event")
    scarce = min(int((cause == c).sum()) for c in causes)
    if scarce < LEAST_EVENTS:
        return nothing(_WHAT, "c_index", 0.5, counts, f"{scarce} events, under {LEAST_EVENTS}")
    fold = dealt(cause, FOLDS, seed)
    contrasts = []
    for c in causes:
        event, risk = cause == c, np.ones(len(rows))
        for f in range(FOLDS):
            train, test = fold != f, fold == f
            hazard = _cumulative_hazard(time[train], event[train], time[train])
            size = int(site.max()) + 1
            seen = np.bincount(site[train], event[train], size)
            expected = np.bincount(site[train], hazard, size)
            risk[test] = ((seen + 1) / (expected + 1))[site[test]]
        contrasts.append(Contrast(risk, event.astype(float), time))
    names = np.arange(len(rows)).astype(str)
    tested = FoldRows(names, names, fold, cause, ("censored", "event"), (1,), tuple(contrasts), "c_index")
    figure = concordance_interval(tested)
    red = figure.value is not None and figure.value >= RED_AUROC and (figure.low or 0) > 0.5
    return probe(_WHAT, "c_index", figure, 0.5, counts, red=red)


def sites_part(time: Float[ndarray, n], cause: Int[ndarray, n], sites: Sequence[str | None]) -> dict[str, Any]:
    """Whether the curves of sites with ten patients and more differ, by the log-rank test; of several causes, of any.

    In place of Cramér's V, which would hold events against sites and forget how long each was seen. Never red by
    itself: with many patients small differences have small p, and `risk_from_site` says how much there is.
    """
    rows, site, counts = _known(sites)
    large = np.array([i for i, n in enumerate(counts.values()) if n >= LEAST_PATIENTS])
    kept = np.isin(site, large)
    test = logrank(np.asarray(time, float)[rows][kept], np.asarray(cause)[rows][kept] > 0, site[kept])
    reason = test.reason or "times are held against sites by the log-rank test"
    if len(large) < 2:
        reason = f"{len(large)} sites with {LEAST_PATIENTS} patients or more"
    return {
        "cramers_v": None,
        "p": test.p,
        "red": False,
        "logrank": {"statistic": test.statistic, "df": test.df, "p": test.p},
        "reason": reason,
    }


def _known(sites: Sequence[str | None]) -> tuple[Int[ndarray, m], Int[ndarray, m], dict[str, int]]:
    """The patients whose site is known, the number of each one's site, and how many each site has."""
    rows = np.array([i for i, site in enumerate(sites) if site is not None and site == site], dtype=np.int64)
    names = [str(sites[i]) for i in rows]
    counts = counted(names)
    number = {name: i for i, name in enumerate(counts)}
    return rows, np.array([number[name] for name in names], dtype=np.int64), counts


def _cumulative_hazard(time: Float[ndarray, n], event: Bool[ndarray, n], at: Float[ndarray, m]) -> Float[ndarray, m]:
    """Nelson and Aalen's, at these times."""
    moments = np.unique(time[event])
    ordered = np.sort(time)
    at_risk = len(time) - np.searchsorted(ordered, moments, side="left")
    events = np.array([(event & (time == moment)).sum() for moment in moments])
    steps = np.concatenate([[0.0], np.cumsum(events / np.maximum(at_risk, 1))])
    return steps[np.searchsorted(moments, at, side="right")]
