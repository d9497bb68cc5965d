"""What `coverslip predict` says of new patients: a line a subject, and for what is not there the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

_NAMES = {"covariates": "covariates", "tissue_covariates": "with tissue"}


def show_answers(console: Console, said: Mapping[str, Any], no_metrics: str = "") -> None:
    """The content of answers.json in a few lines: corrections, thresholds, sets, likeness and covariates."""
    lines = [*_lines(said), *([("metrics", f"none: {no_metrics}")] if no_metrics else [])]
    models = "1 model" if said["models"] == 1 else f"the mean of {said['models']} models"
    units = f"{said['units']} {said['level']}{'' if said['units'] == 1 else 's'}"
    console.print(Text(f"answers for {units} by {models}", "bold"), soft_wrap=True)
    for name, text in lines:
        console.print(f"  {name:<13}  {text}".rstrip(), soft_wrap=True)


def _lines(said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "recalibration", _recalibration(said["recalibration"])
    yield from _thresholds(said["operating_points"])
    yield "sets", _sets(said["sets"])
    yield "likeness", _likeness(said["unlike"])
    if said["covariates"]:
        yield from _covariates(said["covariates"])


def _recalibration(told: Mapping[str, Any]) -> str:
    if not told["methods"]:
        return f"none: {told['reason']}"
    return _in_full({of: " and ".join(dict.fromkeys(methods)) for of, methods in told["methods"].items()}) + (
        f" ({told['reason']})" if told["reason"] else ""
    )


def _in_full(of: Mapping[str, str]) -> str:
    """ "a: platt; b: none"; one name alone is not told."""
    return next(iter(of.values())) if len(of) == 1 else "; ".join(f"{name}: {text}" for name, text in of.items())


def _thresholds(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    points = [point for point in told["points"] if point["rule"] == told["decides"]]
    if not points:
        yield "threshold", str(told["reason"])
    for point in points:
        aim = f" {point['aim']:g}" if point["aim"] is not None else ""
        rates = "; ".join(f"{name} {_figure(point[name])}" for name in ("sensitivity", "specificity"))
        measured = rates if point["sensitivity"]["value"] is not None else "not measured here"
        yield "threshold", f"{point['of']} from {point['threshold']:.3f} ({point['rule']}{aim}): {measured}"


def _sets(told: Mapping[str, Any]) -> str:
    if told["reason"]:
        return f"none: {told['reason']}"
    if "labels" in told:
        return "; ".join([told["promise"], *(f"{name}: {_about(one)}" for name, one in told["labels"].items())])
    return "; ".join(filter(None, [told["promise"], _about(told)]))


def _about(told: Mapping[str, Any]) -> str:
    """How much sets say, and how often they hold the truth here."""
    covered, parts = told["coverage"], []
    if "one_class" in told:
        parts.append(f"one class for {told['one_class']:.0%}, every class for {told['every_class']:.0%}")
    if told.get("always"):
        parts.append(f"too few patients to leave out {', '.join(told['always'])}")
    if covered["value"] is not None:
        parts.append(f"here they hold the truth for {_figure(covered)}")
    return "; ".join(parts)


def _likeness(told: Mapping[str, Any]) -> str:
    if told["reason"]:
        return f"none: {told['reason']}"
    alarms = told["false_alarms"]
    usual = f"; false alarms {_figure(alarms)}" if alarms["value"] is not None else ""
    return f"{told['flagged']} of {told['of']} unlike the training slides{usual}"


def _covariates(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if told["reason"]:
        yield "covariates", f"none: {told['reason']}"
        return
    for key, name in _NAMES.items():
        figures = told.get(key) or {}
        said = "; ".join(f"{metric} {_figure(figures[metric])}" for metric in told["shown"] if metric in figures)
        yield name, said or "in answers.csv"
    for name, number in told["unseen"].items():
        yield "", f"{name}: {number} with a value that training did not have, taken as missing"


def _figure(figure: Mapping[str, Any]) -> str:
    """ "0.92 (0.82 to 0.98)"."""
    if figure["value"] is None:
        return "–"
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.2f} (no interval)"
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"
