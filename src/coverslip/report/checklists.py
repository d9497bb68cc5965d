"""Reporting checklists, filled from a run: which items its files answer, where, and what only the authors can add.

Items are told in our own words, under the numbers of the originals:
TRIPOD+AI: Collins et al. 2024, https://doi.org/10.1136/bmj-2023-078378.
CLAIM: Mongan, Moy and Kahn 2020, https://doi.org/10.1148/ryai.2020200029. Its update of 2024 has 44 items and counts
them anew (https://doi.org/10.1148/ryai.240300); the numbers here are those of 2020.

An item is met where the run answers it, partly met where it answers a part and a person has to add the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coverslip.report.contents import RunContents, dig

FORMAT = "coverslip.checklists/1"

Holds = Callable[[RunContents], bool]


@dataclass(frozen=True)
class Item:
    """One item: its number, what it asks, where the report answers it (a section's name, empty for nowhere), whether
    the run does, and what the authors must add."""

    number: str
    asks: str
    where: str = ""
    holds: Holds | None = None
    add: str = ""


def checklists(run: RunContents) -> dict[str, Any]:
    """The content of checklists.json: for each checklist its source and its items with `status` met, partly or add."""
    return {
        "format": FORMAT,
        "lists": [
            {"name": name, "source": source, "items": [_filled(item, run) for item in items]}
            for name, source, items in CHECKLISTS
        ],
    }


def _filled(item: Item, run: RunContents) -> dict[str, str]:
    answered = item.holds is not None and item.holds(run)
    status = "add" if not answered else "partly" if item.add else "met"
    add = item.add or ("" if answered else "This run does not answer it.")
    return {
        "number": item.number,
        "asks": item.asks,
        "status": status,
        "where": item.where if answered else "",
        "add": add,
    }


def _there(part: str) -> Holds:
    return lambda run: getattr(run, part) is not None


def _has(part: str, *keys: str) -> Holds:
    return lambda run: bool(dig(getattr(run, part), *keys))


def _setting(*keys: str) -> Holds:
    return lambda run: run.setting(*keys) is not None


def _subgroups(run: RunContents) -> bool:
    found = dig(run.audit, "subgroups", "attributes") or []
    return any(isinstance(dig(level, "figure"), Mapping) for one in found for level in dig(one, "levels") or [])


def _sites(run: RunContents) -> bool:
    return dig(run.audit, "sites", "within_sites", "within") is not None or len(dig(run.evaluation, "sites") or []) > 1


def _explained(run: RunContents) -> bool:
    return bool(run.maps)


TRIPOD_AI = (
    Item("1", "Title: a prediction model, its population and outcome", add="Write the title."),
    Item("2", "Abstract by the TRIPOD+AI list for abstracts", add="Write the abstract."),
    Item("3a", "Clinical setting, reasons for the model, models that exist", add="Say why."),
    Item("3b", "Who the model is for and how it would be used", add="Name users, patients and the moment of use."),
    Item("3c", "Known differences in health between groups of people", add="Say what is known for this disease."),
    Item("4", "Aims: development, evaluation or both", "results", _there("metrics"), "State the aim in words."),
    Item("5a", "Where the data are from and how far they represent", "cohort", _there("cohort"), "Name the sources."),
    Item("5b", "Dates of inclusion and follow-up", add="Give the dates."),
    Item("6a", "Setting, number and places of centres", "sites", _sites, "Describe the centres."),
    Item("6b", "Who was eligible", "cohort", _has("cohort", "exclusions"), "State the criteria."),
    Item("6c", "Treatments, and how they were dealt with", add="Say which."),
    Item(
        "7",
        "Preparation and quality checks of the data",
        "preflight",
        _there("check"),
        "Say whether they are alike for all groups of people.",
    ),
    Item("8a", "The outcome, its time, how and why it was assessed", "methods", _setting("task"), "Say how assessed."),
    Item("8b", "Who assessed the outcome, with what training", add="Name the qualifications."),
    Item("8c", "Blinding of those who assessed the outcome", add="Say whether blinded."),
    Item("9a", "How predictors were chosen", "methods", _setting("encoder", "name")),
    Item("9b", "Predictors: what, how and when measured", "methods", _setting("tiles"), "Add staining and scanning."),
    Item("9c", "Who assessed predictors, where people did", add="Annotators, where there were any."),
    Item("10", "How the number of patients was arrived at", "cohort", _has("metrics", "counts"), "Justify the number."),
    Item("11", "Missing data: how much, and what was done", "cohort", _there("cohort"), "Give reasons."),
    Item("12a", "How the data were used: training, tuning, testing", "splits", _there("split")),
    Item("12b", "How predictors were transformed", "methods", _setting("fit", "standardise")),
    Item("12c", "Kind of model, all steps of building, internal validation", "methods", _setting("aggregator", "name")),
    Item("12d", "Differences between clusters such as hospitals", "shortcuts", _sites),
    Item("12e", "Measures and plots of performance, with their reasons", "results", _has("metrics", "primary")),
    Item("12f", "Updating of the model because of the evaluation", add="Say none, or which."),
    Item("12g", "How predictions of a new case are computed", "methods", lambda run: bool(run.models)),
    Item(
        "13",
        "Class imbalance: what was done about it, and recalibration after it",
        "methods",
        _setting("fit", "class_weights"),
    ),
    Item(
        "14",
        "Fairness: what was done to find or mend unequal performance",
        "subgroups",
        _subgroups,
        "Add what was mended.",
    ),
    Item("15", "What the model gives out, and thresholds", "methods", _has("metrics", "task"), "Justify a threshold."),
    Item(
        "16",
        "Differences between training and test data",
        "cohort",
        _has("metrics", "external"),
        "Compare the cohorts.",
    ),
    Item("17", "Ethics approval and consent", add="Name the board and the number."),
    Item("18a", "Funding", add="Name it."),
    Item("18b", "Conflicts of interest", add="Declare them."),
    Item("18c", "Where the protocol is", add="Give the link, or say there is none."),
    Item("18d", "Registration", add="Give the number, or say there is none."),
    Item("18e", "Availability of the data", add="Say on what terms."),
    Item("18f", "Availability of the code", "provenance", _there("environment"), "Give the link."),
    Item("19", "Patients and public: their part in the study", add="Say which, or none."),
    Item("20a", "From those looked at to those analysed, with outcomes", "cohort", _there("cohort")),
    Item(
        "20b", "Who the participants are: main characteristics", "cohort", _has("metrics", "counts"), "Add a table one."
    ),
    Item("20c", "Training against test cohort: main predictors and outcome", "cohort", _has("metrics", "external")),
    Item("21", "Numbers of participants and events in each analysis", "splits", _has("metrics", "folds")),
    Item(
        "22",
        "The whole model, so that others can use it",
        "provenance",
        lambda run: bool(run.models),
        "Share the folder, and say under which terms.",
    ),
    Item("23a", "Performance with intervals, also of key subgroups", "subgroups", _subgroups),
    Item("23b", "Differences in performance between clusters", "shortcuts", _sites),
    Item("24", "Results of updating, where done", add="Say none, or which."),
    Item("25", "Overall interpretation, fairness included", add="Write it."),
    Item("26", "Limits of the study", "limits", _there("metrics"), "Add those of your setting."),
    Item("27a", "What to do with poor or missing input", "preflight", _there("check")),
    Item("27b", "What users have to do and know", add="Describe it."),
    Item("27c", "Next steps of research", add="Write them."),
)

CLAIM = (
    Item("1", "Title names the kind of artificial intelligence", add="Write the title."),
    Item("2", "Structured abstract", add="Write the abstract."),
    Item("3", "Background, intended use and clinical role", add="Say why."),
    Item("4", "Aims and hypotheses", add="State them."),
    Item("5", "Prospective or retrospective", add="Say which."),
    Item("6", "Goal: a new model, feasibility, non-inferiority ...", add="State it."),
    Item("7", "Sources of the data", "cohort", _there("cohort"), "Name them."),
    Item("8", "Eligibility: how, where and when cases were found", "cohort", _there("cohort"), "State the criteria."),
    Item("9", "Preparation of the data", "preflight", _there("check")),
    Item("10", "Which parts of the data were selected", "methods", _setting("tiles")),
    Item("11", "Definitions of data elements", "methods", _setting("task"), "Define outcome and covariates."),
    Item("12", "De-identification", add="Say how slides and tables were de-identified."),
    Item("13", "Missing data", "cohort", _there("cohort")),
    Item("14", "Reference standard, so that others could repeat it", add="Define it."),
    Item("15", "Why this reference standard", add="Say why."),
    Item("16", "Who annotated, with what qualification", add="Name it."),
    Item("17", "Tools of annotation", add="Name them."),
    Item("18", "Variability between and within raters", add="Give it."),
    Item("19", "How the number of cases was arrived at", "cohort", _has("metrics", "counts"), "Justify the number."),
    Item("20", "Assignment to partitions, with proportions", "splits", _there("split")),
    Item("21", "The level at which partitions are disjoint", "splits", _there("split")),
    Item("22", "The model: inputs, outputs, layers", "methods", _setting("aggregator", "name")),
    Item("23", "Software, with versions", "provenance", _has("environment", "packages")),
    Item("24", "How parameters were initialised", "methods", _setting("fit", "seed")),
    Item("25", "Training in detail, hyperparameters", "training", _setting("fit")),
    Item("26", "How the final model was selected", "training", _setting("fit", "patience")),
    Item("27", "Ensembling", "methods", lambda run: len(run.models) > 1),
    Item("28", "Measures of performance", "results", _has("metrics", "primary")),
    Item("29", "Uncertainty, and how it was determined", "results", _has("metrics", "primary")),
    Item("30", "Robustness and sensitivity", "shortcuts", lambda run: run.audit is not None),
    Item("31", "Explainability, and whether it was validated", "heatmaps", _explained, "Say whether validated."),
    Item("32", "Tests on external data", "results", _has("metrics", "external")),
    Item("33", "Flow of cases, with exclusions", "cohort", _there("cohort")),
    Item("34", "Demographics and clinical features of each partition", "splits", _there("split"), "Add a table one."),
    Item("35", "Performance on all partitions", "results", _has("metrics", "folds")),
    Item("36", "Accuracy with its precision (intervals)", "results", _has("metrics", "primary")),
    Item("37", "Analysis of failures", "slices", _has("audit", "slices", "slices")),
    Item("38", "Limits, bias and generalisability", "limits", _there("metrics"), "Add those of your setting."),
    Item("39", "What it means for practice", add="Write it."),
    Item("40", "Registration", add="Give the number, or say there is none."),
    Item("41", "Where the protocol is", add="Give the link."),
    Item("42", "Funding and its role", add="Name it."),
)

CHECKLISTS = (
    ("TRIPOD+AI", "https://doi.org/10.1136/bmj-2023-078378", TRIPOD_AI),
    ("CLAIM", "https://doi.org/10.1148/ryai.2020200029", CLAIM),
)
