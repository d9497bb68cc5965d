"""Times until an event or until the last contact, and which of the two: survival, and competing risks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from coverslip.base.errors import SettingsError, TableError
from coverslip.base.study import TaskSettings
from coverslip.cohort.cohort import Cohort, Exclusion
from coverslip.cohort.kinds._columns import (
    cell,
    numbers,
    one_outcome,
    refuse,
    rows_of,
    setting,
    without_missing,
    zero_or_one,
)
from coverslip.cohort.labels import label_text, natural_order
from coverslip.cohort.table import some
from coverslip.cohort.targets import Groups, Targets

ENTRIES = {
    "survival": {
        "build": "survival_targets",
        "summary": "a time and whether the event came then",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "",
    },
    "survival_cox": {
        "build": "survival_targets",
        "summary": "a time and whether the event came then",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "",
    },
    "survival_parametric": {
        "build": "survival_targets",
        "summary": "a time and whether the event came then",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "",
    },
    "competing_risks": {
        "build": "competing_targets",
        "summary": "a time and which of several events came then",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "",
    },
}

MAX_CAUSES = 10


def survival_targets(
    cohort: Cohort, task: TaskSettings, groups: Groups | None, expected: Sequence[str] | None
) -> Targets:
    """The time of each slide's patient and whether it ended in the event (`event` 1) or was censored (0).

    Slides without a time or an event are exclusions. A cohort without events is allowed: what cannot be computed is
    null later, with the reason.

    Raises:
        SettingsError: task.time or task.event is not set, or task.times is not rising.
        TableError: a column is missing or empty, a time is 0, negative or no number, an event is neither 0 nor 1, a
            patient has two outcomes.
    """
    rows, exclusions, time, event = _rows(cohort, task)
    values = zero_or_one(rows, event, source=cohort.source, fix="An event is 1, a censored time is 0.")
    rows["event"] = values.astype(np.int64)
    return _targets(cohort, task, rows, exclusions, (time, event), causes=(), names=("censored", "event"))


def competing_targets(
    cohort: Cohort, task: TaskSettings, groups: Groups | None, expected: Sequence[str] | None
) -> Targets:
    """The time of each slide's patient and which event ended it: 0 for censored, else 1 + its place in `classes`.

    In the table a censored time has 0, and any other value names a cause. `cohort.classes` groups causes. A cohort
    without events is allowed, as for survival.

    Raises:
        SettingsError: task.time or task.event is not set, or task.times is not rising.
        TableError: as for survival; or there are more than 10 causes.
    """
    rows, exclusions, time, event = _rows(cohort, task)
    said = rows[cell(event)].map(label_text).replace({"False": "0"})
    group_of = {label_text(v): name for name, values in (groups or {}).items() for v in values}
    said = said.map(lambda value: group_of.get(value, value))
    found = natural_order(set(said) - {"0"})
    # Where nobody has an event there is nothing to name causes by: those of the settings, else one called 1 as in a
    # survival task. All that hangs on events is null later, with the reason.
    causes = list(expected) if expected is not None else found or list(groups or ()) or ["1"]
    fix = "A censored time has 0; any other value names the cause of the event."
    refuse(rows, event, ~said.isin(["0", *causes]), f"is no cause ({some(causes)})", source=cohort.source, fix=fix)
    if len(causes) > MAX_CAUSES:
        raise TableError(
            f"{cohort.source}: column {event!r} names {len(causes)} causes of events; up to {MAX_CAUSES} are accepted.",
            fix=fix,
        )
    rows["event"] = said.map({"0": 0, **{cause: 1 + i for i, cause in enumerate(causes)}}).astype(np.int64)
    return _targets(cohort, task, rows, exclusions, (time, event), causes=causes, names=("censored", *causes))


def _rows(cohort: Cohort, task: TaskSettings) -> tuple[pd.DataFrame, tuple[Exclusion, ...], str, str]:
    """Rows with a checked time `y` and some event, what was left out, and the names of both columns."""
    time, event = setting(task.time, "time", "the times"), setting(task.event, "event", "events (1) and censorings (0)")
    rows = rows_of(cohort, [time, event], fix="task.time and task.event name the outcome.")
    rows["y"] = numbers(rows, time, source=cohort.source, fix="A time is a number over 0.")
    fix = f'Correct it, or leave such rows out with cohort.filter = "{time} > 0".'
    refuse(rows, time, rows["y"] <= 0, "is not over 0: nobody is followed for no time", source=cohort.source, fix=fix)
    rows, no_time = without_missing(rows, rows["y"].isna(), f"no value in {time!r}")
    rows, no_event = without_missing(rows, rows[cell(event)].isna(), f"no value in {event!r}")
    if rows.empty:
        raise TableError(f"{cohort.source}: no row has both a time in {time!r} and an event in {event!r}.")
    return rows, no_time + no_event, time, event


def _targets(
    cohort: Cohort,
    task: TaskSettings,
    rows: pd.DataFrame,
    exclusions: tuple[Exclusion, ...],
    columns: tuple[str, str],
    *,
    causes: Sequence[str],
    names: tuple[str, ...],
) -> Targets:
    if task.level == "patient":
        outcome = rows["y"].map("{:g}".format) + rows["event"].map(lambda code: f", {names[code]}")
        one_outcome(rows, outcome, f"columns {columns[0]!r} and {columns[1]!r}", cohort.source)
    units = rows.drop_duplicates("patient") if task.level == "patient" else rows
    warnings = []
    for code, name in enumerate(names[1:], start=1):
        count = int((units["event"] == code).sum())
        if count < 2:
            told = f"No {task.level} has" if count == 0 else f"One {task.level} alone has"
            warnings.append(f"{told} the event {name!r}: hardly anything can be learnt or measured of it.")
    frame = rows[["slide", "patient", "y", "event"]].assign(stratum=rows["event"])
    return Targets(
        task.kind, columns[1], tuple(causes), task.level, frame, exclusions, tuple(warnings),
        columns=columns, strata=names, strict=False, grid=_grid(task),
    )  # fmt: skip


def _grid(task: TaskSettings) -> tuple[float, ...]:
    """The times at which the settings want curves; none where that is left to the folds (`cohort.curve_times`)."""
    if sorted(set(task.times)) != list(task.times):
        raise SettingsError(f"task.times = {task.times} do not rise.", fix="Name each time once, low to high.")
    return tuple(map(float, task.times))
