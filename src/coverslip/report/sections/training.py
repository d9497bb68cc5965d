"""How the models were fitted: the settings that matter, and what each fold's training came to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverslip.report.contents import FoldModel, RunContents, dig
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import is_number, number, seconds

ENTRIES = {"training": {"build": "SECTION", "summary": "Settings of the fit and each fold's epochs"}}

# What is worth a column, and what it is called; any other scalar of a fold's training follows under its own name.
_COLUMNS = {
    "epochs": "Epochs run",
    "best_epoch": "Epoch kept",
    "train_loss": "Training loss",
    "tune_loss": "Tuning loss",
    "seconds": "Time",
}
_MOST_COLUMNS = 8


def _training(model: FoldModel) -> dict[str, Any]:
    """The scalars that tell of a fold's training, wherever model.json keeps them."""
    facts: dict[str, Any] = {}
    for place in ("training", "fit"):
        block = dig(model.facts, place)
        if isinstance(block, Mapping):
            facts.update({k: v for k, v in block.items() if is_number(v) or isinstance(v, str)})
    facts.update({k: model.facts[k] for k in _COLUMNS if k in model.facts})
    return facts


def _cell(name: str, value: Any) -> str:
    if name == "seconds":
        return seconds(value)
    if isinstance(value, str):
        return value
    return number(value, 0 if isinstance(value, int) else 3)


def _build(run: RunContents) -> dict[str, Any] | Absent:
    fit = run.setting("fit")
    if not run.models and not fit:
        return Absent("This run holds no models and no settings of a fit: nothing was trained in it.")
    told = [(model.fold, _training(model)) for model in run.models]
    seen = {key for _, facts in told for key in facts}
    columns = ([key for key in _COLUMNS if key in seen] + sorted(seen - set(_COLUMNS)))[:_MOST_COLUMNS]
    return {
        "fit": fit or {},
        "aggregator": run.setting("aggregator", "name"),
        "options": run.setting("aggregator", "options") or {},
        "columns": [_COLUMNS.get(key, key.replace("_", " ")) for key in columns],
        "folds": [(fold, [_cell(key, facts.get(key)) for key in columns]) for fold, facts in told],
    }


SECTION = Section("training", 90, "Training", Path(__file__).with_suffix(".html"), _build)
