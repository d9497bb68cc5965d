"""The data label and the model card: what someone who was not there has to know, from the files of the run alone.

After Gebru et al. 2021, https://doi.org/10.1145/3458723, and Mitchell et al. 2019, https://doi.org/10.1145/3287560.
"""

from __future__ import annotations

from collections.abc import Mapping

from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import encoder, excluded, failed, leaks, said_parts
from coverslip.report.wording import ABSENT, count, listing, metric_label, number, plural, span

# What is said where only people know.
ADD = "To be added by the authors."

Line = tuple[str, str]


def data_label(run: RunContents) -> list[Line]:
    """What the cohort is, line by line."""
    counts = run.metric("counts") or {}
    classes = listing(said_parts(counts))
    sites = dig(run.audit, "sites", "site_from_features", "auroc", "counts") or {}
    attributes = dig(run.audit, "subgroups", "attributes") or []
    skipped = dig(run.audit, "subgroups", "skipped") or []
    lost = len(excluded(run)) + len(failed(run))
    return [
        ("Patients and slides", f"{count(counts.get('patients'))} patients, {count(counts.get('slides'))} slides"),
        ("Outcome", f"{run.column}" + (f": {classes}" if classes else "")),
        ("Left out", plural(lost, "row or slide", "rows or slides") + ", reasons under Cohort and Warnings"),
        ("Institutions", listing([f"{name} ({n})" for name, n in sites.items()], 8) or "not in the table"),
        ("Covariates", listing([str(dig(one, "attribute")) for one in attributes], 12) or "none in the table"),
        ("Columns not looked at", listing([f"{s.get('column')} ({s.get('reason')})" for s in skipped], 8) or "none"),
        ("Same slide twice", _twins(run)),
        ("Digest of the table", str(dig(run.cohort, "digest") or ABSENT)),
        ("Collected when, where, for what", ADD),
        ("Consent, ethics, licence of the data", ADD),
        ("Who is not represented", ADD),
    ]


def model_card(run: RunContents) -> list[Line]:
    """What the model is and is not, line by line."""
    card = encoder(run)
    primary = run.metric("primary") or {}
    figures = [
        f"{metric_label(name)} {number(figure.get('value'))} ({span(figure)})"
        for name, figure in primary.items()
        if isinstance(figure, Mapping) and figure.get("value") is not None
    ]
    seen = dig(run.audit, "pretraining", "seen")
    red = [str(one.get("text")) for one in dig(run.audit, "warnings") or [] if one.get("gravity") in ("leak", "fail")]
    return [
        ("Model", f"{run.setting('aggregator', 'name') or ABSENT} on {card.get('name') or 'unnamed'} features"),
        ("Gives out", f"{run.metric('task', 'kind') or ABSENT} of {run.column}, {run.level} by {run.level}"),
        ("Made of", plural(len(run.models), "model") + ", one a fold; predictions are averaged"),
        ("Encoder has learnt from", "not known" if seen is None else listing(list(seen)) or "no public cohort"),
        ("Licence of the encoder", str(card.get("licence") or "not known")),
        ("Performance", listing(figures[:4]) or "not evaluated"),
        ("Tested on", "an external cohort" if run.metric("external") else "patients of its own cohort, out of fold"),
        ("Leaks", plural(len(leaks(run)), "patient") + " on both sides of a fold" if leaks(run) else "none found"),
        ("What speaks against it", " ".join(red) or "nothing red; see Warnings and Limits"),
        ("Intended use, users, patients", ADD),
        ("Not to be used for", "decisions about patients: this is research software and no medical device"),
        ("Contact", ADD),
    ]


def _twins(run: RunContents) -> str:
    pairs = dig(run.audit, "leaks", "feature_twins")
    if pairs is None:
        return "nobody looked"
    return plural(len(pairs), "pair") + " with the same features" if pairs else "none found"
