"""Do groups differ in survival? The log-rank statistic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.stats import chi2

from coverslip.base.errors import TableError


@dataclass(frozen=True)
class Logrank:
    """The statistic, its degrees of freedom, and p for groups that were given before any outcome was seen.

    `observed` and `expected` are the events of each group, groups sorted. All None where nothing can be compared.
    """

    statistic: float | None
    df: int
    p: float | None
    groups: tuple[str, ...]
    observed: tuple[float, ...] = ()
    expected: tuple[float, ...] = ()
    reason: str = ""


def logrank(time: Float[ndarray, n], event: Bool[ndarray, n], group: ndarray) -> Logrank:
    """The log-rank test of two or more groups (Mantel 1966; Peto and Peto 1972, https://doi.org/10.2307/2344317).

    `time` is to the event or to the last visit, `event` says which. For groups that were made by cross-validation use
    `permuted_logrank`: their p is not this one.

    Raises:
        TableError: a time is NaN, infinite or negative.
    """
    time, event = np.asarray(time, dtype=np.float64), np.asarray(event, dtype=bool)
    wrong = np.flatnonzero(~np.isfinite(time) | (time < 0))
    if len(wrong):
        raise TableError(
            f"Times, row {wrong[0]}: {time[wrong[0]]} is no time; {len(wrong)} of {len(time)} rows.",
            fix="A time is a finite number, 0 or more.",
        )
    names, group_of = np.unique(np.asarray(group).astype(str), return_inverse=True)
    groups = tuple(names.tolist())
    if len(groups) < 2:
        return Logrank(None, 0, None, groups, reason="needs two groups")
    if not event.any():
        return Logrank(None, 0, None, groups, reason="no event")
    member = np.eye(len(groups))[group_of]
    moments = np.unique(time[event])
    at_risk = np.stack([(member * (time >= moment)[:, None]).sum(axis=0) for moment in moments])
    events = np.stack([(member * (event & (time == moment))[:, None]).sum(axis=0) for moment in moments])
    n, d = at_risk.sum(axis=1), events.sum(axis=1)
    share = at_risk / n[:, None]
    expected = (d[:, None] * share).sum(axis=0)
    observed = events.sum(axis=0)
    # Hypergeometric: events of one moment are drawn without putting back.
    scale = d * (n - d) / np.maximum(n - 1, 1)
    covariance = np.diag((scale[:, None] * share).sum(axis=0)) - np.einsum("t,tg,th->gh", scale, share, share)
    gap = observed - expected
    df = int(np.linalg.matrix_rank(covariance, tol=1e-10))
    if df == 0:
        why = "the groups are never at risk together"
        return Logrank(None, 0, None, groups, tuple(observed), tuple(expected), why)
    statistic = float(gap @ np.linalg.pinv(covariance, rcond=1e-10) @ gap)
    return Logrank(statistic, df, float(chi2.sf(statistic, df)), groups, tuple(observed), tuple(expected))
