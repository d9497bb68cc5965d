"""Ordered levels from one column: grades, scores, stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from coverslip.base.errors import SettingsError, TableError
from coverslip.base.study import TaskSettings
from coverslip.cohort.cohort import Cohort
from coverslip.cohort.kinds._columns import cell, rows_of, setting
from coverslip.cohort.kinds.classification import MAX_CLASSES, classification_targets
from coverslip.cohort.labels import label_text, natural_order
from coverslip.cohort.table import NUMBER, some
from coverslip.cohort.targets import Groups, Targets

ENTRIES = {
    "ordinal": {
        "build": "ordinal_targets",
        "summary": "ordered levels, one column",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


def ordinal_targets(
    cohort: Cohort, task: TaskSettings, groups: Groups | None, expected: Sequence[str] | None
) -> Targets:
    """The level of each slide: its place in `classes`, which are the levels from lowest to highest.

    The order is that of `task.levels`; else that in which `cohort.classes` names its groups; else that of the numbers.

    Raises:
        SettingsError: no column is named, a level is named twice, or text has no order.
        TableError: the column is missing, empty, constant or looks like a measurement; a patient has two levels.
    """
    column = setting(task.column, "column", "the level")
    levels = list(expected) if expected is not None else _order(cohort, task, column, groups)
    targets = classification_targets(cohort, task, groups, levels)
    if expected is None and targets.frame["y"].nunique() < 2:
        raise TableError(
            f"{cohort.source}: column {column!r} is constant: all {len(targets.frame)} slides with a level have "
            f"{levels[int(targets.frame['y'].iloc[0])]!r}.",
            fix="An ordinal target needs at least two levels.",
        )
    return replace(targets, kind="ordinal", strict=False)


def _order(cohort: Cohort, task: TaskSettings, column: str, groups: Groups | None) -> list[str]:
    """The levels from lowest to highest."""
    cells = rows_of(cohort, [column], fix="task.column names the target.")[cell(column)]
    found = natural_order({label_text(value) for value in cells.dropna()})
    named = [label_text(level) for level in task.levels]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise SettingsError(f"task.levels names {some(twice)} twice.", fix="Name each level once, from low to high.")
    if named:
        return named
    if groups:
        return list(groups)
    if not all(NUMBER.fullmatch(value) for value in found):
        raise SettingsError(
            f"The order of the levels of column {column!r} is not known: it holds {some([repr(v) for v in found])}.",
            fix=f"Name them from low to high: task.levels = {[str(v) for v in found[:3]]}.",
        )
    if len(found) > MAX_CLASSES:
        raise TableError(
            f"{cohort.source}: column {column!r} has {len(found)} different values; an ordinal target has up to "
            f"{MAX_CLASSES} levels.",
            fix="Set task.kind = 'regression', or cut the column into levels.",
        )
    return found
