"""What a reader of audit.json must know first, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from coverslip.report.wording import p_value, plural

OUTCOME = "looks like an outcome; audit.columns or cohort.covariates would take it"
# Leaks by name stand in split.json, fold by fold, and the report has them from there.
_TOLD_BY_SPLIT = frozenset({"patient_leak", "slide_leak"})
# Groups of errors that are named; the section has all.
_NAMED = 3


def warnings_of(audit: Mapping[str, Any]) -> list[dict[str, str]]:
    """The warnings of an audit: each its gravity (leak, fail, warn) and a sentence, the gravest first."""
    leaks = [
        f"{one['message']} {'; '.join(one['cases'][:3])}. {one['fix']}"
        for one in audit["leaks"]["findings"]
        if one["code"] not in _TOLD_BY_SPLIT
    ]
    pretraining = audit["pretraining"]
    told = {
        "leak": leaks,
        "fail": [*pretraining["warnings"], *_sites(audit["sites"])],
        "warn": [
            *pretraining.get("unsure", ()),
            *_subgroups(audit["subgroups"]),
            *_slices(audit["slices"], audit["level"]),
            *_skipped(audit["subgroups"]),
        ],
    }
    return [{"gravity": gravity, "text": text} for gravity, texts in told.items() for text in texts]


def _sites(sites: Mapping[str, Any]) -> Iterator[str]:
    parts = {"": sites, **{f" “{name}”": part for name, part in (sites.get("labels") or {}).items()}}
    for name, part in parts.items():
        tied, probe = part.get("confounding") or {}, part.get("label_from_site") or {}
        if not tied.get("red") and not probe.get("red"):
            continue
        what = {"r2": "number", "c_index": "time to the event"}.get(str(probe.get("metric")), "label")
        said = ", ".join([*_tied(tied), *_probed(probe)])
        yield (
            f"Site and {what}{name} hang together: {said}. A model that reads the institution would look good here; "
            "look at the figure within sites, and test with split.design = 'leave_site_out'."
        )


def _tied(tied: Mapping[str, Any]) -> Iterator[str]:
    if tied.get("cramers_v") is not None:
        yield f"Cramér's V {tied['cramers_v']:.2f} ({p_value(tied['p'], 4)})"
    elif tied.get("explained") is not None:
        yield f"{tied['explained']:.0%} of the variance lies between sites ({p_value(tied['p'], 4)})"


def _probed(probe: Mapping[str, Any]) -> Iterator[str]:
    if (value := probe.get("value")) is None:
        return
    if probe.get("metric") == "c_index":
        yield f"the site alone tells who has the event sooner, c-index {value:.2f}"
    elif probe.get("metric") == "r2":
        yield f"the site alone tells the number of new patients with r2 {value:.2f}"
    else:
        yield f"the site alone tells the label with AUROC {value:.2f}"


def _subgroups(found: Mapping[str, Any]) -> Iterator[str]:
    for attribute in found["attributes"]:
        for level in attribute["levels"]:
            gap = level["difference"]
            if gap and gap.get("p_holm", 1) < 0.05 and gap["value"] < 0:
                yield (
                    f"The model does worse where {attribute['attribute']} is {level['level']}: {gap['value']:+.2f} "
                    f"({gap['low']:+.2f} to {gap['high']:+.2f}, {p_value(gap['p_holm'])})."
                )


def _slices(found: Mapping[str, Any], level: str) -> Iterator[str]:
    """One sentence for all groups: they overlap, and most are the same patients seen from several sides."""
    bad = [one for one in found["slices"] if one["finding"]]
    if not bad:
        return
    named = [
        f"{one['slice']} ({plural(one['units'], level)}, {one['excess']:+.2f}, {p_value(one['p'])})"
        for one in bad[:_NAMED]
    ]
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    yield (
        f"Errors gather in {plural(len(bad), 'group')} of {found['looked_at']} that were looked at, more than chance "
        f"gives the worst of so many; groups may share {level}s. Worst first, with the excess of errors over others "
        f"of the same class and fold: {'; '.join(named)}{more}."
    )


def _skipped(found: Mapping[str, Any]) -> Iterator[str]:
    outcomes = [one["column"] for one in found["skipped"] if one["reason"] == OUTCOME]
    if outcomes:
        yield (
            f"No subgroups were made of {', '.join(outcomes)}: by name these are outcomes. If one is a covariate, name "
            "it in audit.columns or cohort.covariates; else leave it out of the table."
        )
