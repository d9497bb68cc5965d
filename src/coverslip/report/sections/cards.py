"""The data label and the model card: what someone who was not there has to know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coverslip.report.cards import data_label, model_card
from coverslip.report.contents import RunContents
from coverslip.report.sections import Absent, Section

ENTRIES = {"cards": {"build": "SECTION", "summary": "Data label and model card"}}


def _build(run: RunContents) -> dict[str, Any] | Absent:
    if run.metrics is None:
        return Absent("The run was not evaluated: there is no model to describe.")
    return {"cards": [("Data label", data_label(run)), ("Model card", model_card(run))]}


SECTION = Section("cards", 112, "Data label and model card", Path(__file__).with_suffix(".html"), _build)
