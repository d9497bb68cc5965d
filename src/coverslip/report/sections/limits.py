"""What this report does not show: the limits that no number on the page can lift."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coverslip.report.contents import RunContents, dig
from coverslip.report.facts import excluded, failed
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import plural

ENTRIES = {"limits": {"build": "SECTION", "summary": "What no number here shows"}}


def limits(run: RunContents) -> list[tuple[str, str]]:
    """Each limit as its headline and a sentence."""
    found = []
    if run.metric("external") is None:
        found.append(
            (
                "Other patients, other scanners",
                "Training and test patients come from one cohort. How the model does on slides of another hospital, "
                "stain or scanner is unknown until it is tested there.",
            )
        )
    sites = dig(run.evaluation, "sites") or []
    if len(sites) > 1:
        found.append(
            (
                "The sites were mixed",
                "Patients of every site stand in training and test alike. A model that uses a site's stain as a hint "
                "can look good here; figures within sites are less open to this than figures over all.",
            )
        )
    found.append(
        (
            "Use at the bedside",
            "Discrimination and calibration are not benefit. Nothing here shows that anyone decides better with this "
            "model. Coverslip is research software and no medical device.",
        )
    )
    found.append(
        (
            "Cause",
            "Maps show what these models used. That a region is highlighted is no proof that it carries the disease, "
            "and that one is not is no proof that it is free of it.",
        )
    )
    left = len(excluded(run)) + len(failed(run))
    if left:
        found.append(
            (
                "Who is missing",
                f"{plural(left, 'row or slide was', 'rows or slides were')} left out; if they differ from the rest, "
                "so would the figures.",
            )
        )
    found.append(
        (
            "Choices made on the way",
            "The intervals know of chance in folds and patients. They do not know how many settings were tried before "
            "this run.",
        )
    )
    if run.pseudonymised:
        found.append(
            (
                "Pseudonyms",
                "Ids of slides and patients, paths, hosts, users, dates and times are replaced; names of sites and "
                "classes, and the pixels of the pictures, are not. Whoever holds the run can lead the pseudonyms back.",
            )
        )
    return found


def _build(run: RunContents) -> dict[str, Any] | Absent:
    return {"limits": limits(run)}


SECTION = Section("limits", 120, "What this report does not show", Path(__file__).with_suffix(".html"), _build)
