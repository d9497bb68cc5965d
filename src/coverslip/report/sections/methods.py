"""A paragraph that can stand in a paper, made from what the run says of itself; unknown parts are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coverslip.base.units import is_mpp, magnification
from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import encoder, num_folds
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import count, listing, plural

ENTRIES = {"methods": {"build": "SECTION", "summary": "A paragraph for a paper"}}

_NAMES = {
    "abmil": "attention-based multiple-instance learning (ABMIL; Ilse et al. 2018)",
    "mean": "mean pooling",
    "max": "max pooling",
}


def sentences(run: RunContents) -> list[str]:
    """The methods in sentences, in the order of the work."""
    return [
        text
        for text in (_cohort(run), _tiles(run), _encoder(run), _model(run), _folds(run), _figures(run), _version(run))
        if text
    ]


def _cohort(run: RunContents) -> str:
    counts = run.metric("counts")
    if not counts:
        return ""
    classes = listing([f"{name}: {count(n)}" for name, n in (counts.get("classes") or {}).items()])
    unit = f"; {run.level}s by class: {classes}" if classes else ""
    return (
        f"{plural(counts.get('slides'), 'whole-slide image')} of {plural(counts.get('patients'), 'patient')} were "
        f"analysed; the target was “{run.column}”{unit}."
    )


def _tiles(run: RunContents) -> str:
    tiles, method = run.setting("tiles"), run.setting("tissue", "method")
    if not tiles or run.check is None:
        return ""
    tissue = f"Tissue was segmented with the method “{method}”" if method else "Tissue was segmented"
    if is_mpp(run.setting("tissue", "mpp")):
        tissue += f" at {run.setting('tissue', 'mpp'):g} µm/px"
    size, mpp, stride = tiles.get("size_px"), tiles.get("mpp"), tiles.get("stride_px")
    if not (size and is_mpp(mpp)):
        return tissue + "."
    overlap = "without overlap" if stride in (None, size) else f"with a stride of {stride} px"
    least = tiles.get("min_tissue")
    rule = f"; tiles with under {100 * least:.0f} % tissue were left out" if isinstance(least, (int, float)) else ""
    return f"{tissue}. It was cut into tiles of {size} × {size} px at {mpp:g} µm/px (about {magnification(mpp)}), {overlap}{rule}."


def _encoder(run: RunContents) -> str:
    facts = encoder(run)
    name = facts.get("name")
    if not name:
        return ""
    details = [
        f"{facts['dim']} numbers a tile" if facts.get("dim") else "",
        f"source {facts['source']}" if facts.get("source") else "",
        f"revision {str(facts['revision'])[:12]}" if facts.get("revision") else "",
        f"licence {facts['licence']}" if facts.get("licence") else "",
        f"precision {facts['precision']}" if facts.get("precision") else "",
    ]
    known = "; ".join(detail for detail in details if detail)
    return f"Each tile was encoded with “{name}”{f' ({known})' if known else ''}."


def _model(run: RunContents) -> str:
    name, fit = run.setting("aggregator", "name"), run.setting("fit") or {}
    if not name:
        return ""
    parts = [
        f"Tiles were aggregated to one prediction a {run.setting('task', 'bag') or 'slide'} with {_NAMES.get(name, name)}"
    ]
    if fit.get("epochs") and fit.get("lr"):
        parts.append(
            f", trained with AdamW (learning rate {fit['lr']:g}, weight decay {fit.get('weight_decay', 0):g}, at most "
            f"{fit['epochs']} epochs, early stopping on the tuning loss after {fit.get('patience', '?')} epochs without a gain, seed {fit.get('seed', '?')})"
        )
    scaled = (
        " Features were standardised with the mean and standard deviation of the training tiles."
        if fit.get("standardise")
        else ""
    )
    return "".join(parts) + "." + scaled


def _folds(run: RunContents) -> str:
    n, split = num_folds(run), run.setting("split") or {}
    if not n:
        return ""
    if split.get("file"):
        return f"Models were evaluated on {plural(n, 'fold')} made elsewhere."
    tune = split.get("tune")
    part = f" {100 * tune:.0f} % of each fold's training patients were held out for tuning." if tune else ""
    repeats = f" × {split['repeats']} repeats" if (split.get("repeats") or 1) > 1 else ""
    folds = f"{split.get('folds', n)}-fold{repeats}"
    return f"Evaluation was by {folds} cross-validation, stratified and grouped by patient (seed {split.get('seed', '?')}).{part}"


def _figures(run: RunContents) -> str:
    if run.metrics is None:
        return ""
    resamples = run.setting("evaluation", "resamples")
    pooled = (
        f" Pooled intervals come from {count(resamples)} bootstrap resamples of test patients." if resamples else ""
    )
    reduce = "slides of a patient were averaged first" if run.level == "patient" else "each slide counted by itself"
    name = dig(run.metrics, "baseline", "name")
    baseline = (
        f" The baseline ({name}, on the features' mean and standard deviation) used the same folds." if name else ""
    )
    return (
        f"Figures are at {run.level} level ({reduce}): means over folds with 95 % intervals by the corrected variance of "
        f"Nadeau and Bengio (2003).{pooled}{baseline}"
    )


def _version(run: RunContents) -> str:
    version = dig(run.environment, "versions", "coverslip") or dig(run.environment, "coverslip")
    return f"Coverslip {version} was used." if version else ""


def _build(run: RunContents) -> dict[str, Any] | Absent:
    found = sentences(run)
    if not found:
        return Absent(
            "Too little is known of this run to describe its methods: settings.toml and metrics.json are absent."
        )
    return {"sentences": found}


SECTION = Section("methods", 100, "Methods text", Path(__file__).with_suffix(".html"), _build)
