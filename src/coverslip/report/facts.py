"""What several sections ask of a run: its classes, its encoder, what each slide was decided to be, what was lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coverslip.report.contents import Json, RunContents, dig
from coverslip.report.wording import is_number


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
    """One result a slide: the mean probabilities of the folds that tested it; a tie goes to the class named first."""
    frame, classes = run.predictions, run.classes
    columns = [f"p_{name}" for name in classes]
    if frame is None or not classes or not {run.column, *columns} <= set(frame.columns):
        return {}
    results = {}
    for slide, rows in frame.groupby("slide", sort=True):
        means = rows[columns].mean()
        if means.isna().any():
            continue
        p = {name: float(means[column]) for name, column in zip(classes, columns)}
        decided = max(classes, key=lambda name: p[name])
        folds = ", ".join(map(str, sorted(set(rows["fold"]))))
        first = rows.iloc[0]
        results[str(slide)] = SlideResult(
            str(slide), str(first["patient"]), str(first[run.column]).strip(), decided, p, folds
        )
    return results


def class_of_patient(run: RunContents) -> dict[str, str]:
    """The class of each tested patient; patients with slides of several classes are "mixed"."""
    frame = run.predictions
    if frame is None or run.column not in frame.columns:
        return {}
    found: dict[str, set[str]] = {}
    for patient, label in zip(frame["patient"], frame[run.column]):
        found.setdefault(str(patient), set()).add(str(label).strip())
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
