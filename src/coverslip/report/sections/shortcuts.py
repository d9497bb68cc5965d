"""Leaks by features, pretraining, and whether the model may have read the institution instead of the tissue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverslip.report.contents import RunContents, dig
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import metric_label, number, p_value, percent, plural, span

ENTRIES = {"shortcuts": {"build": "SECTION", "summary": "Leaks by features, pretraining, sites as shortcuts"}}

NOT_ASKED = "Nobody asked: the run was made with audit.enabled = false, or stopped before its audits."

# Cases of a leak that are shown before the rest is folded away.
AT_ONCE = 8


def _build(run: RunContents) -> dict[str, Any] | Absent:
    if run.audit is None:
        return Absent(NOT_ASKED)
    return {
        "at_once": AT_ONCE,
        "findings": dig(run.audit, "leaks", "findings") or [],
        "pretraining": dig(run.audit, "pretraining") or {},
        "reason": dig(run.audit, "sites", "reason"),
        "rows": _rows(run),
        "collapse": _collapse(run),
    }


def _rows(run: RunContents) -> list[dict[str, Any]]:
    """What the site tells, one line a question."""
    sites = dig(run.audit, "sites") or {}
    rows = []
    for key, asks in (("balanced_accuracy", "features tell the site: balanced accuracy"), ("auroc", "the same: AUROC")):
        probe = dig(sites, "site_from_features", key)
        if isinstance(probe, Mapping):
            rows.append(_row(asks, probe, number(probe.get("chance"))))
    for name, part in (dig(sites, "labels") or {"": sites}).items():
        rows += [{**row, "asks": f"{name}: {row['asks']}" if name else row["asks"]} for row in _of_target(part)]
    return rows


def _of_target(sites: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What sites have to do with the target, or with one of several labels."""
    rows = []
    probe = dig(sites, "label_from_site")
    if isinstance(probe, Mapping):
        asks = {
            "c_index": "the site alone tells who has the event sooner: c-index",
            "r2": "the site alone tells the number: R², out of fold",
        }.get(str(probe.get("metric")), "the site alone tells the label: AUROC")
        rows.append(_row(asks, probe, number(probe.get("chance"))))
    tied = dig(sites, "confounding")
    if isinstance(dig(tied, "logrank"), Mapping):
        statistic, df, p = (dig(tied, "logrank", name) for name in ("statistic", "df", "p"))
        value = "–" if statistic is None else f"{number(statistic)} of {df} ({p_value(p, 4)})"
        rows.append({"asks": "curves of the sites differ: log-rank, chi-square of degrees of freedom", "value": value,
                     "span": "", "chance": number(df, 0), "red": False,
                     "reason": dig(tied, "reason") if statistic is None else ""})  # fmt: skip
    elif isinstance(tied, Mapping):
        p, asks, share = tied.get("p"), "site and label hang together: Cramér's V", tied.get("cramers_v")
        if "explained" in tied:
            asks, share = "share of the number's variance between sites, beyond chance", tied["explained"]
        value = f"{number(share)}" + (f" ({p_value(p, 4)})" if p is not None else "")
        rows.append({"asks": asks, "value": value, "span": "", "chance": "0",
                     "red": bool(tied.get("red")), "reason": tied.get("reason") or ""})  # fmt: skip
    within = dig(sites, "within_sites")
    if isinstance(within, Mapping):
        names = len(within.get("sites") or [])
        # Runs of before do not say what the figure is.
        figure = metric_label(str(within["metric"])) if within.get("metric") else "model"
        for key, asks in (
            ("within", f"{figure} within {plural(names, 'site')}, pooled by site"),
            ("overall", f"{figure} of the same patients, all pairs"),
        ):
            rows.append(_row(asks, within.get(key) or {"reason": within.get("reason")}, "0.50"))
    return rows


def _row(asks: str, figure: Mapping[str, Any], chance: str) -> dict[str, Any]:
    reason = figure.get("reason") if figure.get("value") is None else ""
    return {
        "asks": asks,
        "value": number(figure.get("value")),
        "span": span(figure),
        "chance": chance,
        "red": bool(figure.get("red")),
        "reason": reason or "",
    }


def _collapse(run: RunContents) -> str:
    found = dig(run.audit, "collapse") or {}
    if found.get("accuracy") is None:
        return ""
    inner = found.get("within_site") or {}
    share, chance = percent(found["accuracy"], 1), percent(found["chance"], 1)
    told = f"{share} of tiles are nearest to their own slide (chance {chance})"
    if inner.get("accuracy") is not None:
        told += (
            f"; among slides of their own site {percent(inner['accuracy'], 1)} (chance {percent(inner['chance'], 1)})"
        )
    return told + "."


SECTION = Section("shortcuts", 72, "Leaks and shortcuts", Path(__file__).with_suffix(".html"), _build)
