"""Coverage of the interval of an AUROC of a fixed cohort: parts of `coverage.py`.

All cohorts of a row are worked through at once, by code of its own, which the product's is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy import ndarray
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata
from scipy.stats import t as student

from coverslip.eval.auroc_interval import (
    MISPLACED_FROM,
    NEAREST,
    NEAREST_PATIENTS,
    RESAMPLED_FROM,
    UNSEEN,
    UNSEEN_PATIENTS,
    auroc_interval,
)
from coverslip.eval.interval import SAME, resampled_weights

AUROCS = (0.6, 0.75, 0.9, 0.95, 0.99)
# How far the smaller class scatters, in standard deviations of the larger.
SCATTER = {"alike": 1.0, "half": 0.5, "twice": 2.0}
SMALL = [(5, 5), (5, 20), (5, 100), (10, 10), (10, 40), (20, 20), (20, 80), (20, 400), (49, 49), (49, 200)]
LARGE = [(50, 50), (50, 200), (100, 100), (100, 400), (200, 200), (500, 500)]
RESAMPLES = 1000
Row = dict[str, Any]
# Scores of so many patients of the rarer class, and of the commoner one; `apart` parts them.
Scores = Callable[[np.random.Generator, int, float], tuple[ndarray, ndarray]]


def auroc_small(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """AUROC of a fixed cohort, under 50 in the smaller class, and what Newcombe's method 5 does by itself."""
    for m, n in SMALL:
        for name, scatter in SCATTER.items():
            yield from (_auroc_cell(m, n, scatter, auroc, runs, rng, name) for auroc in AUROCS)
        yield from (_auroc_cell(m, n, 1.0, auroc, runs, rng, "alike, tied", step=0.5) for auroc in (0.75, 0.95))


