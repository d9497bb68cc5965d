"""The head of a report: the question, the answer in two sentences, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from coverslip.report import figures
from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import encoder, fold_values, kind, leaks, mean_of, num_folds, said_parts
from coverslip.report.figures import Row
from coverslip.report.wording import ABSENT, count, has_interval, is_number, listing, metric_label, number, plural, span


@dataclass(frozen=True)
class Fact:
    """One number of the head with its name and a line under it."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """What stands above everything: question, verdict in sentences, facts, and the one figure."""

    question: str
    verdict: str
    judgement: str
    facts: tuple[Fact, ...]
    figure: Markup | None
    leaking: bool


def headline(run: RunContents) -> Headline:
    """The head of one run."""
    return Headline(
        question=_question(run),
        verdict=verdict(run),
        judgement=judgement(run),
        facts=tuple(_facts(run)),
        figure=_figure(run),
        leaking=bool(leaks(run)),
    )


def headline_metric(run: RunContents) -> str:
    """The figure that the run's kind of task goes by: auroc, c_index, r2, quadratic_kappa."""
    return str(run.metric("headline") or "auroc")


def headline_label(run: RunContents) -> str:
    """That figure in words, with what it is the mean of: "AUROC", "Mean AUROC of the labels", "Quadratic kappa"."""
    metric = headline_metric(run)
    label, of = metric_label(metric), kind(run)
    several = {"multilabel": "labels", "competing_risks": "causes"}.get(of, "")
    if of == "classification" and len(run.classes) > 2:
        several = "classes"
    return f"Mean {label} of the {several}" if several and metric in ("auroc", "c_index") else label


def chance(name: str) -> float:
    """Its value for guessing."""
    return 0.0 if name in ("r2", "quadratic_kappa") else 0.5


def verdict(run: RunContents) -> str:
    """The headline figure with its interval, what that is of, and the baseline's, in one sentence."""
    name_of = headline_metric(run)
    auroc, label = mean_of(run, name_of), headline_label(run)
    if run.metrics is None:
        return "There is no result: the run has not been evaluated."
    if auroc is None or not is_number(auroc.get("value")):
        return f"No {label} could be computed; the reason stands under Warnings."
    n = num_folds(run)
    mean = f"mean of {plural(n, f'{run.level} fold')}" if n and n > 1 else "one fold"
    interval = f"{mean}, no interval"
    if span(auroc) != ABSENT:
        # Runs from before intervals were widened say nothing of it.
        widened = ", widened to the sampling of the test patients" if "widened" in str(auroc.get("interval")) else ""
        interval = f"95 %: {span(auroc)}; {mean}, Nadeau-Bengio{widened}"
    elif n and n > 1 and auroc.get("reason"):
        interval = f"{interval}: {auroc['reason']}"
    baseline, name = run.metric("baseline", name_of, "value"), run.metric("baseline", "name")
    against = f", against {number(baseline)} of the {name} baseline" if is_number(baseline) else ""
    return f"{label} {number(auroc['value'])} ({interval}){against}."


def judgement(run: RunContents) -> str:
    """What the figures allow one to say, and no more."""
    if leaks(run):
        return "Patients leak between training and test: no conclusion can be drawn from these numbers."
    metric = headline_metric(run)
    auroc, difference = mean_of(run, metric), run.metric("versus_baseline", metric)
    if auroc is None or not has_interval(auroc) or auroc["low"] == auroc["high"]:
        return ""  # without an interval that has a width there is nothing to judge by
    if auroc["low"] <= chance(metric):
        return f"The interval holds {chance(metric):g}: that the model does better than guessing is not shown."
    said = ["Better than guessing."]
    if isinstance(difference, Mapping) and is_number(difference.get("low")):
        gap = f"{number(difference['value'])} ({span(difference)})"
        if difference["low"] > 0:
            said.append(f"Better than the baseline too: the difference is {gap}.")
        elif difference["value"] > 0:
            said.append(f"That it beats the baseline is not shown: the difference is {gap}.")
        else:
            said.append(f"No better than the baseline: the difference is {gap}.")
    return " ".join(said)


def _question(run: RunContents) -> str:
    classes = f" ({listing(run.classes)})" if run.classes else ""
    method, name = run.setting("aggregator", "name"), encoder(run).get("name")
    how = f", by {method} on {name} features" if method and name else ""
    if run.metrics is None and run.settings is None:
        return "The question is not known: the run holds neither settings nor metrics."
    return f"Can “{run.column}”{classes} be told from slides, {run.level} by {run.level}{how}?"


def _facts(run: RunContents) -> list[Fact]:
    counts = run.metric("counts") or {}
    classes = listing(said_parts(counts))
    checked = f"of {count(len(dig(run.check, 'slides') or []))} checked" if run.check else ""
    metric = headline_metric(run)
    pooled = run.metric("pooled", metric)
    # Classes are counted in the unit of the level, and stand under that.
    patients, slides = (
        (classes, checked) if run.level == "patient" else ("", "; ".join(filter(None, [classes, checked])))
    )
    return [
        Fact(count(counts.get("patients")), "patients", patients),
        Fact(count(counts.get("slides")), "slides", slides),
        Fact(count(num_folds(run)), "folds", "made elsewhere" if run.setting("split", "file") else "by patient"),
        Fact(number(dig(pooled, "value")), f"{headline_label(run)}, pooled, {run.level} level", span(pooled)),
    ]


def _figure(run: RunContents) -> Markup | None:
    metric = headline_metric(run)
    label = headline_label(run)
    auroc, baseline = mean_of(run, metric), run.metric("baseline", metric)
    if auroc is None or not is_number(auroc.get("value")):
        return None
    method, name = run.setting("aggregator", "name") or "", run.metric("baseline", "name") or ""
    rows = [Row("Model", str(method), auroc, "model", fold_values(run, metric))]
    text = f"{label}, {run.level} level: model {number(auroc['value'])} ({span(auroc)})"
    if isinstance(baseline, Mapping):
        rows.append(Row("Baseline", str(name), baseline, "baseline"))
        text += f", baseline {number(baseline.get('value'))} ({span(baseline)})"
    title = f"{label}, {run.level} level: circles are folds, bars 95 % intervals"
    return figures.forest(rows, text, title=title, reference=chance(metric))
