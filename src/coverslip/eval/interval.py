"""Intervals: what another draw of folds, or of test patients, would do to a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.stats import t as student

from coverslip.base.random import stream
from coverslip.eval.metrics import plain, weighted

# Resamples are worked through in blocks of about this many numbers, so that memory stays bounded.
_BLOCK = 4_000_000
# Draws that differ by rounding alone are the same.
SAME = 1e-12
# The spread of two figures has one degree of freedom: whether it is small or large is luck, and the corrected t on the
# differences of two folds calls one of ten equal procedures different at .05.
LEAST_FOLDS = 3
# Said of an interval whose folds lie closer together than so few test patients can tell.
WIDENED = "widened to the sampling of the test patients"
_FEW_FOLDS = {
    1: "one fold: there is no spread over folds",
    2: f"two folds: a spread of two figures is luck, {LEAST_FOLDS} folds or more have an interval",
}
NO_SPREAD = "every resample of these patients gives the same figure: an interval would have no width"


@dataclass(frozen=True)
class Interval:
    """A figure with its interval and how that was made; None where it cannot be computed.

    `undefined` counts resamples in which the metric could not be computed; they are left out. `reason` says why a part
    is None, or why what is there should be doubted; empty where nothing is to be said.
    """

    value: float | None
    low: float | None
    high: float | None
    how: str
    undefined: int = 0
    reason: str = ""

    @property
    def limits(self) -> tuple[float, float, float]:
        """value, low and high of an interval that has them."""
        assert self.value is not None and self.low is not None and self.high is not None, self.reason
        return self.value, self.low, self.high

    def to_json(self) -> dict[str, float | str | None]:
        """value, low, high, interval (how it was made), and reason where there is one."""
        said: dict[str, float | str | None] = {"reason": self.reason} if self.reason else {}
        return {"value": self.value, "low": self.low, "high": self.high, "interval": self.how, **said}


def nadeau_bengio(
    values: Sequence[float],
    n_train: float | Sequence[float],
    n_test: float | Sequence[float],
    *,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
    how: str | None = None,
    at_least: float = 0.0,
) -> Interval:
    """The mean over J folds and an interval that knows that folds share training patients.

    The variance of the mean is s²(1/J + n_test/n_train), with s² the folds' sample variance, and the quantile that of
    Student's t with J - 1 degrees of freedom (Nadeau and Bengio 2003, https://doi.org/10.1023/A:1024068626366). The
    plain s²/J takes the folds for independent and comes out too narrow. Sizes are of one fold, or a list of all (then
    the mean of their ratios counts). Clipped to `bounds`.

    `at_least` is half the width that the test patients' sampling has by itself (`coverslip.eval.sampling`). A variance
    of few folds may be small by luck; no interval is narrower than that, and `how` says where it was widened. Under
    `LEAST_FOLDS` folds there is no interval, nor is there of folds that are all the same where nothing is known of the
    sampling: the formula's would have no width, which no few patients can justify. No fold has no value. `reason` says
    which it is.
    """
    how = how or f"mean of folds, Nadeau-Bengio, {confidence:.0%}"
    scores = np.asarray(values, dtype=np.float64)
    assert np.isfinite(scores).all(), "folds without a figure are left out by the caller"
    if not len(scores):
        return Interval(None, None, None, how, reason="no fold has this figure")
    mean = float(scores.mean())
    if len(scores) < LEAST_FOLDS:
        return Interval(mean, None, None, how, reason=_FEW_FOLDS[len(scores)])
    if np.ptp(scores) < SAME and at_least < SAME:
        return Interval(mean, None, None, how, reason="every fold gives the same: an interval would have no width")
    ratio = float(np.mean(np.asarray(n_test, dtype=np.float64) / np.asarray(n_train, dtype=np.float64)))
    assert np.isfinite(ratio) and ratio > 0, (n_train, n_test)
    sd = float(np.sqrt(scores.var(ddof=1) * (1 / len(scores) + ratio)))
    half = float(student.ppf(0.5 + confidence / 2, df=len(scores) - 1)) * sd
    if at_least > half:
        half, how = at_least, f"{how}, {WIDENED}"
    return Interval(mean, max(bounds[0], mean - half), min(bounds[1], mean + half), how)


def patient_bootstrap(
    metric: str,
    y: Int[ndarray, n],
    p: Float[ndarray, "n k"],
    groups: Sequence[str] | ndarray,
    resamples: int = 2000,
    seed: int = 0,
    *,
    confidence: float = 0.95,
    how: str | None = None,
) -> Interval:
    """A metric with the percentile interval of resampled patients.

    `groups` (n,) names the patient of each row: all rows of a patient are drawn together. Drawn within strata of
    patients that show the same classes, so that every resample has the classes of the sample and its numbers of
    each; the interval is for a cohort of this composition. A resample in which the metric is undefined all the same
    is left out and counted. The interval speaks of these fitted models only: it does not know what other training
    patients would have changed. Where every resample gives the same figure (one patient, nothing ever wrong) there is
    no interval: it would have no width.
    """
    figure = partial(weighted, metric, y, p)
    return percentiles(figure, metric, groups, y, resamples, seed, confidence=confidence, how=how)


def percentiles(
    statistic: Callable[[Float[ndarray, "r n"]], Float[ndarray, r]],
    name: str,
    groups: Sequence[str] | ndarray,
    y: Int[ndarray, n] | None,
    resamples: int = 2000,
    seed: int = 0,
    *,
    confidence: float = 0.95,
    how: str | None = None,
) -> Interval:
    """Any figure with the percentile interval of resampled patients, as `patient_bootstrap`.

    `statistic` takes weights (r, n), how often each unit was drawn, and gives the figure of each draw, NaN where it
    cannot be computed; `name` is what reasons call it.
    """
    how = how or f"these fitted models, test patients resampled, {resamples}, {confidence:.0%}"
    value = plain(float(statistic(np.ones((1, len(groups))))[0])) if len(groups) else None
    if value is None:
        return Interval(None, None, None, how, reason=f"{name} cannot be computed on these patients")
    draws = np.concatenate([statistic(block) for block in resampled_weights(groups, y, resamples, seed)])
    known = draws[~np.isnan(draws)]
    if not len(known):
        return Interval(value, None, None, how, resamples, f"{name} cannot be computed in any resample")
    if np.ptp(known) < SAME:
        return Interval(value, None, None, how, resamples - len(known), NO_SPREAD)
    low, high = np.quantile(known, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(value, float(low), float(high), how, undefined=resamples - len(known))


def resampled_weights(
    groups: Sequence[str] | ndarray, y: Int[ndarray, n] | None, resamples: int, seed: int
) -> Iterator[Float[ndarray, "r n"]]:
    """Blocks of rows that say how often each unit was drawn; the same for the same seed, whatever the metric.

    `groups` names the patient of each unit; patients are drawn whole. With `y`, the class of each unit, patients that
    show the same classes are drawn among themselves; with None, all together, so that prevalence varies too.
    """
    rng = stream(seed, "evaluation", "bootstrap")
    patient_of, strata = strata_of(groups, y)
    num_patients = int(patient_of.max()) + 1
    rows = max(1, _BLOCK // len(patient_of))
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        counts = np.empty((size, num_patients))
        for members in strata:
            drawn = rng.integers(0, len(members), (size, len(members)))
            flat = (drawn + np.arange(size)[:, None] * len(members)).reshape(-1)
            counts[:, members] = np.bincount(flat, minlength=size * len(members)).reshape(size, len(members))
        yield counts[:, patient_of]


def strata_of(groups: Sequence[str] | ndarray, y: Int[ndarray, n] | None) -> tuple[Int[ndarray, n], list[ndarray]]:
    """The patient's number of each unit, and the patients that are drawn among themselves."""
    _, patient_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    num_patients = int(patient_of.max()) + 1
    if y is None:
        return patient_of, [np.arange(num_patients)]
    shows = np.zeros((num_patients, int(y.max()) + 1), dtype=bool)
    shows[patient_of, y] = True
    _, stratum_of = np.unique(shows, axis=0, return_inverse=True)
    stratum_of = stratum_of.reshape(-1)
    return patient_of, [np.flatnonzero(stratum_of == s) for s in range(int(stratum_of.max()) + 1)]
