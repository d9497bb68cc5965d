"""Operating points: the threshold is chosen before the test patients are seen, and kept with a model for `predict`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from coverslip.base.errors import SettingsError, TableError
from coverslip.eval.interval import Interval
from coverslip.eval.proportion import share_of

Rule = Literal["youden", "sensitivity", "specificity"]

FORMAT = "coverslip.operating_point/1"


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold chosen before the test patients were seen: a score from it upwards is called positive.

    `sensitivity` and `specificity` are those on the patients it was chosen on, and flatter it.
    """

    rule: Rule
    aim: float | None
    threshold: float
    sensitivity: float
    specificity: float
    n: int

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **vars(self)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> OperatingPoint:
        """
        Raises:
            TableError: not an operating point of a format that is known.
        """
        if found.get("format") != FORMAT:
            raise TableError(f"An operating point of format {found.get('format')!r}.", fix=f"Accepted: {FORMAT!r}.")
        return cls(**{name: found[name] for name in cls.__dataclass_fields__})

    def measured(
        self, positive: Bool[ndarray, n], score: Float[ndarray, n], patient: ndarray | None = None
    ) -> dict[str, Interval]:
        """What the threshold does to other patients: proportions with Wilson's intervals.

        sensitivity, specificity, and the predictive values at the prevalence of these patients. `patient` names the
        patient of each row where rows are slides: as many patients count as the slides amount to. None: one row each.
        """
        positive, called = np.asarray(positive, dtype=bool), np.asarray(score) >= self.threshold
        patient = np.arange(len(positive)) if patient is None else np.asarray(patient)
        pairs = {
            "sensitivity": (positive & called, positive),
            "specificity": (~positive & ~called, ~positive),
            "ppv": (positive & called, called),
            "npv": (~positive & ~called, ~called),
        }
        return {name: share_of(hits, of, patient) for name, (hits, of) in pairs.items()}


def operating_point(
    positive: Bool[ndarray, n], score: Float[ndarray, n], rule: Rule = "youden", aim: float | None = None
) -> OperatingPoint | None:
    """The threshold that the rule picks on these patients, midway between two scores; None without both classes.

    youden: the most sensitivity + specificity. sensitivity: the highest threshold that reaches `aim`. specificity: the
    lowest one that does. Ties go to the threshold in the middle of the ROC curve, the most balanced.

    Raises:
        SettingsError: an aim outside 0 to 1, or missing where the rule needs one.
    """
    if rule != "youden" and (aim is None or not 0 < aim <= 1):
        raise SettingsError(f"The operating point of fixed {rule} aims at {aim}.", fix="Give an aim over 0, at most 1.")
    positive, score = np.asarray(positive, dtype=bool), np.asarray(score, dtype=np.float64)
    if positive.all() or not positive.any():
        return None
    distinct = np.unique(score)
    # From "everyone is called" to "no one is": below the lowest score, between two, above the highest.
    thresholds = np.concatenate(
        [[distinct[0]], (distinct[:-1] + distinct[1:]) / 2, [np.nextafter(distinct[-1], np.inf)]]
    )
    hit = 1 - np.searchsorted(np.sort(score[positive]), thresholds) / positive.sum()
    quiet = np.searchsorted(np.sort(score[~positive]), thresholds) / (~positive).sum()
    if rule == "youden":
        gain = hit + quiet
        best = np.flatnonzero(gain >= gain.max() - 1e-12)
        at = best[np.argmin(np.abs(hit[best] - quiet[best]))]
    elif rule == "sensitivity":
        assert aim is not None
        at = np.flatnonzero(hit >= aim - 1e-12)[-1]
    else:
        assert aim is not None
        at = np.flatnonzero(quiet >= aim - 1e-12)[0]
    aimed = aim if rule != "youden" else None
    return OperatingPoint(rule, aimed, float(thresholds[at]), float(hit[at]), float(quiet[at]), len(score))
