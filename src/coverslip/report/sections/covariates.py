"""What tissue adds to clinical covariates: three models on the same folds, and the paired difference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverslip.report.contents import RunContents, dig
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import METRICS, listing

ENTRIES = {"covariates": {"build": "SECTION", "summary": "Covariates alone, and tissue with covariates"}}


def _build(run: RunContents) -> dict[str, Any] | Absent:
    found = run.metric("covariates")
    if not isinstance(found, Mapping) or not isinstance(found.get("covariates"), Mapping):
        if named := run.setting("cohort", "covariates"):
            return Absent(
                f"The study names {listing([str(name) for name in named])}, but the run has no figures of them: it "
                "stopped before its evaluation, or was evaluated by an earlier version."
            )
        return Absent(
            "The study names no covariates. Name clinical columns in cohort.covariates to see what tissue adds to them."
        )
    figured = found["covariates"]
    names = [name for name in METRICS if name in figured] + [name for name in figured if name not in METRICS]
    kinds = [("tissue", "Tissue"), ("covariates", "Covariates"), ("tissue_covariates", "Tissue + covariates")]
    kinds = [(key, title) for key, title in kinds if isinstance(found.get(key), Mapping)]
    headline = str(run.metric("headline") or "auroc")
    return {
        "sentence": found.get("sentence"),
        "columns": listing([str(name) for name in found.get("names") or []]),
        "metrics": names,
        "kinds": kinds,
        "figures": found,
        "adds": found.get("adds") or {},
        "how": dig(found, "adds", headline, "interval"),
        "folds": found.get("folds"),
        "reason": found.get("reason"),
        "unseen": listing([f"{name} ({n})" for name, n in (found.get("unseen") or {}).items()]),
    }


SECTION = Section("covariates", 62, "What does the tissue add?", Path(__file__).with_suffix(".html"), _build)
