"""How the report says numbers, metrics and codes. Every number is written in one way, everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

ABSENT = "–"


@dataclass(frozen=True)
class MetricName:
    """A metric as people call it, what it means in a line, and which way is better."""

    label: str
    meaning: str
    better: str = "higher"


METRICS: dict[str, MetricName] = {
    "auroc": MetricName("AUROC", "chance that a positive case is ranked above a negative one; 0.5 is guessing"),
    "auprc": MetricName("AUPRC", "average precision; guessing gives the prevalence"),
    "balanced_accuracy": MetricName("Balanced accuracy", "mean recall of the classes; 0.5 is guessing for two"),
    "f1": MetricName("F1", "harmonic mean of precision and recall of the positive class"),
    "accuracy": MetricName("Accuracy", "fraction decided right; compare with the largest class"),
    "brier": MetricName("Brier score", "mean squared error of the probabilities", "lower"),
    "ece": MetricName("Calibration error (ECE)", "mean gap between stated and observed frequency", "lower"),
    "r2": MetricName("R²", "share of the variance that is told; 0 for the mean, below for worse"),
    "mae": MetricName("Mean absolute error", "in the units of the target, for levels in levels", "lower"),
    "rmse": MetricName("Root mean squared error", "in the units of the target", "lower"),
    "spearman": MetricName("Spearman correlation", "of ranks; 0 is guessing"),
    "pearson": MetricName("Pearson correlation", "linear; 0 is guessing"),
    "quadratic_kappa": MetricName("Quadratic kappa", "agreement beyond chance, far misses count more; 0 is guessing"),
    "within_one": MetricName("Within one level", "fraction decided right or one level off"),
    "concordance": MetricName("Pairs in the right order", "of patients whose order is known; 0.5 is guessing"),
    "c_index": MetricName("C-index", "chance that the patient with the earlier event is ranked at higher risk"),
    "uno_c_index": MetricName("Uno's C-index", "the same, corrected for who was censored"),
    "auroc_time": MetricName("Time-dependent AUROC", "event by a time against free of it, averaged over times"),
    "ibs": MetricName("Integrated Brier score", "squared error of the survival curves over time", "lower"),
}

# Short names of preflight codes; a code that is not here is shown as it is.
CODES: dict[str, str] = {
    "unreadable": "cannot be opened",
    "truncated": "file is cut short",
    "decode_failed": "pixels cannot be decoded",
    "mpp_missing": "no scale",
    "mpp_implausible": "implausible scale",
    "mpp_conflict": "contradictory scale",
    "mpp_suspect": "scale that the nuclei contradict",
    "not_brightfield": "not brightfield",
    "no_tissue": "no tissue",
    "label_image_present": "holds a label image",
    "duplicate_of": "exact duplicate",
    "near_duplicate_of": "near duplicate",
    "extra_axes": "extra axes (Z, T, channels)",
    "no_pyramid": "no pyramid",
    "colour_tag_conflict": "wrong colour tag",
    "readers_differ": "readers differ",
}


def number(value: Any, digits: int = 2) -> str:
    """A number with so many decimals and a true minus sign; a dash where it is null."""
    if not is_number(value):
        return ABSENT
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def p_value(value: Any, digits: int = 3) -> str:
    """ "p 0.012"; "p < 0.001" where so many decimals would show 0, which no p is; "p –" where it is null."""
    if is_number(value) and value < 10.0**-digits:
        return f"p < {10.0**-digits:.{digits}f}"
    return f"p {number(value, digits)}"


def score(value: Any) -> str:
    """A tile's score with two digits that say something, since scores of maps may be very small."""
    if not is_number(value):
        return ABSENT
    text = f"{value:.2g}"
    return ("0" if float(text) == 0 else text).replace("-", "−")


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands; a dash where it is null."""
    if not is_number(value):
        return ABSENT
    return f"{round(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def percent(part: Any, whole: Any) -> str:
    """`part` of `whole` in per cent, without decimals."""
    if not (is_number(part) and is_number(whole) and whole):
        return ABSENT
    return f"{100 * part / whole:.0f}\N{NARROW NO-BREAK SPACE}%"


def span(figure: Any, digits: int = 2) -> str:
    """ "0.80 to 0.98" of a figure with low and high; a dash where either is null."""
    if not has_interval(figure):
        return ABSENT
    return f"{number(figure['low'], digits)} to {number(figure['high'], digits)}"


def has_interval(figure: Any) -> TypeGuard[Mapping[str, float]]:
    """True for a mapping with low and high that are numbers."""
    return isinstance(figure, Mapping) and is_number(figure.get("low")) and is_number(figure.get("high"))


def is_number(value: Any) -> TypeGuard[float]:
    """True for a finite number (no bool)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def seconds(value: Any) -> str:
    """A duration as people say it: 42 s, 3 min, 2 h 5 min."""
    if not is_number(value):
        return ABSENT
    if value < 100:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def plural(n: Any, one: str, many: str | None = None) -> str:
    """ "1 patient", "3 patients"."""
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


def listing(items: list[str], most: int = 0) -> str:
    """ "a, b and c"; with `most`, the first ones and how many more."""
    if most and len(items) > most:
        return ", ".join(items[:most]) + f" and {len(items) - most} more"
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def metric_label(name: str) -> str:
    """The name of a figure for people; one of a single class, label, cause or level says which: "C-index, cancer"."""
    if name in METRICS:
        return METRICS[name].label
    base = max((one for one in METRICS if name.startswith(f"{one}_")), key=len, default=None)
    return (
        name.replace("_", " ") if base is None else f"{METRICS[base].label}, {name[len(base) + 1 :].replace('_', ' ')}"
    )


def code_label(code: str) -> str:
    return CODES.get(code, code.replace("_", " "))
