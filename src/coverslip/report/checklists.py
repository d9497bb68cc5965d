"""Reporting checklists, filled from a run: which items its files answer, where, and what only the authors can add.

Items are told in our own words, under the numbers of the originals:
TRIPOD+AI: Collins et al. 2024, https://doi.org/10.1136/bmj-2023-078378.
CLAIM: Mongan, Moy and Kahn 2020, https://doi.org/10.1148/ryai.2020200029. Its update of 2024 has 44 items and counts
them anew (https://doi.org/10.1148/ryai.240300); the numbers here are those of 2020.

An item is met where the page really shows it, and partly met where it shows a part and a person has to add the rest. So
an item asks what its section shows, or whether the methods text has a sentence of its topic; never whether a setting
exists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coverslip.report.contents import RunContents, dig
from coverslip.report.sections import SECTIONS
from coverslip.report.sections.methods import told
from coverslip.report.wording import has_interval

FORMAT = "coverslip.checklists/1"


class Page:
    """What a run's report shows, asked once: its sections and the topics of its methods text."""

    def __init__(self, run: RunContents) -> None:
        self.run = run
        self.methods = told(run)
        self._sections: dict[str, Any] = {}

    def shows(self, section: str, *keys: str) -> Any:
        """A part of what a section shows; None where the section says why it has nothing."""
        if section not in self._sections:
            built = SECTIONS.load(section).build(self.run)
            self._sections[section] = built if isinstance(built, Mapping) else None
        return dig(self._sections[section], *keys)


Holds = Callable[[Page], bool]


@dataclass(frozen=True)
class Item:
    """One item: its number, what it asks, where the report answers it (a section's name, empty for nowhere), whether
    the page does, and what the authors must add."""

    number: str
    asks: str
    where: str = ""
    holds: Holds | None = None
    add: str = ""


def checklists(run: RunContents) -> dict[str, Any]:
    """The content of checklists.json: for each checklist its source and its items with `status` met, partly or add."""
    page = Page(run)
    return {
        "format": FORMAT,
        "lists": [
            {"name": name, "source": source, "items": [_filled(item, page) for item in items]}
            for name, source, items in CHECKLISTS
        ],
    }


def _filled(item: Item, page: Page) -> dict[str, str]:
    answered = item.holds is not None and item.holds(page)
    status = "add" if not answered else "partly" if item.add else "met"
    add = item.add or ("" if answered else "This run does not answer it.")
    return {
        "number": item.number,
        "asks": item.asks,
        "status": status,
        "where": item.where if answered else "",
        "add": add,
    }


def _said(*topics: str) -> Holds:
    """The methods text has a sentence of each topic."""
    return lambda page: all(topic in page.methods for topic in topics)


def _shown(section: str, *keys: str) -> Holds:
    """The section shows this part."""
    return lambda page: bool(page.shows(section, *keys))


def _excluded(page: Page) -> bool:
    return any(stop.left for stop in page.shows("cohort", "stops") or [])


def _events(page: Page) -> bool:
    return any(cell["classes"] for row in page.shows("splits", "rows") or [] for cell in row["cells"])


def _intervals(page: Page) -> bool:
    return any(has_interval(figure) for figure in (page.shows("results", "primary") or {}).values())


def _subgroups(page: Page) -> bool:
    found = page.shows("subgroups", "attributes") or []
    return any(isinstance(dig(level, "figure"), Mapping) for one in found for level in dig(one, "levels") or [])


def _trained(page: Page) -> bool:
    return bool(page.run.models) and bool(page.shows("training", "folds"))


def _maps(page: Page) -> bool:
    return bool(page.run.maps)  # the section encodes every picture; it is there where there is a map


