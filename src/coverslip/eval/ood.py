"""Is a new slide like those the model has learnt from? A flag from slide embeddings, with its false-alarm rate.

The distance of a slide is to the nearest slides of other training patients. A slide is flagged where it lies further
out than nearly all training slides did when their own patient was left out. The flag says "unlike", not "wrong".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from coverslip.base.errors import FeatureError
from coverslip.base.random import stream
from coverslip.eval.interval import Interval
from coverslip.eval.proportion import proportion

FORMAT = "coverslip.likeness/1"
NEIGHBOURS = 5


@dataclass(frozen=True)
class Likeness:
    """What new slides are compared with; plain arrays and numbers, to be kept with a model.

    `centre` and `scale` (d,) standardise; `rows` (n, d) float32 are the standardised training slides; `patients` (n,)
    number their patients; `distances` (g,) are of the training patients, each left out in turn, sorted. A patient's
    distance is that of the furthest of its slides.
    """

    centre: Float[ndarray, d]
    scale: Float[ndarray, d]
    rows: Float[ndarray, "n d"]
    patients: ndarray
    distances: Float[ndarray, g]
    alpha: float
    false_alarms: Interval

    @property
    def threshold(self) -> float | None:
        """The distance from which a slide is flagged; None with too few training patients to set one."""
        n = len(self.distances)
        rank = int(np.ceil((n + 1) * (1 - self.alpha) - 1e-9))
        return float(self.distances[rank - 1]) if 0 < rank <= n else None

    def distance(self, embedding: Float[ndarray, "m d"]) -> Float[ndarray, m]:
        """Mean distance to the nearest training slides, in standard deviations a dimension.

        Raises:
            FeatureError: another width than the training slides', or NaN.
        """
        embedding = _checked(embedding)
        if embedding.shape[1] != len(self.centre):
            raise FeatureError(
                f"Slides of {embedding.shape[1]} features; the model has learnt from {len(self.centre)}.",
                fix="Use the encoder of the run.",
            )
        standard = (embedding - self.centre) / self.scale
        return _to_nearest(standard, self.rows.astype(np.float64), np.full(len(standard), -1), self.patients)

    def flagged(self, embedding: Float[ndarray, "m d"]) -> Bool[ndarray, m] | None:
        """True where a slide is unlike the training slides; None with too few training patients to tell."""
        return None if self.threshold is None else self.distance(embedding) > self.threshold

    def p_values(self, embedding: Float[ndarray, "m d"]) -> Float[ndarray, m]:
        """The share of training patients that lie as far out, the new slide counted among them; 1 is typical."""
        beyond = len(self.distances) - np.searchsorted(self.distances, self.distance(embedding), side="left")
        return (1 + beyond) / (1 + len(self.distances))

    def arrays(self) -> dict[str, ndarray]:
        """The arrays by name, for a file of arrays; `from_parts` takes them back."""
        return {name: getattr(self, name) for name in ("centre", "scale", "rows", "patients", "distances")}

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "alpha": self.alpha,
            "threshold": self.threshold,
            "patients": len(self.distances),
            "false_alarms": self.false_alarms.to_json(),
        }

    @classmethod
    def from_parts(cls, found: Mapping[str, Any], arrays: Mapping[str, ndarray]) -> Likeness:
        """
        Raises:
            FeatureError: not a likeness of a format that is known.
        """
        if found.get("format") != FORMAT:
            raise FeatureError(f"A likeness of format {found.get('format')!r}.", fix=f"Accepted: {FORMAT!r}.")
        alarms = found["false_alarms"]
        interval = Interval(
            alarms["value"], alarms["low"], alarms["high"], alarms["interval"], reason=alarms.get("reason", "")
        )
        kept = {name: np.asarray(arrays[name]) for name in ("centre", "scale", "rows", "patients", "distances")}
        return cls(**kept, alpha=float(found["alpha"]), false_alarms=interval)


def likeness(
    embedding: Float[ndarray, "n d"],
    patients: Sequence[str] | ndarray,
    *,
    alpha: float = 0.05,
    folds: int = 5,
    seed: int = 0,
) -> Likeness:
    """What the training slides look like, from one embedding a slide (the mean of its tiles' features).

    `alpha` is the share of like patients that may be flagged. The false-alarm rate is measured: for each of `folds`
    groups of patients, all is made from the others and the group's patients are flagged or not (Wilson's interval).

    Raises:
        FeatureError: NaN, or fewer than two patients.
    """
    embedding, patients = _checked(embedding), np.asarray(patients, dtype=str)
    _, number = np.unique(patients, return_inverse=True)
    if len(embedding) < 2 or number.max() < 1:
        raise FeatureError("Slides of one patient say nothing of what others look like.", fix="Give two patients.")
    alarms = tested = 0
    fold_of = stream(seed, "evaluation", "likeness").permutation(int(number.max()) + 1) % folds
    for f in range(folds):
        held = fold_of[number] == f
        if not held.any() or len(np.unique(number[~held])) < 2:
            continue
        others = _learnt(embedding[~held], number[~held], alpha)
        raised = others.flagged(embedding[held])
        if raised is None:
            continue
        alarms += len(np.unique(number[held][raised]))
        tested += len(np.unique(number[held]))
    found = _learnt(embedding, number, alpha)
    return replace(found, false_alarms=proportion(alarms, tested))


def _learnt(embedding: ndarray, number: ndarray, alpha: float) -> Likeness:
    centre, spread = embedding.mean(axis=0), embedding.std(axis=0)
    # A feature that never varies in training must not decide alone.
    scale = np.where(spread > 1e-9 * np.maximum(1.0, np.abs(centre)), spread, max(float(np.median(spread)), 1e-9))
    rows = ((embedding - centre) / scale).astype(np.float32)
    patients, number = np.unique(number, return_inverse=True)
    alone = _to_nearest(rows.astype(np.float64), rows.astype(np.float64), number, number)
    furthest = np.zeros(len(patients))
    np.maximum.at(furthest, number, alone)
    unknown = Interval(None, None, None, "Wilson, 95%", reason="not measured")
    return Likeness(centre, scale, rows, number, np.sort(furthest), alpha, unknown)


def _to_nearest(rows: ndarray, training: ndarray, own: ndarray, patients: ndarray) -> Float[ndarray, m]:
    """Mean distance of each row to its nearest training slides of other patients, per root of a dimension."""
    squares = (rows**2).sum(axis=1)[:, None] + (training**2).sum(axis=1) - 2 * rows @ training.T
    distance = np.sqrt(np.maximum(squares, 0) / rows.shape[1])
    distance[own[:, None] == patients] = np.inf
    nearest = np.sort(distance, axis=1)[:, :NEIGHBOURS]
    there = np.isfinite(nearest)
    return np.where(there, nearest, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)


def _checked(embedding: ndarray) -> Float[ndarray, "n d"]:
    embedding = np.asarray(embedding, dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(embedding).all(axis=1))
    if len(wrong):
        raise FeatureError(
            f"Slide embeddings, row {wrong[0]}: NaN or infinite; {len(wrong)} of {len(embedding)} rows.",
            fix="Embed the slide again.",
        )
    return embedding
