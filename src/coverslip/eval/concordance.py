"""Concordance within folds: how often the higher score belongs to the patient who should have it.

Scores of different folds come from different models and are on different scales, so only patients of one fold are
compared; the pairs of all folds are then counted together. For two classes this is the AUROC within folds, for times
the c-index (Harrell et al. 1996, https://doi.org/10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>3.0.CO;2-4), for
levels and numbers the share of pairs in the right order. Several contrasts (one class against the rest, one label) are
averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy import ndarray


@dataclass(frozen=True)
class Contrast:
    """One comparison: `score` (n,) ranks, and i should stand above j where `above(i, j)`: where `truth` of i is higher
    and, for times, j's end is known to come later. NaN in `truth` keeps a row out of all pairs.

    `time` turns it into survival: i should have the higher risk where i had an event (`truth` 1) before j's time.
    """

    score: Float[ndarray, n]
    truth: Float[ndarray, n]
    time: Float[ndarray, n] | None = None

    def pairs(self, rows: Int[ndarray, m]) -> tuple[Float32[ndarray, "m m"], Float32[ndarray, "m m"]]:
        """For each ordered pair of these rows: how right its order is (1, ½ for a tie, 0), and whether it counts."""
        score, truth = self.score[rows], self.truth[rows]
        if self.time is None:
            counts = truth[:, None] > truth[None, :]
        else:
            time, known = self.time[rows], ~np.isnan(truth)
            # Of equal times an event comes before a censoring.
            later = (time[None, :] > time[:, None]) | ((time[None, :] == time[:, None]) & (truth[None, :] == 0))
            counts = (truth[:, None] == 1) & later & known[None, :]
        right = np.where(score[:, None] > score[None, :], 1.0, np.where(score[:, None] == score[None, :], 0.5, 0.0))
        return (right * counts).astype(np.float32), counts.astype(np.float32)


class Concordance:
    """Call it with weights (r, n), how often each row was drawn: the concordance of each draw (r,), NaN without a pair.

    `strata` (n,) says among whom pairs are made: the fold of a row, or its fold and site.
    """

    def __init__(self, contrasts: Sequence[Contrast], strata: Int[ndarray, n]) -> None:
        self.contrasts, self.strata = contrasts, strata
        members = [np.flatnonzero(strata == s) for s in np.unique(strata)]
        self._pairs = [[(rows, *contrast.pairs(rows)) for rows in members] for contrast in contrasts]

    def __call__(self, weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
        values = []
        for blocks in self._pairs:
            right, counted = np.zeros(len(weights)), np.zeros(len(weights))
            for rows, order, counts in blocks:
                if not counts.any():
                    continue
                drawn = weights[:, rows].astype(np.float32)
                right += np.einsum("rn,rn->r", drawn @ order, drawn)
                counted += np.einsum("rn,rn->r", drawn @ counts, drawn)
            values.append(np.divide(right, counted, out=np.full(len(weights), np.nan), where=counted > 0))
        return np.mean(values, axis=0)

    def wrong_share(self) -> Float[ndarray, n]:
        """For each row, the share of its pairs that are in the wrong order (a tie is half), over contrasts; NaN for a
        row without a pair."""
        shares = []
        for blocks in self._pairs:
            share = np.full(len(self.strata), np.nan)
            for rows, order, counts in blocks:
                of = counts.sum(axis=0) + counts.sum(axis=1)
                right = order.sum(axis=0) + order.sum(axis=1)
                share[rows] = np.divide(of - right, of, out=np.full(len(rows), np.nan), where=of > 0)
            shares.append(share)
        known = ~np.isnan(shares)
        total = np.nansum(shares, axis=0)
        return np.divide(total, known.sum(axis=0), out=np.full(len(total), np.nan), where=known.any(axis=0))