def auroc_large(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """AUROC of a fixed cohort, from 50 in the smaller class; 1,000 resamples."""
    for m, n in LARGE:
        drawn = _draws(m, n)
        for name in ("alike", "twice"):
            yield from (_auroc_cell(m, n, SCATTER[name], auroc, runs, rng, name, drawn=drawn) for auroc in AUROCS[1:])


def auroc_others(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """AUROC of fixed cohorts of other kinds than its rule was found on: the smaller class scatters three times as far;
    a part of it is drawn like the larger class and is missed, the rest is not; five marks."""
    for m, n in ((5, 100), (10, 40), (20, 20), (20, 80), (20, 400), (49, 200), (50, 50), (100, 400), (500, 500)):
        drawn = _draws(m, n) if min(m, n) >= RESAMPLED_FROM else None
        # Resampling a thousand patients takes as long as all other rows together.
        some = runs if m < 500 else max(20, runs // 10)
        for auroc in (0.75, 0.9, 0.95, 0.99):
            yield _auroc_cell(m, n, 3.0, auroc, some, rng, "thrice", drawn=drawn)
            shift = float(ndtri(auroc)) * np.sqrt(5)
            marks = [np.digitize(rng.normal(at, sd, (some, k)), range(4)) for at, sd, k in ((shift, 2, m), (0, 1, n))]
            reach = np.concatenate([[-np.inf], np.arange(4), [np.inf]])
            x, y = np.diff(ndtr((reach - shift) / 2)), np.diff(ndtr(reach))
            truth = float(x @ (np.cumsum(y) - y / 2))
            yield _covered(np.concatenate(marks, axis=1).astype(float), m, truth, "five marks", drawn)
            missed = 2 * (1 - auroc)
            seen = rng.random((some, m)) >= missed
            score = np.concatenate([rng.normal(4.0 * seen, 1.0), rng.normal(size=(some, n))], axis=1)
            truth = missed / 2 + (1 - missed) * float(ndtr(4 / np.sqrt(2)))
            yield _covered(score, m, truth, "a part missed", drawn)


def auroc_unseen(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """AUROC of fixed cohorts of kinds that had no part in finding or in choosing the rule: long tails (Student's t, 3
    degrees of freedom) in both classes, in the rarer or in the commoner one; exponential scores; three tenths of the
    rarer class of a subtype that is hardly parted; outliers of the commoner class amid the rarer, which scatters half
    as far."""
    for name, scores in UNSEEN_KINDS.items():
        for m, n in ((5, 20), (5, 100), (10, 40), (20, 80), (20, 400), (49, 200), (50, 200), (100, 400)):
            drawn = _draws(m, n) if min(m, n) >= RESAMPLED_FROM else None
            for auroc in (0.75, 0.9, 0.95):
                apart = _apart(scores, auroc)
                truth = _true(scores, np.random.default_rng(2), 2_000_000, apart)
                rarer, commoner = scores(rng, runs * m, apart)[0], scores(rng, runs * n, apart)[1]
                score = np.concatenate([rarer.reshape(runs, m), commoner.reshape(runs, n)], axis=1)
                yield _covered(score, m, truth, name, drawn)


UNSEEN_KINDS: dict[str, Scores] = {
    "long tails": lambda rng, num, apart: (rng.standard_t(3, num) + apart, rng.standard_t(3, num)),
    "rarer with long tails": lambda rng, num, apart: (rng.standard_t(3, num) + apart, rng.normal(size=num)),
    "commoner with long tails": lambda rng, num, apart: (rng.normal(size=num) + apart, rng.standard_t(3, num)),
    "exponential": lambda rng, num, apart: (rng.exponential(1 + apart, num), rng.exponential(1, num)),
    "two subtypes": lambda rng, num, apart: (
        rng.normal(np.where(rng.random(num) < 0.3, 0.3, 1.0) * apart),
        rng.normal(size=num),
    ),
    "outliers": lambda rng, num, apart: (
        rng.normal(apart, 0.5, num),
        rng.normal(np.where(rng.random(num) < 0.05, apart, 0.0)),
    ),
}


def _apart(scores: Scores, auroc: float) -> float:
    """How far classes are parted where the AUROC is about this, by halving."""
    low, high = 0.0, 40.0
    for _ in range(16):
        middle = (low + high) / 2
        reached = _true(scores, np.random.default_rng(1), 100_000, middle) >= auroc
        low, high = (low, middle) if reached else (middle, high)
    return high


def _true(scores: Scores, rng: np.random.Generator, num: int, apart: float) -> float:
    """The AUROC of very many patients."""
    rarer, commoner = scores(rng, num, apart)
    ranks = rankdata(np.concatenate([rarer, commoner]))[:num]
    return float((ranks.sum() - num * (num + 1) / 2) / num**2)


def _draws(m: int, n: int) -> ndarray:
    """How often each patient is drawn in each resample: it depends on seed and patients alone, not on scores, and is
    the same in all cohorts of a size."""
    drawn = resampled_weights(np.arange(m + n), classes_of(m, n), RESAMPLES, 0)
    return np.concatenate(list(drawn)).astype(np.float32)


def _auroc_cell(
    m: int,
    n: int,
    scatter: float,
    auroc: float,
    runs: int,
    rng: np.random.Generator,
    name: str,
    step: float = 0.0,
    drawn: ndarray | None = None,
) -> Row:
    shift = float(ndtri(auroc)) * np.sqrt(1 + scatter**2)
    truth = _tied_auroc(shift, scatter, step) if step else auroc
    score = np.concatenate([rng.normal(shift, scatter, (runs, m)), rng.normal(0, 1, (runs, n))], axis=1)
    score = np.round(score / step) * step if step else score
    return _covered(score, m, truth, name, drawn)


def _covered(score: ndarray, m: int, truth: float, name: str, drawn: ndarray | None) -> Row:
    """How often the interval of the AUROC holds the truth, one cohort a row of `score`, the smaller class first."""
    runs, n = len(score), score.shape[1] - m
    value, low, high, alone = _all_newcombe(score, m)
    resampled = (min(m, n) >= RESAMPLED_FROM) & (min(m, n) * np.minimum(value, 1 - value) >= MISPLACED_FROM)
    for i in np.flatnonzero(resampled):
        assert drawn is not None
        low[i], high[i] = _bca(score[i], m, drawn)
    # All of this at once is what the product does one by one.
    for i in range(min(runs, 20)):
        found = auroc_interval(classes_of(m, n) == 1, score[i], resamples=RESAMPLES)
        assert np.allclose([found.low, found.high], [low[i], high[i]], atol=1e-9), (found, low[i], high[i])
    return {
        "classes": f"{m} : {n}",
        "scatter": name,
        "auroc": round(truth, 4),
        "covered": ((low <= truth) & (truth <= high)).mean(),
        "newcombe_alone": ((alone[0] <= truth) & (truth <= alone[1])).mean(),
        "width": (high - low).mean(),
        "bca": resampled.mean(),
        "runs": runs,
    }


def _bca(score: ndarray, m: int, drawn: ndarray) -> tuple[float, float]:
    """BCa limits of an AUROC: pairs are ranked once, and a resample counts each as often as both of it were drawn."""
    n = len(score) - m
    gap = score[:m, None] - score[None, m:]
    # Whole and half numbers under 2**24: single precision is exact.
    order = np.where(gap > 0, 1, np.where(gap == 0, 0.5, 0)).astype(np.float32)
    v10, v01 = order.mean(axis=1, dtype=np.float64), order.mean(axis=0, dtype=np.float64)
    value = v10.mean()
    draws = ((drawn[:, :m] @ order) * drawn[:, m:]).sum(axis=1, dtype=np.float64) / (m * n)
    below = (draws < value - SAME).mean() + (np.abs(draws - value) <= SAME).mean() / 2
    bias = ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    # Leaving a patient out moves the mean of the others by their distance over one less than all.
    adds = np.concatenate([(v10 - value) / m, (v01 - value) / n])
    acceleration = (adds**3).sum() / (6 * (adds**2).sum() ** 1.5)
    tails = bias + ndtri([0.025, 0.975])
    low, high = np.quantile(draws, ndtr(bias + tails / (1 - acceleration * tails)))
    return float(low), float(high)


def _all_newcombe(score: ndarray, m: int) -> tuple[ndarray, ndarray, ndarray, tuple[ndarray, ndarray]]:
    """AUROC, Newcombe's limits widened as `auroc_interval` does, and not widened, of all cohorts at once."""
    n = score.shape[1] - m
    among_all = rankdata(score, axis=1)
    v10 = (among_all[:, :m] - rankdata(score[:, :m], axis=1)) / n
    v01 = 1 - (among_all[:, m:] - rankdata(score[:, m:], axis=1)) / m
    value = v10.mean(axis=1)
    parts = v10.var(axis=1, ddof=1) / m, v01.var(axis=1, ddof=1) / n
    spread = np.maximum(parts[0] ** 2 / (m - 1) + parts[1] ** 2 / (n - 1), 1e-300)
    freedom = np.maximum(1.0, sum(parts) ** 2 / spread)
    z = float(ndtri(0.975))
    delong, assumed = sum(parts) * (student.ppf(0.975, freedom) / z) ** 2, _hanley_mcneil(value, m, n)
    unseen = sum(min(UNSEEN, UNSEEN_PATIENTS / k) * (value - 0.5) ** 2 / k for k in (m, n))
    edge = np.clip(NEAREST_PATIENTS / min(m, n), *NEAREST)
    bounded = _hanley_mcneil(np.clip(value, edge, 1 - edge), m, n)
    as_it_is = np.divide(delong, assumed, out=np.ones_like(value), where=assumed > 0)
    stretch = np.maximum(np.maximum(1.0, as_it_is), (delong + unseen) / bounded)
    wide, alone = ([_limit(value, end, z**2 * by, m, n) for end in (0.0, 1.0)] for by in (stretch, 1.0))
    return value, wide[0], wide[1], (alone[0], alone[1])


def _limit(value: ndarray, end: float, z2: ndarray | float, m: int, n: int) -> ndarray:
    inner, outer = value.copy(), np.full_like(value, end)
    for _ in range(55):
        middle = (inner + outer) / 2
        inside = (value - middle) ** 2 <= z2 * _hanley_mcneil(middle, m, n)
        inner, outer = np.where(inside, middle, inner), np.where(inside, outer, middle)
    return inner


def _hanley_mcneil(theta: ndarray, m: int, n: int) -> ndarray:
    shared = (m + n) / 2 - 1
    return theta * (1 - theta) / (m * n) * (1 + shared * (1 - theta) / (2 - theta) + shared * theta / (1 + theta))


def classes_of(m: int, n: int) -> ndarray:
    """1 for the m patients of the first class, 0 for the n others."""
    return (np.arange(m + n) < m).astype(np.int64)


def _tied_auroc(shift: float, scatter: float, step: float) -> float:
    """The AUROC of rounded scores, from the chance of each step."""
    edges = np.arange(-12, 16, step) + step / 2
    x = np.diff(ndtr((edges - shift) / scatter))
    y = np.diff(ndtr(edges))
    return float(x @ (np.cumsum(y) - y / 2))
