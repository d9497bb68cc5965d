"""The control of a whole pipeline: outcomes dealt to other patients, everything run again, the figure compared.

A pipeline that finds something where nothing can be found leaks, or selects on its test patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import t as student

from coverslip.base.errors import SettingsError
from coverslip.base.random import stream
from coverslip.eval.interval import Interval
from coverslip.eval.logrank import logrank

# With 19 runs the smallest p is exactly .05; one more, and a result can be under it.
LEAST = 20
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Control:
    """A figure beside those of the same pipeline on permuted patients.

    `p` is one-sided, (1 + as good or better by chance) / (1 + permutations) (Phipson and Smyth 2010,
    https://doi.org/10.2202/1544-6115.1585). None where the figure or too many of the permuted ones do not exist.
    """

    observed: float | None
    permuted: tuple[float, ...]
    p: float | None
    undefined: int = 0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """observed, p, and the permuted figures with their mean, sd and extremes."""
        known = np.array(self.permuted)
        summary = {
            "mean": float(known.mean()) if len(known) else None,
            "sd": float(known.std(ddof=1)) if len(known) > 1 else None,
            "lowest": float(known.min()) if len(known) else None,
            "highest": float(known.max()) if len(known) else None,
        }
        said: dict[str, Any] = {"reason": self.reason} if self.reason else {}
        return {
            "observed": self.observed,
            "p": self.p,
            "permutations": len(self.permuted) + self.undefined,
            "undefined": self.undefined,
            "permuted": {**summary, "values": list(self.permuted)},
            **said,
        }


def permuted_outcomes(
    outcomes: Mapping[str, Outcome],
    num: int = LEAST,
    *,
    seed: int = 0,
    within: Mapping[str, str] | None = None,
) -> Iterator[dict[str, Outcome]]:
    """The outcomes dealt anew to the same patients, `num` times; the same for the same seed.

    A patient's outcome moves as a whole (a time with its event). `within` names a group of each patient, such as the
    site, and outcomes stay in their group: the control then keeps what the groups alone predict.

    Raises:
        SettingsError: under 20 permutations.
    """
    _enough(num)
    return (dealt(outcomes, number, seed=seed, within=within) for number in range(num))


def dealt(
    outcomes: Mapping[str, Outcome], number: int, *, seed: int = 0, within: Mapping[str, str] | None = None
) -> dict[str, Outcome]:
    """One of the permutations of `permuted_outcomes`, by its number from 0; it depends on seed and number alone."""
    groups: dict[str, list[str]] = {}
    for patient in sorted(outcomes):
        groups.setdefault("" if within is None else within[patient], []).append(patient)
    rng = stream(seed, "evaluation", "control", number)
    source: dict[str, str] = {}
    for members in groups.values():
        source |= dict(zip(members, (members[place] for place in rng.permutation(len(members)))))
    return {patient: outcomes[source[patient]] for patient in outcomes}


def control(observed: float | None, permuted: Sequence[float | None], *, lower_is_better: bool = False) -> Control:
    """The observed figure against those of at least 20 permutations; figures that do not exist are counted.

    Raises:
        SettingsError: under 20 permutations.
    """
    _enough(len(permuted))
    known = [value for value in permuted if value is not None]
    missing = len(permuted) - len(known)
    if observed is None:
        return Control(None, tuple(known), None, missing, "the figure itself cannot be computed")
    if len(known) < LEAST:
        return Control(observed, tuple(known), None, missing, f"under {LEAST} permuted runs have a figure")
    values = np.array(known)
    as_good = values <= observed if lower_is_better else values >= observed
    return Control(observed, tuple(known), float((1 + as_good.sum()) / (1 + len(known))), missing)


def permuted_logrank(
    time: Float[ndarray, n],
    event: ndarray,
    grouped: Callable[[Float[ndarray, n], ndarray], ndarray],
    num: int = LEAST,
    *,
    seed: int = 0,
) -> Control:
    """Do out-of-fold risk groups differ in survival? p by permuting the whole cross-validation.

    `grouped(time, event)` is the whole of it: it fits all folds on these outcomes and gives each patient's group. The
    usual log-rank test takes groups for given; these were made from the outcomes of other folds, which ties each
    patient's group to the others' outcomes, and it is then wrong.

    Raises:
        SettingsError: under 20 permutations.
    """
    _enough(num)
    time, event = np.asarray(time, dtype=np.float64), np.asarray(event, dtype=bool)
    observed = logrank(time, event, grouped(time, event)).statistic
    figures = []
    for number in range(num):
        order = stream(seed, "evaluation", "control", number).permutation(len(time))
        figures.append(logrank(time[order], event[order], grouped(time[order], event[order])).statistic)
    return control(observed, figures)


def null_mean(permuted: Sequence[float], *, confidence: float = 0.99) -> Interval:
    """The mean of the permuted figures, with Student's t for where it would be with very many permutations.

    A pipeline that leaks finds something in permuted outcomes too, and the whole interval lies above chance. Below it
    the mean may lie without a fault: outcomes that stand in a test fold lack in its training folds.
    """
    how = f"mean of permutations, t, {confidence:.0%}"
    values = np.asarray(permuted, dtype=np.float64)
    if len(values) < 2 or np.ptp(values) == 0:
        mean = float(values.mean()) if len(values) else None
        return Interval(mean, None, None, how, reason="permutations do not differ" if len(values) else "none is known")
    half = float(student.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(float(values.mean()), float(values.mean()) - half, float(values.mean()) + half, how)


def _enough(num: int) -> None:
    if num < LEAST:
        raise SettingsError(
            f"A control of {num} permutations.", fix=f"At least {LEAST}: with fewer no p is under 0.05."
        )
