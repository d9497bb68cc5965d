"""What several sections ask of a run: its classes, its encoder, what each slide was decided to be, what was lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pandas as pd

from coverslip.report.contents import Json, RunContents, dig
from coverslip.report.wording import count, is_number, number, plural


@dataclass(frozen=True)
class SlideResult:
    """What the models that had not seen a slide's patient said about it."""

    slide: str
    patient: str
    true: str
    decided: str
    probabilities: Mapping[str, float]
    fold: str

    @property
    def right(self) -> bool:
        return self.true == self.decided

    @property
    def confidence(self) -> float:
        """Probability of the class that was decided."""
        return self.probabilities[self.decided]


def slide_results(run: RunContents) -> dict[str, SlideResult]:
    """One result a slide: the mean probabilities of the folds that tested it. The likeliest class is decided, of levels
    the median; a tie goes to the one named first. Labels, numbers and times have `slide_values`."""
    frame, classes = run.predictions, run.classes
    columns = [f"p_{name}" for name in classes]
    if frame is None or not classes or not {run.column, *columns} <= set(frame.columns) or kind(run) == "multilabel":
        return {}
    results = {}
    for slide, rows in frame.groupby("slide", sort=True):
        means = rows[columns].mean()
        if means.isna().any():
            continue
        p = {name: float(means[column]) for name, column in zip(classes, columns)}
        decided = max(classes, key=lambda name: p[name])
        if kind(run) == "ordinal":
            decided = next(name for name, upto in zip(classes, accumulate(p.values())) if upto >= 0.5 - 1e-12)
        first = rows.iloc[0]
        results[str(slide)] = SlideResult(
            str(slide), str(first["patient"]), str(first[run.column]).strip(), decided, p, _folds_of(rows)
        )
    return results


@dataclass(frozen=True)
class SlideValue:
    """What was true of a slide and what was predicted, in words, where nothing is decided; `order` ranks slides by the
    first thing that is predicted."""

    slide: str
    patient: str
    true: str
    predicted: str
    order: float
    fold: str


def slide_values(run: RunContents) -> dict[str, SlideValue]:
    """One value a slide, for labels, numbers and times: the mean over the folds that tested it."""
    frame, task = run.predictions, run.metric("task") or {}
    known = [str(name) for name in task.get("columns") or [run.column]]
    names = {
        "regression": ["value"],
        "multilabel": [f"p_{name}" for name in run.classes],
        "competing_risks": [f"risk_{name}" for name in run.classes],
    }.get(kind(run), ["risk"] if kind(run).startswith("survival") else [])
    if frame is None or not names or not {*known, *names} <= set(frame.columns):
        return {}
    found = {}
    for slide, rows in frame.groupby("slide", sort=True):
        means, first = rows[names].mean(), rows.iloc[0]
        if means.isna().any():
            continue
        said = ", ".join(f"{name.removeprefix('p_').replace('_', ' ')} {number(means[name])}" for name in names)
        true = _true(kind(run), {name: first[name] for name in known})
        patient = str(first["patient"])
        found[str(slide)] = SlideValue(str(slide), patient, true, said, float(means[names[0]]), _folds_of(rows))
    return found


def _true(of: str, values: Mapping[str, Any]) -> str:
    """What is known of a slide in words."""
    if of == "multilabel":
        words = {"0": "no {}", "1": "{}"}
        return ", ".join(words.get(_plain(value), "{} unknown").format(name) for name, value in values.items())
    if of == "regression":
        return _plain(next(iter(values.values())))
    time, event = (_plain(value) for value in values.values())
    return f"no event up to {time}" if event == "0" else f"event at {time}" if event == "1" else f"{event} at {time}"


def _plain(value: Any) -> str:
    """A cell as text; whole numbers without a point, since a column with a hole holds them as fractions."""
    number_of = value if isinstance(value, str) else f"{value:g}" if is_number(value) else str(value)
    return number_of.strip()


def _folds_of(rows: pd.DataFrame) -> str:
    return ", ".join(map(str, sorted(set(rows["fold"]))))


def kind(run: RunContents) -> str:
    """The kind of the run's task; older metrics.json do not say it and are of classes."""
    return str(run.metric("task", "kind") or "classification")


def parts(counts: Mapping[str, Any]) -> Mapping[str, int]:
    """What an entry of metrics.json or evaluation.json counts beside its units: classes, or events and censorings."""
    return next((counts[key] for key in ("classes", "events") if isinstance(counts.get(key), Mapping)), {})