TRIPOD_AI = (
    Item("1", "Title: a prediction model, its population and outcome", add="Write the title."),
    Item("2", "Abstract by the TRIPOD+AI list for abstracts", add="Write the abstract."),
    Item("3a", "Clinical setting, reasons for the model, models that exist", add="Say why."),
    Item("3b", "Who the model is for and how it would be used", add="Name users, patients and the moment of use."),
    Item("3c", "Known differences in health between groups of people", add="Say what is known for this disease."),
    Item(
        "4", "Aims: development, evaluation or both", "results", _shown("results", "names"), "State the aim in words."
    ),
    Item(
        "5a",
        "Where the data are from and how far they represent",
        "cohort",
        _shown("cohort", "stops"),
        "Name the sources.",
    ),
    Item("5b", "Dates of inclusion and follow-up", add="Give the dates."),
    Item("6a", "Setting, number and places of centres", "sites", _shown("sites", "sites"), "Describe the centres."),
    Item("6b", "Who was eligible", "cohort", _excluded, "State the criteria."),
    Item("6c", "Treatments, and how they were dealt with", add="Say which."),
    Item(
        "7",
        "Preparation and quality checks of the data",
        "preflight",
        _shown("preflight"),
        "Say whether they are alike for all groups of people.",
    ),
    Item("8a", "The outcome, its time, how and why it was assessed", "methods", _said("cohort"), "Say how assessed."),
    Item("8b", "Who assessed the outcome, with what training", add="Name the qualifications."),
    Item("8c", "Blinding of those who assessed the outcome", add="Say whether blinded."),
    Item("9a", "How predictors were chosen", "methods", _said("encoder"), "Say why this encoder."),
    Item("9b", "Predictors: what, how and when measured", "methods", _said("tiles"), "Add staining and scanning."),
    Item("9c", "Who assessed predictors, where people did", add="Annotators, where there were any."),
    Item("10", "How the number of patients was arrived at", "cohort", _shown("cohort", "stops"), "Justify the number."),
    Item("11", "Missing data: how much, and what was done", "cohort", _shown("cohort", "stops"), "Give reasons."),
    Item("12a", "How the data were used: training, tuning, testing", "splits", _shown("splits", "rows")),
    Item("12b", "How predictors were transformed", "methods", _said("scaling")),
    Item(
        "12c",
        "Kind of model, all steps of building, internal validation",
        "methods",
        _said("model", "training", "stopping", "folds"),
    ),
    Item("12d", "Differences between clusters such as hospitals", "shortcuts", _shown("shortcuts", "rows")),
    Item(
        "12e",
        "Measures and plots of performance, with their reasons",
        "results",
        _shown("results", "names"),
        "Say why these.",
    ),
    Item("12f", "Updating of the model because of the evaluation", add="Say none, or which."),
    Item("12g", "How predictions of a new case are computed", "methods", _said("outputs", "new cases")),
    Item(
        "13",
        "Class imbalance: what was done about it, and recalibration after it",
        "methods",
        _said("imbalance", "recalibration"),
    ),
    Item(
        "14",
        "Fairness: what was done to find or mend unequal performance",
        "subgroups",
        _subgroups,
        "Add what was mended.",
    ),
    Item("15", "What the model gives out, and thresholds", "methods", _said("outputs"), "Justify a threshold."),
    Item("16", "Differences between training and test data", add="Compare the cohorts, where there are several."),
    Item("17", "Ethics approval and consent", add="Name the board and the number."),
    Item("18a", "Funding", add="Name it."),
    Item("18b", "Conflicts of interest", add="Declare them."),
    Item("18c", "Where the protocol is", add="Give the link, or say there is none."),
    Item("18d", "Registration", add="Give the number, or say there is none."),
    Item("18e", "Availability of the data", add="Say on what terms."),
    Item("18f", "Availability of the code", "provenance", _shown("provenance", "tables"), "Give the link."),
    Item("19", "Patients and public: their part in the study", add="Say which, or none."),
    Item(
        "20a",
        "From those looked at to those analysed, with outcomes",
        "cohort",
        lambda page: bool(page.shows("cohort", "stops") and page.shows("cohort", "classes")),
    ),
    Item(
        "20b",
        "Who the participants are: main characteristics",
        "cohort",
        _shown("cohort", "counts"),
        "Add a table one.",
    ),
    Item(
        "20c",
        "Training against test cohort: main predictors and outcome",
        "splits",
        _events,
        "Outcomes are there; compare predictors, and other cohorts.",
    ),
    Item("21", "Numbers of participants and events in each analysis", "splits", _events),
    Item(
        "22",
        "The whole model, so that others can use it",
        "provenance",
        lambda page: bool(page.run.models and page.shows("provenance", "settings")),
        "Share the folder, and say under which terms.",
    ),
    Item("23a", "Performance with intervals, also of key subgroups", "subgroups", _subgroups),
    Item("23b", "Differences in performance between clusters", "sites", _shown("sites", "sites")),
    Item("24", "Results of updating, where done", add="Say none, or which."),
    Item("25", "Overall interpretation, fairness included", add="Write it."),
    Item("26", "Limits of the study", "limits", _shown("limits", "limits"), "Add those of your setting."),
    Item("27a", "What to do with poor or missing input", "preflight", _shown("preflight"), "Say what users should do."),
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
    Item("7", "Sources of the data", "cohort", _shown("cohort", "stops"), "Name them."),
    Item("8", "Eligibility: how, where and when cases were found", "cohort", _excluded, "State the criteria."),
    Item("9", "Preparation of the data", "methods", _said("tiles", "encoder", "scaling")),
    Item("10", "Which parts of the data were selected", "methods", _said("tissue", "tiles")),
    Item("11", "Definitions of data elements", "methods", _said("cohort"), "Define outcome and covariates."),
    Item("12", "De-identification", add="Say how slides and tables were de-identified."),
    Item("13", "Missing data", "cohort", _excluded),
    Item("14", "Reference standard, so that others could repeat it", add="Define it."),
    Item("15", "Why this reference standard", add="Say why."),
    Item("16", "Who annotated, with what qualification", add="Name it."),
    Item("17", "Tools of annotation", add="Name them."),
    Item("18", "Variability between and within raters", add="Give it."),
    Item("19", "How the number of cases was arrived at", "cohort", _shown("cohort", "stops"), "Justify the number."),
    Item("20", "Assignment to partitions, with proportions", "splits", _shown("splits", "rows")),
    Item("21", "The level at which partitions are disjoint", "splits", _shown("splits", "rows")),
    Item("22", "The model: inputs, outputs, layers", "methods", _said("model", "outputs"), "Describe the layers."),
    Item("23", "Software, with versions", "provenance", _shown("provenance", "tables")),
    Item("24", "How parameters were initialised", "methods", _said("start")),
    Item("25", "Training in detail, hyperparameters", "training", _trained),
    Item("26", "How the final model was selected", "methods", _said("stopping")),
    Item("27", "Ensembling", "methods", lambda page: len(page.run.models) > 1 and "new cases" in page.methods),
    Item("28", "Measures of performance", "results", _shown("results", "names")),
    Item("29", "Uncertainty, and how it was determined", "results", _intervals),
    Item(
        "30",
        "Robustness and sensitivity",
        "shortcuts",
        _shown("shortcuts", "rows"),
        "Add what else was varied.",
    ),
    Item("31", "Explainability, and whether it was validated", "heatmaps", _maps, "Say whether validated."),
    Item("32", "Tests on external data", "results", _shown("results", "external")),
    Item("33", "Flow of cases, with exclusions", "cohort", _shown("cohort", "stops")),
    Item("34", "Demographics and clinical features of each partition", "splits", _events, "Add a table one."),
    Item(
        "35",
        "Performance on all partitions",
        "results",
        _shown("results", "names"),
        "Only test figures are shown; of training and tuning patients there are losses, under Training.",
    ),
    Item("36", "Accuracy with its precision (intervals)", "results", _intervals),
    Item(
        "37",
        "Analysis of failures",
        "slices",
        lambda page: bool(page.shows("slices", "findings") or page.shows("slices", "others")),
    ),
    Item("38", "Limits, bias and generalisability", "limits", _shown("limits", "limits"), "Add those of your setting."),
    Item("39", "What it means for practice", add="Write it."),
    Item("40", "Registration", add="Give the number, or say there is none."),
    Item("41", "Where the protocol is", add="Give the link."),
    Item("42", "Funding and its role", add="Name it."),
)

CHECKLISTS = (
    ("TRIPOD+AI", "https://doi.org/10.1136/bmj-2023-078378", TRIPOD_AI),
    ("CLAIM 2020", "https://doi.org/10.1148/ryai.2020200029", CLAIM),
)
