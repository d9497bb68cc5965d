"""A paragraph that can stand in a paper, made from what the run says of itself; unknown parts are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coverslip.base.units import magnification
from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import encoder, num_folds
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import count, is_number, listing, plural

ENTRIES = {"methods": {"build": "SECTION", "summary": "A paragraph for a paper"}}

_NAMES = {
    "abmil": "attention-based multiple-instance learning (ABMIL; Ilse et al. 2018)",
    "mean": "mean pooling",
    "max": "max pooling",
}


def sentences(run: RunContents) -> list[str]:
    """The methods in sentences, in the order of the work."""
    parts = (_cohort(run), _tissue(run), _tiles(run), _encoder(run), _model(run), _fit(run), _folds(run), _figures(run))
    return [text for text in (*parts, _version(run)) if text]


def _cohort(run: RunContents) -> str:
    counts = run.metric("counts")
    if not counts:
        return ""
    classes = listing([f"{count(n)} of class {name}" for name, n in (counts.get("classes") or {}).items()])
    unit = f" ({run.level}s: {classes})" if classes else ""
    slides, patients = plural(counts.get("slides"), "whole-slide image"), plural(counts.get("patients"), "patient")
    return f"{slides} of {patients} were analysed; the target was “{run.column}”{unit}."


def _tissue(run: RunContents) -> str:
    method, mpp = run.setting("tissue", "method"), run.setting("tissue", "mpp")
    if run.check is None or not method:
        return ""  # trained from feature files: who made them knows
    return f"Tissue was segmented with the method “{method}”{f' at {mpp:g} µm/px' if is_number(mpp) else ''}."


def _tiles(run: RunContents) -> str:
    tiles = run.setting("tiles") or {}
    size, mpp, stride, least = (tiles.get(key) for key in ("size_px", "mpp", "stride_px", "min_tissue"))
    if run.check is None or not (size and is_number(mpp)):
        return ""
    overlap = "without overlap" if stride in (None, size) else f"with a stride of {stride} px"
    rule = f"; tiles with under {100 * least:.0f} % tissue were left out" if is_number(least) else ""
    scale = f"{mpp:g} µm/px (about {magnification(mpp)})"
    return f"It was cut into tiles of {size} × {size} px at {scale}, {overlap}{rule}."


def _encoder(run: RunContents) -> str:
    facts = encoder(run)
    if not facts.get("name"):
        return ""
    details = [f"{facts['dim']} numbers a tile"] if facts.get("dim") else []
    details += [f"{key} {facts[key]}" for key in ("source", "revision", "licence", "precision") if facts.get(key)]
    known = f" ({'; '.join(details)})" if details else ""
    said = f"Each tile was encoded with “{facts['name']}”{known}."
    if run.check is None and facts.get("tile_px") and is_number(facts.get("tile_mpp")):
        said += f" Features had been made from tiles of {facts['tile_px']} px at {facts['tile_mpp']:g} µm/px."
    return said


def _model(run: RunContents) -> str:
    name = run.setting("aggregator", "name")
    if not name:
        return ""
    bag = run.setting("task", "bag") or "slide"
    return f"Tiles were aggregated to one prediction a {bag} with {_NAMES.get(name, name)}."


def _fit(run: RunContents) -> str:
    fit = run.setting("fit") or {}
    if not all(is_number(fit.get(key)) for key in ("epochs", "patience", "lr", "weight_decay", "seed")):
        return ""
    scaled = (
        " Features were standardised with the mean and standard deviation of the training tiles."
        if fit.get("standardise")
        else ""
    )
    return (
        f"Models were trained with AdamW (learning rate {fit['lr']:g}, weight decay {fit['weight_decay']:g}, seed "
        f"{fit['seed']}) for at most {fit['epochs']} epochs and stopped after {fit['patience']} without a better loss "
        f"on the tuning patients.{scaled}"
    )


def _folds(run: RunContents) -> str:
    n, split = num_folds(run), run.setting("split") or {}
    if not n:
        return ""
    if split.get("file"):
        return f"Models were evaluated on {plural(n, 'fold')} made elsewhere."
    repeats = f", repeated {split['repeats']} times" if (split.get("repeats") or 1) > 1 else ""
    seed = f" (seed {split['seed']})" if "seed" in split else ""
    tune = split.get("tune")
    held = f" {100 * tune:.0f} % of a fold's training patients were held out for tuning." if is_number(tune) else ""
    folds = split.get("folds", n)
    return f"Evaluation was by {folds}-fold cross-validation{repeats}, stratified and grouped by patient{seed}.{held}"


def _figures(run: RunContents) -> str:
    if run.metrics is None:
        return ""
    resamples, name = run.setting("evaluation", "resamples"), dig(run.metrics, "baseline", "name")
    reduced = "slides of a patient were averaged first" if run.level == "patient" else "each slide counted by itself"
    said = [
        f"Figures are at {run.level} level ({reduced}): means over folds with 95 % intervals by the corrected variance "
        "of Nadeau and Bengio (2003)."
    ]
    if run.metric("pooled") and resamples:
        said.append(f"Intervals of pooled figures come from {count(resamples)} bootstrap resamples of test patients.")
    if name:
        said.append(f"The baseline ({name}, on mean and standard deviation of the features) used the same folds.")
    return " ".join(said)


def _version(run: RunContents) -> str:
    version = dig(run.environment, "coverslip")
    return f"Coverslip {version} was used." if version else ""


def _build(run: RunContents) -> dict[str, Any] | Absent:
    found = sentences(run)
    if not found:
        return Absent(
            "Too little is known of this run to describe its methods: settings.toml and metrics.json are absent."
        )
    return {"sentences": found}


SECTION = Section("methods", 100, "Methods text", Path(__file__).with_suffix(".html"), _build)
