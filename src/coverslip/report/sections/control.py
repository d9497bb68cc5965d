"""What the same pipeline finds where nothing is to be found: outcomes dealt to other patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coverslip.report import figures
from coverslip.report.contents import RunContents, dig
from coverslip.report.figures import Row
from coverslip.report.sections import Absent, Section
from coverslip.report.wording import is_number, metric_label, p_value

ENTRIES = {"control": {"build": "SECTION", "summary": "The pipeline on outcomes of other patients"}}


def _build(run: RunContents) -> dict[str, Any] | Absent:
    if run.control is None:
        return Absent(
            "Nobody asked what this pipeline finds where nothing is to be found. With --control 20 everything is "
            "trained 20 more times with the outcomes dealt to other patients."
        )
    control = run.control
    headline, metric = control["headline"], metric_label(str(control.get("metric")))
    values = [value for value in dig(headline, "permuted", "values") or [] if is_number(value)]
    rows = [
        Row(metric, "real", {"value": headline.get("observed")}, "model"),
        Row("", "permuted", dig(control, "null_mean"), "baseline", values, absent="no permutation has a figure"),
    ]
    said = str(control.get("sentence"))
    return {
        "control": control,
        "metric": metric,
        "said": said,
        "figure": figures.forest(
            rows, said, reference=control.get("chance"), title=f"{metric}, {control.get('level')} level"
        ),
        "logrank": dig(control, "logrank"),
        "undefined": headline.get("undefined") or 0,
        "p": p_value(headline.get("p")).removeprefix("p "),
    }


SECTION = Section("control", 68, "Control: nothing to be found", Path(__file__).with_suffix(".html"), _build)
