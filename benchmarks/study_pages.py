"""The pages of docs/studies, from the JSON files of finished runs and nothing else. `studies.py` makes the runs."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import table

from coverslip.eval.covariates import SMALL, sentence
from coverslip.eval.interval import Interval

Json = dict[str, Any]
METRICS = {"auroc": "AUROC", "c_index": "c-index"}

DATA = (
    "Features are those that were published with HIPT (region features of TCGA diagnostic slides, 192 numbers for each "
    "region of 4,096 px at 20x, Apache-2.0 with Commons Clause): no slide was opened, and what the encoder saw in its "
    "pretraining was TCGA itself, so the figures may be too good for slides of another origin. Outcomes are of the "
    "TCGA Pan-Cancer Clinical Data Resource."
)
PROXY = (
    "The institution is read from TCGA's tissue source site, two characters of the barcode, by TCGA's table of "
    "codes. It is "
    "a proxy: a code is of one institution and one tumour type, some institutions collected for others, and scanners "
    "are not known."
)
RULE = (
    "Figures are means over folds; intervals are 95 %, by Nadeau and Bengio, who know that folds share training "
    "patients "
    "([statistics](../statistics.md))."
)


def read(folder: Path, name: str) -> Json:
    found: Json = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return found


def figure(found: Json | None, digits: int = 3) -> str:
    """ ".889 (.836 to .941)"."""
    if not found or found.get("value") is None:
        return "–"
    if found.get("low") is None:
        return _short(found["value"], digits)
    low, high = _short(found["low"], digits), _short(found["high"], digits)
    return f"{_short(found['value'], digits)} ({low} to {high})"


def gap(one: Json, other: Json) -> Json:
    """The difference of two means; the distances to their limits added in squares."""
    value = one["value"] - other["value"]
    down = math.hypot(one["value"] - one["low"], other["high"] - other["value"])
    up = math.hypot(one["high"] - one["value"], other["value"] - other["low"])
    return {"value": value, "low": value - down, "high": value + up}


def signed(found: Json) -> str:
    """ "+.012 (-.020 to +.044)"."""
    if found.get("value") is None:
        return "–"
    parts = [("+" if found[key] >= 0 else "-") + _short(abs(found[key])) for key in ("value", "low", "high")]
    return f"{parts[0]} ({parts[1]} to {parts[2]})"


def cost(folders: Sequence[Path]) -> str:
    """CPU minutes, hardware and versions of these runs."""
    minutes = sum(read(folder, "cost")["cpu_s"] for folder in folders) / 60
    made = read(folders[0], "environment")
    hardware, packages = made["hardware"], made["packages"]
    return (
        f"{minutes:.1f} CPU minutes for all runs of this page on {hardware['cpu']} ({hardware['cores']} cores, "
        f"{hardware['memory_gb']:.0f} GB, no GPU, shared with other work); Coverslip {made['coverslip']}, "
        f"Python {made['python']}, torch {packages['torch']}. Seeds: "
        + ", ".join(f"{name} {seed}" for name, seed in made["seeds"].items())
        + "."
    )


def _short(value: float, digits: int = 3) -> str:
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else text


def _text(parts: Sequence[str]) -> str:
    """The parts of a page; paragraphs are broken, tables and code are not."""
    kept = ("|", "#", "```")
    broken = [
        one if one.startswith(kept) else textwrap.fill(one, 125, break_long_words=False, break_on_hyphens=False)
        for one in parts
    ]
    return "\n\n".join(broken) + "\n"


def _counts(metrics: Json) -> str:
    counts = metrics["counts"]
    groups = next((value for key, value in counts.items() if key not in ("patients", "slides")), {})
    said = ", ".join(f"{name} {n}" for name, n in groups.items())
    return f"{counts['slides']} slides of {counts['patients']} patients ({metrics['level']}s by outcome: {said})"


def _page(title: str, name: str, parts: Sequence[str], folders: Sequence[Path]) -> str:
    again = f"python benchmarks/studies.py --data DATA --work FOLDER --only {name}"
    text = [f"# {title}", *parts, "## How it was made", f"{DATA}", cost(folders), f"```text\n{again}\n```"]
    made = "This page is written by the script from the files of the runs; a number is changed there or nowhere."
    return _text([*text, made])


def subtype_page(title: str, name: str) -> Callable[[Path], str]:
    def page(folder: Path) -> str:
        runs = {run: folder / run for run in ("published", "patients", "sites")}
        metrics = {run: read(where, "metrics") for run, where in runs.items()}
        split = read(runs["published"], "split")
        told = {
            "published": f"{len(metrics['published']['folds'])} published folds, slide level",
            "patients": f"{len(metrics['patients']['folds'])} folds of patients, patient level",
            "sites": f"{len(metrics['sites']['folds'])} folds, institutions left out, patient level",
        }
        rows = [
            [
                told[run],
                figure(found["primary"]["auroc"]),
                figure(found["baseline"]["auroc"]),
                signed(found["versus_baseline"]["auroc"]),
            ]
            for run, found in metrics.items()
        ]
        unseen = gap(metrics["sites"]["primary"]["auroc"], metrics["patients"]["primary"]["auroc"])
        published = gap(metrics["published"]["primary"]["auroc"], metrics["patients"]["primary"]["auroc"])
        parts = [
            f"{_counts(metrics['patients'])}. Gated attention (`abmil`) with default settings, beside a logistic "
            f"regression "
            "on mean and spread of each slide's features, on the same folds.",
            table(["folds", "AUROC of abmil", "of the baseline", "abmil less baseline"], rows),
            RULE,
            "## What the published folds do",
            *_leaks(split, metrics["published"]),
            f"Published less honest folds: {signed(published)}. The two are of different levels and of different "
            f"patients, "
            f"so this is a difference of means with both uncertainties. {_verdict(published, 'the published folds')}",
            "## An institution that the model has not seen",
            f"{PROXY} Institutions with under 20 patients are tested together by a model that has seen none of them. "
            f"{_without(metrics['sites'])}",
            f"Institutions left out less honest folds: {signed(unseen)}, a difference of means; both designs test "
            f"the same "
            f"patients, which this interval does not use, so it is rather too wide. {_verdict(unseen, 'unseen sites')}",
            _within(runs),
        ]
        return _page(title, name, parts, list(runs.values()))

    return page


def _leaks(split: Json, metrics: Json) -> list[str]:
    """Who is on both sides of the published folds."""
    tested = sorted({leak["name"] for leak in split["leaks"] if "test" in leak["sets"] and leak["kind"] == "patient"})
    tuned = {leak["name"] for leak in split["leaks"] if leak["kind"] == "patient"}
    rows = sum(len(fold["test"]) for fold in split["folds"])
    slides = {slide for fold in split["folds"] for slide in fold["test"]}
    return [
        f"They are disjoint by slide and not by patient: **{len(tuned)} patients are on two sides of a fold, "
        f"{len(tested)} of them between test and the rest** ({len(split['leaks'])} times in "
        f"{len(split['folds'])} folds). They are no partition either: {rows} test rows fall on {len(slides)} slides. "
        f"`coverslip train` refuses them, and goes on with `split.allow_leaks` alone. The patients that are tested "
        f"by models "
        f"that had seen them: {', '.join(tested)}."
    ]


def _without(metrics: Json) -> str:
    lost = sum(fold["auroc"] is None for fold in metrics["folds"])
    if not lost:
        return ""
    of = len(metrics["folds"])
    return f"{lost} of the {of} folds test one class alone, have no AUROC, and are left out of the mean."


def _within(runs: dict[str, Path]) -> str:
    """The same patients of the same institutions, ranked within each, by models that had seen it and that had not."""
    found = {run: read(runs[run], "audit")["sites"] for run in ("patients", "sites")}
    within = {run: one["within_sites"].get("within") for run, one in found.items()}
    if any(not one or one.get("value") is None for one in within.values()):
        return "Too few institutions have both classes for a comparison within them."
    sites, units = len(found["sites"]["within_sites"]["sites"]), found["sites"]["within_sites"]["units"]
    tied = found["patients"]["confounding"]
    return (
        f"Closer to a pair: within the {sites} institutions with five or more patients of each class ({units} "
        "patients), ranking patients of one institution alone, AUROC is "
        f"{figure(within['patients'])} in folds of patients and {figure(within['sites'])} where the institution was "
        "left out (these fitted models, test sampling only). Institution and subtype hang together with Cramér's V "
        f"{_short(tied['cramers_v'], 2)} (p {_short(tied['p'], 4)}); ranking within institutions cannot profit from "
        "that."
    )


def _verdict(found: Json, what: str) -> str:
    if found["high"] < 0:
        return f"Figures fall with {what}."
    if found["low"] > 0:
        return f"Figures rise with {what}."
    return f"No change with {what} is shown; the interval says how large one could be."


def survival_page(title: str, name: str) -> Callable[[Path], str]:
    def page(folder: Path) -> str:
        age, both = ((folder / run, read(folder / run, "metrics")) for run in ("age", "age_stage"))
        metric = age[1]["headline"]
        rows = []
        for names, found in (("age", age[1]["covariates"]), ("age and stage", both[1]["covariates"])):
            rows += [
                [names, figure(found["covariates"][metric])],
                [f"tissue, {names}", figure(found["tissue_covariates"][metric])],
                [f"what tissue adds to {names}", signed(found["adds"][metric])],
            ]
        first = [["tissue (`abmil`)", figure(age[1]["primary"][metric])]]
        first.append([f"tissue, baseline ({age[1]['baseline']['name']})", figure(age[1]["baseline"][metric])])
        curves = read(age[0], "evaluation")["risk_groups"]
        groups = "; ".join(f"{one['name']} {one['events']} of {one['patients']}" for one in curves["groups"])
        parts = [
            f"{_counts(age[1])}; overall survival. Tissue and covariates are put together by a Cox model that "
            f"learns from "
            "out-of-fold tissue scores inside each fold: on in-sample scores the covariates would lose.",
            table(["model", "c-index"], [*first, *rows]),
            RULE,
            "## In words",
            " ".join(_sentence(metric, found[1]["covariates"]) for found in (age, both)),
            _adds(both[1]["covariates"]["adds"][metric]),
            f"Cut at the {curves['cut']}, deaths are: {groups}. No p is given: groups that cross-validation made "
            f"need the "
            "permutation of all of it (`--control`).",
        ]
        return _page(title, name, parts, [age[0], both[0]])

    return page


def _sentence(metric: str, found: Json) -> str:
    """What the report says of it now, whatever it said when the run was made."""
    adds = found["adds"][metric]
    return sentence(metric, Interval(adds["value"], adds["low"], adds["high"], adds["interval"]), found["names"])


def _adds(found: Json) -> str:
    if found["low"] is None:
        return (
            f"Nothing is claimed of what the tissue adds to age and stage: {found['value']:+.3f}, without an interval."
        )
    if found["low"] > 0:
        return "Beside age and stage the tissue tells something of its own."
    if found["high"] < 0:
        return f"**The tissue takes away from age and stage**: {signed(found)}."
    if abs(found["value"]) > SMALL:
        return (
            f"**That the tissue adds anything to age and stage is not shown**: {signed(found)}. The interval leaves "
            "room for a gain and for a loss."
        )
    return (
        f"**The tissue adds little here**: {signed(found)} beside age and stage, which every record has. That "
        "is what was measured and no proof of nothing: with so few deaths the interval leaves room on both sides. A "
        "c-index of the tissue alone says nothing of what it adds."
    )


def mutation_page(title: str, name: str, gene: str, floor: str) -> Callable[[Path], str]:
    def page(folder: Path) -> str:
        run = folder / "patients"
        metrics = read(run, "metrics")
        primary, baseline = metrics["primary"], metrics["baseline"]
        rows = [
            ["`abmil`", *(figure(primary[one]) for one in ("auroc", "auprc"))],
            [baseline["name"], *(figure(baseline[one]) for one in ("auroc", "auprc"))],
            ["abmil less baseline", *(signed(metrics["versus_baseline"][one]) for one in ("auroc", "auprc"))],
        ]
        parts = [
            f"Is {gene} mutated? {_counts(metrics)}; {len(metrics['folds'])} folds of patients, default settings. "
            f"{floor}",
            table(["model", "AUROC", "AUPRC"], rows),
            RULE,
        ]
        if (run / "control.json").is_file():
            control = read(run, "control")
            values = control["headline"]["permuted"]["values"]
            parts += [
                "## Control",
                f"{control['sentence']} Outcomes were dealt to other patients and everything was done again, folds "
                f"included: "
                f"`coverslip train --control {control['headline']['permutations']}`.",
                "AUROCs of the permutations: " + ", ".join(_short(value) for value in sorted(values)) + ".",
            ]
        return _page(title, name, parts, [run])

    return page


PAGES = {
    "brca_subtype": subtype_page("Breast cancer: ductal or lobular", "brca_subtype"),
    "lung_subtype": subtype_page("Lung cancer: adenocarcinoma or squamous", "lung_subtype"),
    "brca_survival": survival_page("Breast cancer: overall survival", "brca_survival"),
    "lung_survival": survival_page("Lung cancer: overall survival", "lung_survival"),
    "thca_braf": mutation_page(
        "Thyroid cancer: BRAF", "thca_braf", "BRAF", "From slides like these published models reach about .82."
    ),
    "brca_tp53": mutation_page(
        "Breast cancer: TP53", "brca_tp53", "TP53", "From slides like these published models reach about .73."
    ),
}


def write_index(out: Path, work: Path) -> None:
    """README.md of the folder: one line a study that has a page."""
    rows = []
    for name in PAGES:
        if (out / f"{name}.md").is_file():
            rows += [[f"[{_title(out, name)}]({name}.md)", *row] for row in _lines(work / name)]
    text = [
        "# Studies on real data",
        "Each page is written by `benchmarks/studies.py` from the files of its runs: public features and outcomes "
        "of TCGA, "
        "folds of patients, default settings, intervals, and what speaks against the figure.",
        table(["study", "run", "figure", "model", "baseline"], rows),
        "Baselines are linear models on mean and spread of each slide's features, on the same folds.",
    ]
    (out / "README.md").write_text(_text(text), encoding="utf-8")


def _title(out: Path, name: str) -> str:
    return (out / f"{name}.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def _lines(folder: Path) -> list[list[str]]:
    """The headline of each run of a study: run, metric, model, baseline."""
    told = {
        "published": "published folds (leaking)",
        "patients": "folds of patients",
        "sites": "institutions left out",
        "age": "folds of patients, tissue alone",
    }
    lines = []
    for run in told:
        if (folder / run / "cost.json").is_file():
            found = read(folder / run, "metrics")
            metric = found["headline"]
            lines.append(
                [
                    told[run],
                    METRICS.get(metric, metric),
                    figure(found["primary"][metric]),
                    figure(found["baseline"][metric]),
                ]
            )
    return lines
