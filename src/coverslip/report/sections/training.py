"""How the models were fitted: the settings that matter, and what each fold's training came to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverslip.report import figures
from coverslip.report.contents import FoldModel, RunContents, dig
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import count, is_number, number, seconds

ENTRIES = {"training": {"build": "SECTION", "summary": "Settings of the fit and each fold's epochs"}}

# What is worth a column, and what it is called; any other scalar of a fold's training follows under its own name.
_COLUMNS = {
    "patients": "Patients",
    "slides": "Slides",
    "rows": "Tiles",
    "epochs": "Epochs run",
    "best_epoch": "Epoch kept",
    "best_loss": "Tuning loss kept",
    "steps": "Steps",
    "seconds": "Time",
}
_MOST_COLUMNS = 8

_SETTINGS = {
    "lr": "learning rate",
    "clip": "gradient norm, at most",
    "max_rows": "tiles of a bag, at most",
    "batch": "bags in a step",
    "accumulate": "steps added up",
}


def _training(model: FoldModel) -> dict[str, Any]:
    """The scalars that tell of a fold's training."""
    block = dig(model.facts, "training")
    return {k: v for k, v in block.items() if is_number(v) or isinstance(v, str)} if isinstance(block, Mapping) else {}


def _fold_name(folder: str) -> str:
    """ "repeat1_fold2" as "repeat 1, fold 2"."""
    return re.sub(r"(?<=[a-z])(?=\d)", " ", folder).replace("_", ", ")


def _cell(name: str, value: Any) -> str:
    if name == "seconds":
        return seconds(value)
    if isinstance(value, str):
        return value
    return count(value) if isinstance(value, int) else number(value, 3)


def _histories(run: RunContents) -> list[figures.History]:
    """The losses of each fold, epoch by epoch, where the model keeps them."""
    found = []
    for model in run.models:
        rows = [row for row in dig(model.facts, "training", "history") or [] if isinstance(row, Mapping)]
        if len(rows) > 1:
            kept = dig(model.facts, "training", "best_epoch")
            curves = [[(row.get("epoch"), row.get(name)) for row in rows] for name in ("loss", "tune_loss")]
            train, tune = ([(x, y) for x, y in curve if is_number(x) and is_number(y)] for curve in curves)
            found.append(figures.History(_fold_name(model.fold), train, tune, kept if is_number(kept) else None))
    return found


def _build(run: RunContents) -> dict[str, Any] | Absent:
    fit = run.setting("fit")
    if not run.models and not fit:
        return Absent("This run holds no models and no settings of a fit: nothing was trained in it.")
    resolved = next((s for m in run.models if isinstance(s := dig(m.facts, "training", "settings"), Mapping)), {})
    # What the settings leave open is decided by the number of bags; the first model says how.
    left_open = {key: resolved[key] for key in ("lr", "batch") if (fit or {}).get(key) is None and key in resolved}
    told = [(model.fold, _training(model)) for model in run.models]
    seen = {key for _, facts in told for key in facts}
    columns = ([key for key in _COLUMNS if key in seen] + sorted(seen - set(_COLUMNS)))[:_MOST_COLUMNS]
    return {
        "fit": {
            _SETTINGS.get(key, key.replace("_", " ")): value for key, value in ({**(fit or {}), **left_open}).items()
        },
        "aggregator": run.setting("aggregator", "name"),
        "options": run.setting("aggregator", "options") or {},
        "columns": [_COLUMNS.get(key, key.replace("_", " ")) for key in columns],
        "histories": [figures.history(one) for one in _histories(run)],
        "folds": [(_fold_name(fold), [_cell(key, facts.get(key)) for key in columns]) for fold, facts in told],
    }


SECTION = Section("training", 90, "Training", Path(__file__).with_suffix(".html"), _build)
