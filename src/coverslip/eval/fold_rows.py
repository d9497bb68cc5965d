"""Out-of-fold rows, what they are ranked by, and the figure of any part of them with its interval.

One function for the table of sites, the subgroups and the figure within sites, so that one number has one interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from coverslip.eval.auroc_interval import Placements, newcombe_of_pairs, stretch_over
from coverslip.eval.concordance import Contrast
from coverslip.eval.interval import Interval
from coverslip.eval.mean_interval import correlations, mean_limits
from coverslip.eval.proportion import effective_patients
from coverslip.eval.truth import Task

# Patients of the scarcest sign, in a group and among all others, under which nothing is claimed.
LEAST_EVENTS = 10
# Numbers are shuffled and resampled within this many groups of like size.
_PARTS = 4


@dataclass(frozen=True)
class FoldRows:
    """Out-of-fold rows, one a unit (patient or slide) and fold.

    `unit` and `patient` name them, `fold` numbers the fold over all repeats, `group` (n,) is what is shuffled and
    resampled within: the class, the event, all labels together. `names` are the signs that are counted; `shows` (n, s)
    says which of them a row shows, each its own group where it is None. `needed` are the signs of which a part needs
    ten patients; empty: ten patients. `ordered` says that signs are levels, of which any may be rare: then ten patients
    must be outside the commonest level, since with fewer the order of pairs hangs on them.
    """

    unit: Sequence[str] | ndarray
    patient: Sequence[str] | ndarray
    fold: Int[ndarray, n]
    group: Int[ndarray, n]
    names: tuple[str, ...]
    needed: tuple[int, ...]
    contrasts: tuple[Contrast, ...]
    metric: str = "auroc"
    shows: Bool[ndarray, "n s"] | None = None
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.fold)

    def only(self, which: Bool[ndarray, n]) -> FoldRows:
        def cut(c: Contrast) -> Contrast:
            return Contrast(c.score[which], c.truth[which], None if c.time is None else c.time[which])

        return replace(
            self,
            unit=np.asarray(self.unit)[which],
            patient=np.asarray(self.patient)[which],
            fold=self.fold[which],
            group=self.group[which],
            contrasts=tuple(map(cut, self.contrasts)),
            shows=None if self.shows is None else self.shows[which],
        )

    @property
    def signs(self) -> Bool[ndarray, "n s"]:
        """Which of `names` each row shows."""
        return self.group[:, None] == np.arange(len(self.names)) if self.shows is None else self.shows

    def labels(self) -> list[tuple[str, Int[ndarray, m], FoldRows]]:
        """Of several labels each: its name, the rows that know it, and these rows as those of two classes. Empty for
        other kinds."""
        if self.shows is None or not self.needed:
            return []
        found = []
        for t, contrast in enumerate(self.contrasts):
            rows = np.flatnonzero(~np.isnan(contrast.truth))
            known = self.only(np.isin(np.arange(len(self)), rows))
            one, names = known.contrasts[t], self.names[2 * t : 2 * t + 2]
            part = replace(
                known, group=one.truth.astype(np.int64), names=names, needed=(0, 1), contrasts=(one,), shows=None
            )
            found.append((names[1].removeprefix("with "), rows, part))
        return found

    def _once(self) -> Int[ndarray, u]:
        """The first row of each unit."""
        return np.unique(np.asarray(self.unit, dtype=str), return_index=True)[1]

    def counts(self) -> dict[str, int]:
        """Units of each sign, each unit once."""
        found = self.signs[self._once()].sum(axis=0)
        return {name: int(n) for name, n in zip(self.names, found)}

    @property
    def num_units(self) -> int:
        return len(set(map(str, self.unit)))

    def scarcest(self) -> tuple[int, str]:
        """How many patients there are of what is scarcest, and what that is. Units of one patient count for fewer
        patients (Kish), rounded down."""
        first = self._once()
        patient, signs = np.asarray(self.patient, dtype=str)[first], self.signs[first]
        if self.ordered:
            commonest = int(signs.sum(axis=0).argmax())
            return _patients(patient[~signs[:, commonest]]), f"not {self.names[commonest]}, the commonest level"
        if not self.needed:
            return _patients(patient), "patients"
        number, name = min((_patients(patient[signs[:, k]]), self.names[k]) for k in self.needed)
        if self.metric == "c_index":
            return number, "with the event" if name == "event" else f"with the event {name}"
        return number, name if self.shows is not None else f"of class {name}"

    @property
    def events(self) -> int:
        """Patients of the scarcest sign that is needed."""
        return self.scarcest()[0]

    def too_few(self) -> str | None:
        """Why nothing is claimed of these rows, or None."""
        number, what = self.scarcest()
        return f"too few: {number} {what}, under {LEAST_EVENTS}" if number < LEAST_EVENTS else None


def fold_rows(
    unit: ndarray, patient: ndarray, fold: Int[ndarray, n], y: Shaped[ndarray, "n ..."], p: Float[ndarray, "n k"],
    task: Task,
) -> FoldRows:  # fmt: skip
    """The rows of a task. `y` and `p` are as `coverslip.eval.truth` has them; of `p` curves over time are not needed.

    Classes are ranked one against the rest, labels each by itself where it is known, levels by their mean, numbers by
    the number, times by risk; of competing causes each is ranked among those who were spared it up to then.
    """
    classes = task.classes
    if task.kind == "multilabel":
        group = np.unique(np.nan_to_num(y, nan=2.0), axis=0, return_inverse=True)[1].reshape(-1) if len(y) else y[:, 0]
        names = tuple(sign for name in classes for sign in (f"without {name}", f"with {name}"))
        shows = np.stack([y[:, t] == sign for t in range(len(classes)) for sign in (0, 1)], axis=1)
        contrasts = [Contrast(p[:, t], y[:, t]) for t in range(len(classes))]
        return FoldRows(
            unit, patient, fold, group.astype(np.int64), names, tuple(range(len(names))), tuple(contrasts), shows=shows
        )
    if y.ndim == 2:
        time, event = y[:, 0].astype(float), y[:, 1].astype(np.int64)
        causes = classes or ("event",)
        contrasts = [Contrast(p[:, c], (event == c + 1).astype(float), time) for c in range(len(causes))]
        needed = tuple(range(1, len(causes) + 1))
        return FoldRows(unit, patient, fold, event, ("censored", *causes), needed, tuple(contrasts), "c_index")
    if task.kind == "regression":
        contrast = Contrast(p[:, 0], y.astype(float))
        # Parts of like numbers: a subgroup of low numbers is compared with draws of numbers as low.
        group = pd.qcut(y, _PARTS, labels=False, duplicates="drop") if len(y) else np.zeros(0)
        group = np.nan_to_num(np.asarray(group, dtype=float)).astype(np.int64)
        everyone = np.ones((len(y), 1), bool)
        return FoldRows(unit, patient, fold, group, ("all",), (), (contrast,), "concordance", everyone)
    y = y.astype(np.int64)
    if task.kind == "ordinal":
        contrast = Contrast(p @ np.arange(p.shape[1]), y.astype(float))
        return FoldRows(unit, patient, fold, y, classes, (), (contrast,), "concordance", ordered=True)
    ks = [1] if len(classes) == 2 else range(len(classes))
    contrasts = [Contrast(p[:, k], (y == k).astype(float)) for k in ks]
    return FoldRows(unit, patient, fold, y, classes, tuple(range(len(classes))), tuple(contrasts))


def concordance_interval(
    tested: FoldRows, strata: Int[ndarray, n] | None = None, *, confidence: float = 0.95
) -> Interval:
    """The share of pairs within a fold that are in the right order, with an interval for other patients, same models.

    Newcombe's method 5 on the pairs that there are, widened where the placements of the patients scatter more (DeLong's
    variance, each patient's rows together, with Student's quantile): within folds what `auroc_interval` is in a fixed
    cohort, and for times, levels and numbers the same on their pairs. `strata` (n,) says among whom pairs are made; the
    fold where it is None. Several contrasts: the mean, with their limits combined (`mean_limits`). None without a pair.
    It does not resample, so it is the same wherever it is asked.
    """
    among = tested.fold if strata is None else strata
    within = ", pairs within folds" if len(np.unique(tested.fold)) > 1 else ""
    how = f"these fitted models{within}, Newcombe's method 5, {confidence:.0%}"
    found = [_placements(contrast, tested.patient, among) for contrast in tested.contrasts] if len(tested) else []
    if not found or any(one is None for one in found):
        return Interval(None, None, None, how, reason="no pair within a fold to compare")
    limits, moves, widened = [], [], False
    for one in found:
        assert one is not None
        placed, pairs, shared = one
        stretch = stretch_over(placed, pairs, shared, confidence)
        widened |= stretch > 1
        limits.append((placed.auroc, *newcombe_of_pairs(placed.auroc, pairs, shared, confidence, stretch)))
        moves.append(placed.positive + placed.negative)
    value, low, high = mean_limits(limits, correlations(moves))
    if widened:
        how = how.replace("method 5", "method 5 widened to DeLong's variance")
    return Interval(value, low, high, how if len(found) == 1 else f"{how}, limits of {len(found)} combined")


def _placements(
    contrast: Contrast, patient: Sequence[str] | ndarray, strata: Int[ndarray, n]
) -> tuple[Placements, float, float] | None:
    """What each patient adds as the one who should stand above and as the one below, and how many pairs of patients
    there are: as if all weighed the same (Kish), and how many others the pairs of a patient share on average."""
    names, of = np.unique(np.asarray(patient, dtype=str), return_inverse=True)
    weight = np.zeros((len(names), len(names)), dtype=np.float32)
    right = np.zeros_like(weight)
    for s in np.unique(strata):
        rows = np.flatnonzero(strata == s)
        order, counts = contrast.pairs(rows)
        at = np.ix_(of[rows], of[rows])
        np.add.at(weight, at, counts)
        np.add.at(right, at, order)
    total = float(weight.sum(dtype=np.float64))
    if total == 0:
        return None
    value = float(right.sum(dtype=np.float64)) / total
    apart = (right - np.float32(value) * weight).astype(np.float64) / total
    above, below = weight.sum(axis=1, dtype=np.float64), weight.sum(axis=0, dtype=np.float64)
    squares = float((weight.astype(np.float64) ** 2).sum())
    counted = int((above > 0).sum()), int((below > 0).sum())
    many = float(above.sum() ** 2 / (above**2).sum()), float(below.sum() ** 2 / (below**2).sum())
    placed = Placements(value, apart.sum(axis=1), apart.sum(axis=0), counted, many)
    shared = float(((above + below) ** 2).sum()) / (2 * squares) - 1
    return placed, total**2 / squares, shared


def _patients(patient: ndarray) -> int:
    return int(effective_patients(patient) + 1e-9)
