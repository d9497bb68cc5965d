"""What is gained by leaving the doubtful patients to someone else: error among those decided, and how models agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from coverslip.eval.metrics import decisions
from coverslip.eval.proportion import effective_patients, wilson


def risk_coverage(
    confidence: Float[ndarray, n], wrong: Bool[ndarray, n], groups: Sequence[str] | ndarray | None = None
) -> dict[str, Any] | None:
    """The share of errors among the most confident, for every share of patients that is decided; None without patients.

    `coverage` and `risk` have a point for each distinct confidence, highest first, with Wilson's limits; those who are
    equally sure are decided together. `aurc` is the mean risk over all coverages (Geifman, Uziel and El-Yaniv 2019,
    https://arxiv.org/abs/1805.08206); `aurc_by_chance` is what abstaining at random gives, `aurc_at_best` what an
    oracle gives that abstains on the wrong ones first. A confidence is worth something where aurc is well under chance.
    `groups` names the patient of each unit where units are slides; limits then count patients.
    """
    confidence, wrong = np.asarray(confidence, dtype=np.float64), np.asarray(wrong, dtype=bool)
    n = len(wrong)
    if not n:
        return None
    order = np.argsort(-confidence, kind="stable")
    last = np.flatnonzero(np.diff(confidence[order], append=-np.inf) < 0)
    errors = np.cumsum(wrong[order])[last]
    decided = last + 1
    counted = 1.0 if groups is None else effective_patients(groups) / n
    limits = [wilson(hits * counted, of * counted) for hits, of in zip(errors, decided)]
    # Within a tie the order is open: errors come evenly.
    evenly = np.interp(np.arange(n + 1), np.concatenate([[0], decided]), np.concatenate([[0], errors]))[1:]
    at_best = np.maximum(0, np.arange(1, n + 1) - (n - wrong.sum()))
    return {
        "coverage": (decided / n).tolist(),
        "risk": (errors / decided).tolist(),
        "low": [low for low, _ in limits],
        "high": [high for _, high in limits],
        "aurc": float((evenly / np.arange(1, n + 1)).mean()),
        "aurc_by_chance": float(wrong.mean()),
        "aurc_at_best": float((at_best / np.arange(1, n + 1)).mean()),
    }


def fold_spread(p: Float[ndarray, "f m k"]) -> dict[str, Float[ndarray, m]]:
    """How far the folds' models agree on each patient of another cohort: (m,) arrays by name.

    p_sd          standard deviation over models of the probability of the class that their mean decides
    disagreement  share of models that decide otherwise than their mean

    Models that agree may all be wrong: they learnt from much the same patients. One model has no spread: NaN.
    """
    p = np.asarray(p, dtype=np.float64)
    num_models, num_patients, _ = p.shape
    mean = p.mean(axis=0)
    decided = decisions(mean) if num_patients else np.zeros(0, dtype=np.int64)
    if num_models < 2:
        return {"p_sd": np.full(num_patients, np.nan), "disagreement": np.full(num_patients, np.nan)}
    stated = p[:, np.arange(num_patients), decided]
    return {"p_sd": stated.std(axis=0, ddof=1), "disagreement": (p.argmax(axis=2) != decided).mean(axis=0)}