def said_parts(counts: Mapping[str, Any]) -> list[str]:
    """Those counts in words: "40 of class yes", "117 events", "3 cancer", "60 censored"."""
    classes = counts.get("classes")
    if isinstance(classes, Mapping):
        return [f"{count(n)} of class {name}" for name, n in classes.items()]
    return [plural(n, name) if name == "event" else f"{count(n)} {name}" for name, n in parts(counts).items()]


def class_of_patient(run: RunContents) -> dict[str, str]:
    """The class of each tested patient, of times what ended theirs: event, censored, or the cause; patients with slides
    of several classes are "mixed". Empty where the task has neither."""
    frame, column = run.predictions, run.column
    timed = kind(run).startswith("survival") or kind(run) == "competing_risks"
    if timed:
        column = str((run.metric("task", "columns") or [column])[-1])
    if frame is None or column not in frame.columns or not (timed or run.classes):
        return {}
    found: dict[str, set[str]] = {}
    for patient, label in zip(frame["patient"], frame[column]):
        name = _plain(label)
        if timed:
            name = {"0": "censored", "1": "event"}.get(name, name) if not run.classes else name
            name = "censored" if name == "0" else name
        found.setdefault(str(patient), set()).add(name)
    return {patient: labels.pop() if len(labels) == 1 else "mixed" for patient, labels in found.items()}


def encoder(run: RunContents) -> Json:
    """What is known of the encoder: name, dim, licence, source, revision, precision, tile_px, tile_mpp.

    The models and the environment hold the identity that came with the features; the settings know a name at most.
    """
    for card in (*(dig(model.facts, "origin") for model in run.models), dig(run.environment, "encoder")):
        if isinstance(card, Mapping):
            attributes = dig(card, "attributes") or {}
            facts = {str(key).removeprefix("encoder_"): value for key, value in attributes.items()}
            return {**facts, "name": card.get("encoder"), "dim": card.get("dim"), "licence": card.get("licence")}
    name = run.setting("encoder", "name")
    return {"name": name} if name and run.check is not None else {}


def findings(run: RunContents) -> dict[str, list[tuple[str, Json]]]:
    """Preflight findings by code: (slide, reason) pairs, codes of failed slides first."""
    found: dict[str, list[tuple[str, Json]]] = {}
    entries = sorted(checked_slides(run), key=lambda entry: (entry.get("verdict") != "fail", str(entry.get("slide"))))
    for entry in entries:
        for reason in reasons(entry):
            found.setdefault(str(reason.get("code", "")), []).append((str(entry.get("slide")), reason))
    return found


def checked_slides(run: RunContents) -> list[Json]:
    """The slides of check.json."""
    return [entry for entry in dig(run.check, "slides") or [] if isinstance(entry, dict)]


def reasons(entry: Json) -> list[Json]:
    """The findings of one checked slide."""
    return [reason for reason in entry.get("reasons") or [] if isinstance(reason, dict)]


def failed(run: RunContents) -> dict[str, tuple[str, str]]:
    """Slides that ended in failure: the stage and the reason."""
    if run.outcomes is None:
        return {}
    rows = run.outcomes[run.outcomes["status"] == "failed"]
    return {
        str(slide): (str(stage), str(why)) for slide, stage, why in zip(rows["slide"], rows["stage"], rows["reason"])
    }


def damaged_tiles(run: RunContents) -> dict[str, int]:
    """Damaged tiles that were left out (tiles.on_bad = "skip"), by slide."""
    found: dict[str, int] = {}
    for one in run.embedding:
        by_slide = dig(one, "skipped", "by_slide") or {}
        found |= {str(slide): int(n) for slide, n in by_slide.items() if is_number(n)}
    return found


def leaks(run: RunContents) -> list[Json]:
    """Patients on both sides of a fold, as split.json names them."""
    found = dig(run.split, "leaks") or []
    return [leak if isinstance(leak, dict) else {"patient": str(leak)} for leak in found]


def excluded(run: RunContents) -> list[tuple[str, str]]:
    """Slides of the table that were left out without having failed: each with the reason."""
    found = [one for one in dig(run.cohort, "exclusions") or [] if isinstance(one, Mapping)]
    return [(str(one.get("slide", "")), str(one.get("reason", ""))) for one in found]


def num_folds(run: RunContents) -> int | None:
    """How many folds were evaluated."""
    folds = run.metric("folds") or dig(run.split, "folds") or []
    return len(folds) or None


def fold_values(run: RunContents, metric: str) -> list[float]:
    """The metric of each fold in which it could be computed."""
    return [fold[metric] for fold in run.metric("folds") or [] if is_number(dig(fold, metric))]


def mean_of(run: RunContents, what: str) -> Any:
    """A figure of `primary`, a mapping with value, low, high and interval, or None."""
    figure = run.metric("primary", what)
    return figure if isinstance(figure, Mapping) else None
