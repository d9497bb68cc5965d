"""Paragraphs that can stand in a paper, made from what the run says of itself; unknown parts are left out.

Each sentence has a topic, so that the reporting checklists can ask whether it is really there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverslip.base.errors import SettingsError
from coverslip.base.registry import AGGREGATORS
from coverslip.base.units import magnification
from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import encoder, kind, num_folds, parts
from coverslip.report.sections import Absent, Section
from coverslip.report.sections.thresholds import corrections
from coverslip.report.wording import count, is_number, listing, p_value, plural

ENTRIES = {"methods": {"build": "SECTION", "summary": "A paragraph for a paper"}}

# Kinds whose loss weighs classes, and whose probabilities can be recalibrated.
_WITH_CLASSES = ("classification", "ordinal", "multilabel")
_OUTPUTS = {
    "classification": "a probability of each class, of which the likeliest is decided",
    "ordinal": "a probability of each level, of which the median is decided",
    "multilabel": "a probability of each label",
    "regression": "a number",
    "competing_risks": "a risk and the cumulative incidence of each cause",
}


def told(run: RunContents) -> dict[str, str]:
    """The methods by topic, in the order of the work; a topic of which nothing is known is left out."""
    found = {
        "cohort": _cohort(run),
        "tissue": _tissue(run),
        "tiles": _tiles(run),
        "encoder": _encoder(run),
        "features": _features(run),
        "scaling": _scaling(run),
        "model": _model(run),
        "outputs": _outputs(run),
        "start": _start(run),
        "training": _training(run),
        "stopping": _stopping(run),
        "imbalance": _imbalance(run),
        "folds": _folds(run),
        "tuning": _tuning(run),
        "inner": _inner(run),
        "recalibration": _recalibration(run),
        "covariates": _covariates(run),
        "new cases": _new_cases(run),
        "figures": _figures(run),
        "survival": _survival(run),
        "subgroups": _subgroups(run),
        "audits": _audits(run),
        "control": _control(run),
        "version": _version(run),
    }
    return {topic: text for topic, text in found.items() if text}


def sentences(run: RunContents) -> list[str]:
    """The methods in sentences, in the order of the work."""
    return list(told(run).values())


def _cohort(run: RunContents) -> str:
    counts = run.metric("counts")
    if not counts:
        return ""
    classes = "classes" in counts
    known = listing(
        [f"{count(n)} {f'of class {name}' if classes else _ended(name)}" for name, n in parts(counts).items()]
    )
    unit = f" ({run.level}s: {known})" if known else ""
    slides, patients = plural(counts.get("slides"), "whole-slide image"), plural(counts.get("patients"), "patient")
    return f"{slides} of {patients} were analysed; the target was “{run.column}”{unit}."


def _ended(name: str) -> str:
    """What ended the time of patients, in words."""
    return {"event": "with the event", "censored": "censored"}.get(name, f"with {name}")


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


def _features(run: RunContents) -> str:
    """What is to be said where the features came without the name of their encoder."""
    facts = encoder(run)
    if facts.get("name") or not facts.get("dim"):
        return ""
    return f"Training began from feature files with {facts['dim']} numbers a tile, which do not name their encoder."


def _fit(run: RunContents) -> Mapping[str, Any]:
    """How models were trained: as the first model says, where what was left open is resolved, else the settings."""
    resolved = [s for model in run.models if isinstance(s := dig(model.facts, "training", "settings"), Mapping)]
    return {**(run.setting("fit") or {}), **(resolved[0] if resolved else {})}


def _scaling(run: RunContents) -> str:
    standardise = _fit(run).get("standardise")
    if standardise is None:
        return ""
    if not standardise:
        return "Features were used as they came, without scaling."
    return "Features were standardised with the mean and standard deviation of the training tiles of each fold."


def _model(run: RunContents) -> str:
    name = run.setting("aggregator", "name")
    if not name:
        return ""
    bag = run.setting("task", "bag") or "slide"
    try:
        entry = AGGREGATORS.entry(name)
        known = f" ({'; '.join(filter(None, [entry.summary, entry.origin]))})"
    except SettingsError:
        known = ""  # a method of a package that is not installed here
    options = run.setting("aggregator", "options") or {}
    with_options = f", with {listing([f'{key} = {value}' for key, value in options.items()])}" if options else ""
    return f"Tiles were aggregated to one prediction a {bag} with the method “{name}”{known}{with_options}."


def _outputs(run: RunContents) -> str:
    of = kind(run)
    if run.metrics is None:
        return ""
    grid = run.metric("task", "grid") or []
    if of.startswith("survival"):
        times = f", at {plural(len(grid), 'time')} up to {grid[-1]:g}" if grid else ""
        return f"The model gives out a risk and a survival curve{times}."
    return f"The model gives out {_OUTPUTS[of]}." if of in _OUTPUTS else ""


def _start(run: RunContents) -> str:
    seed = _fit(run).get("seed")
    if not is_number(seed):
        return ""
    return f"Weights began at random values (seed {seed}); those of the encoder were not trained."


def _training(run: RunContents) -> str:
    fit = _fit(run)
    if not is_number(fit.get("weight_decay")):
        return ""
    tuned = set(run.setting("tune", "grid") or {})
    rate = f"learning rate {fit['lr']:.2g}" if is_number(fit.get("lr")) and "fit.lr" not in tuned else ""
    rate = "a learning rate chosen in each fold" if "fit.lr" in tuned else rate or "a learning rate by number of bags"
    batch = f", {plural(fit['batch'], 'bag')} a step" if is_number(fit.get("batch")) else ""
    schedule = f", {fit['schedule']} schedule" if fit.get("schedule") else ""
    extras = []
    if fit.get("augment") not in (None, "none"):
        extras.append(f"bags were mixed by “{fit['augment']}”")
    if fit.get("sam"):
        extras.append(f"steps were sharpness-aware (radius {fit['sam']:g})")
    if fit.get("average") not in (None, "none"):
        extras.append(f"the weights kept are averages ({fit['average']})")
    more = f"; {listing(extras)}" if extras else ""
    return f"Models were trained with AdamW ({rate}, weight decay {fit['weight_decay']:g}{schedule}{batch}){more}."


def _stopping(run: RunContents) -> str:
    """When training ended: by the tuning patients, or after a fixed number of epochs where they were too few."""
    fit = _fit(run)
    asked = run.setting("fit") or {}
    epochs, patience = asked.get("epochs", fit.get("epochs")), asked.get("patience", fit.get("patience"))
    known = [dig(model.facts, "training") for model in run.models]
    fixed = [one for one in known if isinstance(one, Mapping) and "settings" in one and one.get("best_loss") is None]
    said = ""
    if is_number(epochs) and is_number(patience) and (len(fixed) < len(known) or not known):
        said = (
            f"Training ran for at most {epochs} epochs and stopped after {patience} without a better loss on the "
            "tuning patients; the weights of the best epoch were kept."
        )
    if fixed:
        after = fixed[0]["settings"].get("epochs")
        which = "all folds" if len(fixed) == len(known) else f"{len(fixed)} of {len(known)} folds"
        said += (
            f" In {which} the tuning patients were too few to choose an epoch: they were trained on too, and training "
            f"ended after {after} epochs."
        )
    return said.strip()


def _imbalance(run: RunContents) -> str:
    fit = _fit(run)
    weights = fit.get("class_weights")
    if weights is None or run.metrics is None:
        return ""
    if kind(run) not in _WITH_CLASSES:
        return "Nothing was done about the balance of outcomes in the loss."
    how = {
        "balanced": "Classes were weighed in the loss by the inverse of their frequency among the training patients",
        "effective_number": "Classes were weighed in the loss by their effective number (Cui et al. 2019)",
        "none": "Classes were not weighed in the loss",
    }.get(str(weights), f"Classes were weighed in the loss ({weights})")
    drawn = "; bags were drawn in equal numbers of each class" if fit.get("sampling") == "balanced" else ""
    return f"{how}{drawn}."


def _folds(run: RunContents) -> str:
    n, split = num_folds(run), run.setting("split") or {}
    if not n:
        return ""
    tune = split.get("tune")
    held = f" {100 * tune:.0f} % of a fold's training patients were held out for tuning." if is_number(tune) else ""
    return f"{_design(run, n, split)}{held}"


def _design(run: RunContents, n: int, split: Mapping[str, Any]) -> str:
    source, design = str(dig(run.split, "source") or ""), split.get("design") or "patients"
    if split.get("file") or source.startswith("column "):
        return f"Models were evaluated on {plural(n, 'fold')} made elsewhere."
    repeats = f", repeated {split['repeats']} times" if (split.get("repeats") or 1) > 1 else ""
    seed = f" (seed {split['seed']})" if "seed" in split else ""
    if design == "leave_site_out":
        least = split.get("least_site")
        small = f"; sites of under {least} patients were tested together" if is_number(least) else ""
        return f"Each site was tested by a model that had seen no patient of it ({plural(n, 'fold')}{small})."
    if design == "temporal":
        by = f" by “{split['time']}”" if split.get("time") else ""
        return f"Models were trained on earlier patients and tested on later ones{by} ({plural(n, 'fold')})."
    folds = split.get("folds", n)
    if design == "site_preserved":
        whole = "sites kept whole and spread so that outcomes are as even as they allow"
        return f"Evaluation was by {folds}-fold cross-validation{repeats}, {whole}{seed}."
    return (
        f"Evaluation was by {folds}-fold cross-validation{repeats}, stratified by outcome and grouped by patient{seed}."
    )


def _tuning(run: RunContents) -> str:
    grid = run.setting("tune", "grid") or {}
    if not grid:
        return ""
    tried = 1
    for values in grid.values():
        tried *= len(values)
    return (
        f"{plural(tried, 'combination')} of {listing(list(grid))} were tried in each fold, and the best by concordance "
        f"on {run.setting('tune', 'folds')} inner folds of its training patients was taken."
    )


def _inner(run: RunContents) -> str:
    n = run.metric("inner", "folds")
    if not n:
        return ""
    return (
        f"Inside each fold, {n} inner folds of its training patients gave predictions of patients that their models "
        "had not seen, to learn from."
    )


def _recalibration(run: RunContents) -> str:
    if run.metrics is None:
        return ""
    learnt = corrections(run)
    if not learnt:
        return "Probabilities were not recalibrated." if kind(run) != "regression" else ""
    return (
        f"Recalibration was learnt on the inner predictions ({learnt} over the folds); figures are of raw "
        "probabilities, and calibration is shown before and after."
    )


def _covariates(run: RunContents) -> str:
    found = run.metric("covariates")
    if not isinstance(found, Mapping) or not found.get("names"):
        return ""
    names = listing([str(name) for name in found["names"]])
    both = (
        " and of the covariates with tissue scores, fitted on inner out-of-fold scores,"
        if isinstance(found.get("tissue_covariates"), Mapping)
        else ""
    )
    return (
        f"Linear models of {names} alone{both} used the same folds; a missing number was replaced by the training "
        "median and marked, a missing word was a value of its own."
    )


def _new_cases(run: RunContents) -> str:
    if not run.models:
        return ""
    several = len(run.models) > 1
    models = f"is the mean over the models of all {len(run.models)} folds" if several else "is that of the one model"
    corrected = ", recalibrated as its fold learnt" if corrections(run) else ""
    slides = "; slides of a patient are averaged first" if run.level == "patient" else ""
    return f"The prediction for a new {run.level} {models}{corrected}{slides}."


def _figures(run: RunContents) -> str:
    if run.metrics is None:
        return ""
    resamples, name = run.setting("evaluation", "resamples"), dig(run.metrics, "baseline", "name")
    reduced = "slides of a patient were averaged first" if run.level == "patient" else "each slide counted by itself"
    n = num_folds(run) or 0
    how = (
        "means over folds with 95 % intervals by the corrected variance of Nadeau and Bengio (2003)"
        if n > 1
        else "of one fold, without an interval of the procedure"
    )
    said = [f"Figures are at {run.level} level ({reduced}): {how}."]
    if run.metric("pooled") and resamples:
        said.append(f"Intervals of pooled figures come from {count(resamples)} bootstrap resamples of test patients.")
    if name:
        said.append(f"The baseline ({name}, on mean and standard deviation of the features) used the same folds.")
    return " ".join(said)


def _survival(run: RunContents) -> str:
    times = [one["time"] for one in dig(run.evaluation, "calibration_at") or [] if is_number(dig(one, "time"))]
    if not times:
        return ""
    return (
        "Figures of times are weighted against censoring by the training patients of the fold; calibration compares "
        f"stated chances of the event by {listing([f'{time:g}' for time in times])} with Kaplan-Meier curves of groups "
        "of alike predictions; risk was cut at the median of each fold's training patients."
    )


def _subgroups(run: RunContents) -> str:
    found = dig(run.audit, "subgroups") or {}
    names = [str(dig(one, "attribute")) for one in found.get("attributes") or []]
    if not names:
        return ""
    least = found.get("least_events")
    few = f"; under {least} events nothing was claimed" if is_number(least) else ""
    return f"Subgroups by {listing(names)} were each compared with all other patients, with Holm's correction{few}."


def _audits(run: RunContents) -> str:
    if run.audit is None:
        return ""
    looked = [str(one) for one in dig(run.audit, "leaks", "looked_at") or [] if one]
    said = [f"leaks of {listing(looked)} between training and test" if looked else "leaks between training and test"]
    if isinstance(dig(run.audit, "sites", "site_from_features"), Mapping):
        said.append("whether features tell the site and the site the outcome")
    if dig(run.audit, "slices", "looked_at"):
        said.append("groups of patients in which errors gather")
    return f"The result was audited for {listing(said)}."


def _control(run: RunContents) -> str:
    block = dig(run.control, "headline")
    if not isinstance(block, Mapping):
        return ""
    n = next((block[key] for key in ("permutations", "n") if is_number(block.get(key))), None)
    times = plural(n, "time") if n is not None else "many times"
    p = f" ({p_value(block['p'])})" if is_number(block.get("p")) else ""
    return f"As a control the whole pipeline was repeated {times} with outcomes dealt to other patients{p}."


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
